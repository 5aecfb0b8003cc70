"""Warm start by category name: order and ids mean nothing; renamed, merged, split, new and removed categories."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from annotate.coco import Category
from collect import definition
from collect.errors import RefusedError
from train.detectors.detector import open_detector
from train.loop.warm_start import ancestry, warm_start

NAMES = ["cat", "dog", "cow", "hen"]


def detector(names, seed, **more):
    torch.manual_seed(seed)
    return open_detector("fcos_mobilenet_v2", [Category(k, name) for k, name in enumerate(names, 1)], 64, "none", **more)


def recipe(names, **was):
    base = definition.parse(Path("x.toml"), definition.template("pets", list(enumerate(names, 1))))
    return replace(base, classes=tuple(replace(entry, **was.get(entry.name, {})) for entry in base.classes))


@settings(max_examples=3, deadline=None)
@given(st.lists(st.sampled_from(NAMES), min_size=1, unique=True), st.lists(st.sampled_from(NAMES), min_size=1, unique=True))
def test_rows_follow_names_whatever_the_order(before, after):
    source, new = detector(before, 1), detector(after, 2)
    torch.nn.init.normal_(source.class_out.bias)
    result = warm_start(new, source, "old", recipe(after))
    for place, name in enumerate(after):
        if name in before:
            assert torch.equal(new.class_out.weight[place], source.class_out.weight[before.index(name)])
            assert new.class_out.bias[place] == source.class_out.bias[before.index(name)]
            assert result.copied[name] == (name,)
        else:
            assert new.class_out.bias[place].item() == pytest.approx(-math.log(99)), "a new class starts at the focal prior"
            assert name in result.fresh
    assert torch.equal(new.features[5].conv[0][0].weight, source.features[5].conv[0][0].weight)
    assert set(result.removed) == set(before) - set(after)
    assert not result.left


def test_renamed_merged_and_split():
    source = detector(["kitty", "tom", "bird"], 1)
    names = ["cat", "hen", "duck", "dog"]
    kinds = recipe(names, cat={"was": ("kitty", "tom")}, hen={"supercategory": "bird"}, duck={"supercategory": "bird"})
    new = detector(names, 2)
    result = warm_start(new, source, "old", kinds)
    rows = source.class_out.weight
    assert torch.allclose(new.class_out.weight[0], (rows[0] + rows[1]) / 2), "merged: the mean"
    assert torch.equal(new.class_out.weight[1], rows[2]) and torch.equal(new.class_out.weight[2], rows[2]), "split: the old row in each"
    assert (dict(result.copied), result.fresh, result.removed) == (
        {"cat": ("kitty", "tom"), "hen": ("bird",), "duck": ("bird",)}, ("dog",), (),
    )  # fmt: skip
    assert "cat ← kitty + tom" in result.sentence() and "new: dog" in result.sentence()


def test_removed_and_readded_elsewhere():
    assert ancestry([Category(1, "a"), Category(2, "b")], [Category(9, "b")], recipe(["b"])) == {"b": ("b",)}


def test_split_off_from_a_class_that_is_renamed_at_once():
    definition = recipe(["masked", "cloth", "bare"], masked={"was": ("with_mask", "mask")}, cloth={"supercategory": "masked"})
    after = [Category(1, "masked"), Category(2, "cloth"), Category(3, "bare")]
    assert ancestry([Category(1, "with_mask")], after, definition) == {"masked": ("with_mask",), "cloth": ("with_mask",), "bare": ()}


def test_another_family_is_refused():
    pytest.importorskip("train.detectors.torchvision_family")
    other = open_detector("ssdlite320_mobilenet_v3_large", [Category(1, "cat")], 320, "none")
    with pytest.raises(RefusedError, match="cannot warm-start"):
        warm_start(detector(["cat"], 0), other, "ssd", recipe(["cat"]))
