"""Errors made on purpose: each as it is said to be, and what a list of suspicions is worth by them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotate.boxes import iou_matrix
from train.loop.audit import audit, from_coco
from train.loop.spoil import spoil, worth


def labelled(num_images: int = 60, seed: int = 0) -> dict:
    """Images of 200 px with one to five boxes of two classes, none over another."""
    rng = np.random.default_rng(seed)
    images, annotations = [], []
    for image in range(1, num_images + 1):
        images.append({"id": image, "width": 200, "height": 200, "sha256": f"{image:064x}"})
        for place in rng.permutation(9)[: rng.integers(1, 6)].tolist():
            box = [
                place % 3 * 65 + float(rng.uniform(2, 15)),
                place // 3 * 65 + float(rng.uniform(2, 15)),
                *rng.uniform(25, 48, 2).tolist(),
            ]
            number = len(annotations) + 1
            of = {"id": number, "box": f"n{number}", "image_id": image, "category_id": int(rng.integers(1, 3)), "iscrowd": 0}
            annotations.append({**of, "bbox": box, "area": box[2] * box[3]})
    return {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]}


def seen_by(document: dict, share: float, seed: int = 1) -> list[dict]:
    """What a model sees that finds a share of the boxes, and as many places where nothing is, with scores that tell little."""
    rng = np.random.default_rng(seed)
    found = []
    for a in document["annotations"]:
        of = {"image_id": a["image_id"], "category_id": a["category_id"]}
        if rng.random() < share:
            box = (np.array(a["bbox"]) + rng.normal(0, 1.5, 4)).tolist()
            found.append({**of, "bbox": box, "score": float(rng.uniform(0.5, 0.95))})
        elif rng.random() < 0.5:
            found.append({**of, "bbox": [*rng.uniform(0, 150, 2).tolist(), 40.0, 40.0], "score": float(rng.uniform(0.05, 0.6))})
    return found


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_spoil__makes_the_errors_that_it_names(seed):
    document = labelled(seed=seed % 7)
    spoilt = spoil(document, seed)
    before = {a["box"]: a for a in document["annotations"]}
    clean = [a for a in document["annotations"] if a["image_id"] not in spoilt.whole]
    true_of = lambda image: np.array([a["bbox"] for a in clean if a["image_id"] == image]).reshape(-1, 4)  # noqa: E731
    assert len(spoilt.errors) + len(spoilt.left_out) == pytest.approx(0.1 * len(clean), abs=2)
    kinds = set(spoilt.errors.values())
    assert kinds <= {"spurious", "swapped", "misplaced"}
    after = {a["box"]: a for a in spoilt.document["annotations"]}
    for box, kind in spoilt.errors.items():
        overlap = iou_matrix(np.array([after[box]["bbox"]]), true_of(after[box]["image_id"]))[0]
        if kind == "spurious":
            assert overlap.max(initial=0) < 0.1
        elif kind == "misplaced":
            assert ((overlap >= 0.3) & (overlap <= 0.65)).any()
        else:
            assert overlap.max() == pytest.approx(1)
    left = {tuple(a["bbox"]) for a in after.values()}
    assert all(tuple(box) not in left for _, box in spoilt.left_out)
    assert before == {a["box"]: a for a in labelled(seed=seed % 7)["annotations"]}, "the document itself is as it was"
    assert spoil(document, seed).document == spoilt.document


def test_worth__good_models_name_much_and_weak_ones_little():
    document = labelled(120)
    good, weak, blind = (worth(document, seen_by(document, share)) for share in (0.97, 0.2, 0.0))
    assert good.found > 0.6 > 0.25 > weak.found >= blind.found
    named = [suspect for suspect in audit(*from_coco(document, seen_by(document, 0.2))) if weak.names(suspect)]
    assert len(named) < len(document["annotations"]) / 10, "of labels without an error few are named"


def test_worth__what_it_names_is_worth_a_look():
    """Labels with errors of which nothing is known to it: at least one in five of the named is one."""
    clean = labelled(120)
    results = seen_by(clean, 0.9)
    spoilt = spoil(clean, 77)
    known = worth(spoilt.document, results)
    names = {image["id"]: image["sha256"] for image in clean["images"]}
    whole = {names[number] for number in spoilt.whole}
    left_out = {names[number] for number, _ in spoilt.left_out}
    named = [s for s in audit(*from_coco(spoilt.document, results)) if known.names(s)]
    right = [s for s in named if s.image in whole or s.box in spoilt.errors or (s.kind == "missing" and s.image in left_out)]
    assert len(named) > 20
    assert len(right) / len(named) > 0.2


def test_worth__of_hardly_any_labels():
    document = labelled(3)
    known = worth(document, seen_by(document, 1.0))
    assert 0 <= known.found <= 1
    flat = {**document["annotations"][0], "bbox": [5.0, 5.0, 0.0, 9.0]}
    for boxes in ([], [flat], document["annotations"][:1]):
        assert worth({**document, "annotations": boxes}, []).found == 0
