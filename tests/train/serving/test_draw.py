"""Detections drawn on a picture: what a person must be able to read of it."""

from __future__ import annotations

import numpy as np

from annotate.coco import Category
from train.detectors.detector import Detections
from train.serving import draw as drawing

CATEGORIES = [Category(id=1, name="raccoon"), Category(id=2, name="face")]


def test_draw__names_of_neighbours_do_not_cover_each_other(monkeypatch) -> None:
    placed = []
    real = drawing.cv2.rectangle
    monkeypatch.setattr(
        drawing.cv2,
        "rectangle",
        lambda canvas, a, b, colour, thick: (placed.append((*a, *b)) if thick < 0 else None, real(canvas, a, b, colour, thick)),
    )
    boxes = np.array([(2, 3, 130, 150), (60, 4, 150, 140), (250, 5, 40, 40), (220, 180, 70, 19)], float)
    found = Detections(boxes, np.array([0.9, 0.8, 0.7, 0.6]), np.array([0, 0, 1, 0]))
    white = np.full((200, 300, 3), 255, np.uint8)
    drawn = drawing.draw(white, found, CATEGORIES)
    assert drawn.shape == white.shape and (white == 255).all() and (drawn != 255).any()
    assert len(placed) == 4
    for left, top, right, bottom in placed:
        assert 0 <= left < right <= 300 and 0 <= top < bottom <= 200, "the whole name is in the picture"
    assert not any(drawing._meet(a, b) for place, a in enumerate(placed) for b in placed[:place])


def test_draw__nothing_found() -> None:
    black = np.zeros((20, 30, 3), np.uint8)
    assert (drawing.draw(black, Detections.none(), CATEGORIES) == black).all()
