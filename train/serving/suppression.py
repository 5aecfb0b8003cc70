"""One object, one box: what a detector's own suppression, which looks at each class by itself, leaves lying on each other."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from annotate.boxes import Floats, iou_matrix
from collect.errors import UsageError

if TYPE_CHECKING:
    from train.detectors.detector import Detections

#: Two true objects of different classes hardly ever overlap by more: none of 9,182 labelled boxes of faces, blood cells and
#: VOC's classes does, of COCO's 830 on 100 images four pairs (LOG.md, seventh session).
CLASS_OVERLAP = 0.7


def across_classes(found: Detections, iou: float = CLASS_OVERLAP) -> Detections:
    """Without boxes that overlap a surer one of another class by more than `iou`, best score first; 1 = all stay.

    Not for judging: COCO's AP ranks each class by itself, and a second opinion on an object costs nothing there.

    >>> from train.detectors.detector import Detections
    >>> boxes = np.array([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 9.0], [20.0, 0.0, 9.0, 9.0]])
    >>> across_classes(Detections(boxes, np.array([0.9, 0.8, 0.7]), np.array([0, 1, 1]))).labels_N.tolist()
    [0, 1]
    """
    return found.take(surest(found.boxes_xywh_N4, found.scores_N, found.labels_N, iou))


def surest(boxes_xywh_N4: Floats, scores_N: Floats, labels_N: NDArray[np.int64], iou: float, same_iou: float = np.inf) -> NDArray[np.int64]:
    """The rows that stay, best score first: those that no surer one that stays overlaps by more than `iou`, of its label `same_iou`."""
    order = np.argsort(-scores_N, kind="stable")
    limit_NN = np.where(labels_N[:, None] == labels_N[None, :], same_iou, iou)
    over_NN = iou_matrix(boxes_xywh_N4, boxes_xywh_N4) > limit_NN
    kept: list[int] = []
    for row in order.tolist():
        if not over_NN[row, kept].any():
            kept.append(row)
    return np.array(kept, dtype=np.int64)


def add_class_overlap(parser: ArgumentParser) -> None:
    """The option `--class-overlap`."""
    parser.add_argument(
        "--class-overlap",
        type=float,
        default=CLASS_OVERLAP,
        metavar="IOU",
        help="of boxes of different classes that overlap by more only the surest is kept (default: %(default)s; 1 = keep all)",
    )


def check_class_overlap(value: float) -> float:
    """What `--class-overlap` was given.

    Raises:
        UsageError: it is no overlap.
    """
    if not 0 <= value <= 1:
        raise UsageError(f"--class-overlap {value} is no overlap; give a number from 0 to 1 (1 = keep all)")
    return value
