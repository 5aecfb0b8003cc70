"""Several looks at one picture, one answer: as it is and its mirror image, or half turned where it has no up.

Looks err independently to a degree, so the mean of their boxes for one object fits better than each, and what only one of two
sees is worth half. Each takes the time of one, and has sense only where training showed the detector such pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from annotate.boxes import iou_matrix
from train.data.cache import Pixels
from train.detectors.detector import Detections

#: A box that overlaps one of its class from another look by more than this is the same object.
SAME_IOU = 0.5


@dataclass(frozen=True)
class Look:
    """How a picture is held: left and right exchanged, up and down exchanged."""

    mirrored: bool = False
    upside_down: bool = False

    def at(self, pixels: Pixels) -> Pixels:
        """The picture as it is looked at: uint8 RGB (H, W, 3), of the same size."""
        for axis, exchanged in ((1, self.mirrored), (0, self.upside_down)):
            pixels = cv2.flip(pixels, axis) if exchanged else pixels
        return pixels

    def back(self, found: Detections, size_wh: tuple[int, int]) -> Detections:
        """What was found there, as places in the picture itself, `size_wh` pixels large."""
        boxes = found.boxes_xywh_N4.copy()
        for axis, exchanged in enumerate((self.mirrored, self.upside_down)):
            if exchanged:
                boxes[:, axis] = size_wh[axis] - boxes[:, axis] - boxes[:, axis + 2]
        return Detections(boxes, found.scores_N, found.labels_N)


AS_IT_IS = (Look(),)


def looks_of(mirror: float, turn: float) -> tuple[Look, ...]:
    """The looks that a detector is used to that was trained with these chances of mirrored and of turned pictures."""
    if turn > 0:  # all four flips propose no better on bccd than a half turn alone
        return (Look(), Look(mirrored=True, upside_down=True))
    return (Look(), Look(mirrored=True)) if mirror > 0 else AS_IT_IS


def agreed(looks: Sequence[Detections]) -> Detections:
    """What several looks at one picture, in its own pixels, say together, best score first.

    Boxes of one object are averaged by their scores; its score is the mean of all looks, with 0 for one that missed it. Each
    look's boxes are held, best first, against those of the looks before it.
    """
    first, *others = looks
    boxes, labels = first.boxes_xywh_N4, first.labels_N
    weights = first.scores_N.astype(np.float64)
    for found in others:
        same = _same(found, boxes, labels)
        seen, new = same >= 0, same < 0
        places, scores = same[seen], found.scores_N[seen]
        boxes = boxes.copy()
        share = (scores / np.maximum(weights[places] + scores, 1e-12))[:, None]
        boxes[places] += share * (found.boxes_xywh_N4[seen] - boxes[places])
        weights[places] += scores
        boxes = np.concatenate([boxes, found.boxes_xywh_N4[new]])
        labels = np.concatenate([labels, found.labels_N[new]])
        weights = np.concatenate([weights, found.scores_N[new]])
    return Detections(boxes, weights / len(looks), labels).take(np.argsort(-weights, kind="stable"))


def _same(found: Detections, boxes_xywh_N4: NDArray[np.float64], labels_N: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each box found the row of the free box that it overlaps most, more than :data:`SAME_IOU`, of its class; -1 = none, (M,)."""
    same = np.full(len(found), -1)
    if not len(boxes_xywh_N4):
        return same
    overlap_MN = iou_matrix(found.boxes_xywh_N4, boxes_xywh_N4)
    overlap_MN[found.labels_N[:, None] != labels_N[None, :]] = 0.0
    for row in range(len(found)):
        place = int(overlap_MN[row].argmax())
        if overlap_MN[row, place] > SAME_IOU:
            same[row] = place
            overlap_MN[:, place] = 0.0
    return same
