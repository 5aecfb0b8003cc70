"""Error hunting: each kind of injected error comes out on top of its kind, with the models' predictions simulated."""

from __future__ import annotations

import json
from argparse import Namespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import boxwright
from collect.console import Console
from collect.errors import UsageError
from train.commands.audit import _tell_worth
from train.loop.audit import Labels, Predictions, Suspicion, audit, from_coco
from train.loop.folds import assign
from train.loop.spoil import Worth

NAMES = ["cat", "dog"]


def world(seed: int, num_images: int = 60):
    """Images with boxes, and predictions that are mostly right: what the audit is given."""
    rng = np.random.default_rng(seed)
    labels, predictions = [], []
    for image in range(num_images):
        spots = rng.permutation(9)[: rng.integers(2, 6)]
        boxes = np.array([[s % 3 * 100 + 10.0, s // 3 * 100 + 10.0, 60.0, 60.0] for s in spots]) + rng.normal(size=(len(spots), 4))
        kinds = rng.integers(0, 2, len(spots))
        labels.append(Labels(boxes, kinds, tuple(f"{image}-{k}" for k in range(len(spots)))))
        noise = rng.normal(size=boxes.shape) * 3
        predictions.append(Predictions(boxes + noise, kinds.copy(), rng.uniform(0.5, 0.95, len(spots))))
    return [f"image{k}" for k in range(num_images)], labels, predictions


def first_of(suspects, kind):
    return next(s for s in suspects if s.kind == kind)


@pytest.mark.parametrize("kind", [Suspicion.MISSING, Suspicion.SPURIOUS, Suspicion.SWAPPED, Suspicion.MISPLACED])
def test_each_error_leads_its_kind(kind):
    images, labels, predictions = world(3)
    victim = labels[7]
    if kind == Suspicion.MISSING:
        labels[7] = Labels(victim.boxes_N4[1:], victim.labels_N[1:], victim.ids[1:])
    elif kind == Suspicion.SPURIOUS:
        labels[7] = Labels(np.vstack([victim.boxes_N4, [[310, 10, 50, 50]]]), np.append(victim.labels_N, 0), (*victim.ids, "extra"))
    elif kind == Suspicion.SWAPPED:
        labels[7] = Labels(victim.boxes_N4, np.array([1 - victim.labels_N[0], *victim.labels_N[1:]]), victim.ids)
    else:
        labels[7] = Labels(victim.boxes_N4 + np.outer(np.arange(len(victim.ids)) == 0, [25, 20, 0, 0]), victim.labels_N, victim.ids)
    predictions[7] = Predictions(predictions[7].boxes_D4, predictions[7].labels_D, np.full(len(predictions[7].scores_D), 0.93))
    suspects = audit(images, labels, predictions, NAMES)
    top = first_of(suspects, kind)
    assert top.image == "image7"
    assert top.box == {Suspicion.MISSING: "", Suspicion.SPURIOUS: "extra"}.get(kind, "7-0")
    assert first_of(suspects, Suspicion.IMAGE).image == "image7"
    assert set(top.to_json()) >= {"image", "box", "kind", "score", "why"}


def test_what_models_overlook_anyway_is_not_suspicious():
    """Half of the small boxes are found by no model; a large one that none finds leads the list all the same."""
    images, labels, predictions = world(3)
    for row in range(0, 60, 2):
        small = np.array([[330.0, 10 + 30 * k, 20, 20] for k in range(4)])
        old = labels[row]
        ids = (*old.ids, *(f"{row}-small {k}" for k in range(4)))
        labels[row] = Labels(np.vstack([old.boxes_N4, small]), np.append(old.labels_N, np.zeros(4, dtype=np.int64)), ids)
    victim = labels[7]
    labels[7] = Labels(np.vstack([victim.boxes_N4, [[310, 10, 60, 60]]]), np.append(victim.labels_N, 0), (*victim.ids, "extra"))
    spurious = [s.box for s in audit(images, labels, predictions, NAMES) if s.kind == Suspicion.SPURIOUS]
    assert spurious[0] == "extra"


def test_images_with_many_small_doubts_are_not_all_wrong_as_a_whole():
    images, labels, predictions = world(3)
    shifts = np.random.default_rng(0).uniform(-25, 25, 60)  # each model lies beside the boxes of its image, by more or less
    predictions = [Predictions(p.boxes_D4 + [shift, 0, 0, 0], p.labels_D, p.scores_D) for p, shift in zip(predictions, shifts, strict=True)]
    victim = labels[7]
    labels[7] = Labels(victim.boxes_N4 * [0.2, 0.2, 1, 1] + [250, 150, 0, 0], victim.labels_N, victim.ids)
    whole = [s for s in audit(images, labels, predictions, NAMES) if s.kind == Suspicion.IMAGE]
    assert whole[0].image == "image7" and whole[0].score > 0.5
    assert sum(s.score > 0.5 for s in whole) <= 6, "a tenth of the images at most"
    assert len(whole) == 60, "the order of the others is still told"


@given(st.integers(0, 1000))
def test_scores_are_shares_and_sorted(seed):
    suspects = audit(*world(seed, 5), NAMES)
    scores = [s.score for s in suspects]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)


def test_nothing_labelled_nothing_seen():
    empty = Labels(np.zeros((0, 4)), np.zeros(0, dtype=np.int64), ())
    unseen = Predictions(np.zeros((0, 4)), np.zeros(0, dtype=np.int64), np.zeros(0))
    assert audit(["a"], [empty], [unseen], NAMES) == []


def test_from_coco__ids_become_labels():
    document = {
        "images": [{"id": 5, "sha256": "ab"}, {"id": 9, "sha256": "cd"}],
        "categories": [{"id": 3, "name": "cat"}, {"id": 8, "name": "dog"}],
        "annotations": [{"id": 1, "image_id": 9, "category_id": 8, "bbox": [1, 2, 3, 4], "box": "x"}],
    }
    images, labels, predictions, names = from_coco(document, [{"image_id": 5, "category_id": 3, "bbox": [0, 0, 2, 2], "score": 0.5}])
    assert (images, names) == (["ab", "cd"], ["cat", "dog"])
    assert labels[1].labels_N.tolist() == [1] and labels[1].ids == ("x",)
    assert predictions[0].labels_D.tolist() == [0] and len(predictions[1].scores_D) == 0


@given(st.lists(st.integers(0, 12), min_size=30, max_size=80), st.integers(2, 4))
def test_folds_keep_groups_whole_and_even(groups, folds):
    if len(set(groups)) < folds:
        with pytest.raises(UsageError, match="folds"):
            assign(groups, folds, 0)
        return
    fold = assign(groups, folds, 0)
    assert all(len({int(f) for f, g in zip(fold, groups, strict=True) if g == group}) == 1 for group in set(groups))
    sizes = np.bincount(fold, minlength=folds)
    assert sizes.min() > 0
    assert sizes.max() - sizes.min() <= max(np.bincount(groups))


def test_audit_from_the_command_line(make_dataset, add_shapes, workspace, capsys):
    dataset, _ = make_dataset("shapes", ["disc", "bar"], [])
    words = [
        "audit",
        "shapes",
        "--root",
        str(workspace.root),
        "--json",
        "--folds",
        "2",
        "--epochs",
        "1",
        "--image-size",
        "64",
        "--device",
        "cpu",
    ]
    assert boxwright.main(words) == 2, "nothing is accepted yet"
    add_shapes(dataset, range(12))
    assert boxwright.main(words) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["images"] == 12
    kept = json.loads((dataset.folder / "audit.json").read_text())
    assert kept == result["suspects"]
    assert {s["kind"] for s in kept} <= set(Suspicion)
    assert boxwright.main(words) == 0, "a second time nothing is trained: the folds are kept"
    assert "training on the others" not in capsys.readouterr().err
    assert boxwright.main([*words, "--top", "50"]) == 0
    all_the_same = json.loads(capsys.readouterr().out)["suspects"]
    assert len(kept) < len(all_the_same) <= 50, "who asks for the likeliest gets them, worth a look or not"
    assert boxwright.main([word for word in words if word != "--json"]) == 0
    told = capsys.readouterr().out
    assert "of errors made on purpose in these labels such a list names" in told


def test_weak_models_are_told_to_be_weak(workspace, capsys):
    for found, weak in ((0.05, True), (0.45, False)):
        _tell_worth(Worth(0.5, 0.5, found), Namespace(fold_budget=14.0), Console(workspace))
        assert ("--fold-budget, now 14 s" in capsys.readouterr().out) == weak
