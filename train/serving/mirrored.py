"""A picture and its mirror image: two looks, one answer.

Both looks err independently to a degree, so the mean of two boxes for one object fits better than either, and what only one
look sees is worth half. It takes twice the time, and sense only where training mirrored its images too.
"""

from __future__ import annotations

import numpy as np

from annotate.boxes import iou_matrix
from train.detectors.detector import Detections

#: A mirrored box that overlaps a free one of its class by more than this is the same object.
SAME_IOU = 0.5


def turned_back(found: Detections, width: int) -> Detections:
    """Detections in the mirror image of a picture `width` pixels wide, as places in the picture itself."""
    boxes = found.boxes_xywh_N4.copy()
    boxes[:, 0] = width - boxes[:, 0] - boxes[:, 2]
    return Detections(boxes, found.scores_N, found.labels_N)


def agreed(plain: Detections, mirrored: Detections) -> Detections:
    """What two looks at one picture say together, best score first.

    Boxes of one object are averaged by their scores, its score is the mean of the two, 0 where one look missed it.
    """
    overlap = iou_matrix(mirrored.boxes_xywh_N4, plain.boxes_xywh_N4)
    overlap[mirrored.labels_N[:, None] != plain.labels_N[None, :]] = 0.0
    boxes, scores = plain.boxes_xywh_N4.copy(), plain.scores_N / 2
    alone = np.ones(len(mirrored), dtype=bool)
    for row in range(len(mirrored)) if len(plain) else ():
        place = int(overlap[row].argmax())
        if overlap[row, place] <= SAME_IOU:
            continue
        alone[row] = False
        overlap[:, place] = 0.0
        weights = np.array([plain.scores_N[place], mirrored.scores_N[row]])
        boxes[place] = np.average([plain.boxes_xywh_N4[place], mirrored.boxes_xywh_N4[row]], axis=0, weights=weights)
        scores[place] = weights.mean()
    extra = mirrored.take(alone)
    together = Detections(
        np.concatenate([boxes, extra.boxes_xywh_N4]),
        np.concatenate([scores, extra.scores_N / 2]),
        np.concatenate([plain.labels_N, extra.labels_N]),
    )
    return together.take(np.argsort(-together.scores_N, kind="stable"))
