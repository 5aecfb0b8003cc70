"""Random ground truth and detections with everything that makes evaluators disagree."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

Pair = tuple[dict[str, Any], list[dict[str, Any]]]


@st.composite
def pairs(draw: st.DrawFn, max_images: int = 5, many: bool = False) -> Pair:
    """Crowds, ties of score and of IoU, empty images, areas that are not w × h or on a limit, boxes without area, id 0,
    categories without boxes, float boxes."""
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    images = draw(st.integers(1, max_images))
    categories = draw(st.integers(1, 4))
    whole = draw(st.booleans())
    boxes = draw(st.integers(0, 25))
    found = draw(st.integers(0, 250 if many else 40))
    levels = draw(st.sampled_from([3, 20, 10**6]))
    return random_pair(rng, images, categories, boxes, found, levels=levels, whole=whole)


def random_pair(
    rng: np.random.Generator, images: int, categories: int, boxes: int, found: int, *, levels: int = 1000, whole: bool = False
) -> Pair:
    """`levels` different scores at most, so few levels give many ties; `whole` rounds boxes to pixels, which gives equal IoUs."""
    image_ids = rng.permutation(np.arange(images) * 3 + int(rng.integers(0, 2)))
    category_ids = rng.permutation(np.arange(categories) * 2 + int(rng.integers(0, 2)))
    corners = rng.uniform(0, 60, (boxes, 2))
    sizes = np.exp(rng.uniform(np.log(2), np.log(150), (boxes, 2)))
    sizes = np.where(rng.random((boxes, 2)) < 0.1, rng.choice([0.0, 32.0, 96.0], (boxes, 2)), sizes)
    truth = np.c_[corners, sizes]
    truth = np.round(truth) if whole else truth
    document = {
        "images": [{"id": int(i), "width": 200, "height": 200, "file_name": f"{i}.jpg"} for i in image_ids],
        "categories": [{"id": int(c), "name": f"class {c}"} for c in category_ids],
        "annotations": [
            {
                "id": int(number),
                "image_id": int(rng.choice(image_ids)),
                "category_id": int(rng.choice(category_ids[: max(1, categories - 1)])),
                "bbox": [float(v) for v in box],
                "area": float(box[2] * box[3] * (rng.choice([1.0, 0.6, 0.05]))),
                "iscrowd": int(rng.random() < 0.15),
            }
            for number, box in enumerate(truth)
        ],
    }
    detections = []
    for _ in range(found):
        if boxes and rng.random() < 0.7:
            base = document["annotations"][int(rng.integers(boxes))]
            noise = rng.normal(0, rng.choice([0, 0.05, 0.2]), 4) * np.repeat(base["bbox"][2:], 2)[[0, 2, 1, 3]]
            box = np.array(base["bbox"]) + noise
            box[2:] = np.maximum(box[2:], 0.0)
            image, category = base["image_id"], base["category_id"]
        else:
            box = np.r_[rng.uniform(0, 60, 2), np.exp(rng.uniform(0, 5, 2))]
            image, category = int(rng.choice(image_ids)), int(rng.choice(category_ids))
        box = np.round(box) if whole else box
        score = float(rng.integers(1, levels + 1)) / levels
        detections.append({"image_id": image, "category_id": category, "bbox": [float(v) for v in box], "score": score})
    return document, detections
