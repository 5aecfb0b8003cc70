"""Diff: what differs between two releases, each thing once and by its kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotate import coco
from annotate.diff import BOX_KINDS, IMAGE_KINDS, diff, markdown
from annotate.document import Draft


class Held:
    """Content in memory."""

    def __init__(
        self, images: list[dict[str, Any]], annotations: list[dict[str, Any]], licences: tuple[str, str] = ("CC-BY-4.0", "CC0-1.0")
    ) -> None:
        self.head = {
            "licenses": [{"id": number, "name": name} for number, name in enumerate(licences, 1)],
            "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        }
        self._images, self._annotations = images, annotations

    def images(self):
        return iter(self._images)

    def annotations(self):
        return iter(self._annotations)


def image(number: int, **changes: Any) -> dict[str, Any]:
    return {"id": number, "sha256": f"sha{number}", "split": "train", "license": 1, "author": "anna", **changes}


def box(number: int, on: int = 1, **changes: Any) -> dict[str, Any]:
    return {"id": number, "image_id": on, "category_id": 1, "bbox": [0.0, 0.0, 10.0, 10.0], "area": 100.0, "iscrowd": 0, **changes}


def test_each_kind_of_change_is_found() -> None:
    old = Held([image(n) for n in (1, 2, 3, 4, 5)], [box(n) for n in range(1, 7)])
    new = Held(
        [image(1), image(4, split="test"), image(5, license=2), image(6)],
        [
            box(1), box(3, bbox=[0.0, 0.0, 10.0, 5.0]), box(4, category_id=2), box(5, attributes={"occluded": True}),
            box(6, category_id=2, bbox=[5.0, 0.0, 10.0, 10.0]), box(7),
        ],
    )  # fmt: skip
    changes = diff(old, new, frozenset({"sha2"}))
    assert changes.images == {
        "images_added": ["sha6"], "images_removed": ["sha3"], "images_revoked": ["sha2"],
        "images_moved": ["sha4"], "images_recredited": ["sha5"],
    }  # fmt: skip
    found = {kind: [(c.new or c.old)["id"] for c in changes.boxes[kind]] for kind in BOX_KINDS}  # type: ignore[index]
    assert found == {"boxes_added": [7], "boxes_removed": [2], "boxes_moved": [3, 6], "boxes_relabelled": [4, 6], "boxes_edited": [5]}
    assert [round(change.iou, 3) for change in changes.boxes["boxes_moved"]] == [0.5, 0.333]
    assert changes.per_class()["dog"] == {"boxes_moved": 1, "boxes_relabelled": 2}
    assert "| dog | 0 | 0 | 1 | 2 | 0 |" in markdown(changes, "x", [])


def test_against_nothing_all_is_added_and_the_tally_alone_keeps_no_box() -> None:
    nothing = Draft({"licenses": [], "categories": []}, [], [])
    changes = diff(nothing, Held([image(1)], [box(1), box(2)]), listed=False)
    assert changes.counts() == {**dict.fromkeys((*IMAGE_KINDS, *BOX_KINDS), 0), "images_added": 1, "boxes_added": 2}
    assert not any(changes.boxes.values())


boxes_lists = st.dictionaries(st.integers(1, 12), st.tuples(st.integers(1, 2), st.integers(1, 3)), max_size=10).map(
    lambda told: [box(n, category_id=c, bbox=[0.0, 0.0, float(w), 4.0]) for n, (c, w) in sorted(told.items())]
)


@settings(max_examples=200, deadline=None)
@given(boxes_lists, boxes_lists)
def test_applied_to_the_old_the_changes_give_the_new(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> None:
    changes = diff(Held([image(1)], old), Held([image(1)], new))
    state = {entry["id"]: entry for entry in old}
    for found in changes.boxes.values():
        for change in found:
            if change.new is None:
                del state[change.old["id"]]  # type: ignore[index]
            else:
                state[change.new["id"]] = change.new
    assert state == {entry["id"]: entry for entry in new}
    assert changes.empty == (old == new)


contents = st.builds(
    lambda splits, boxes, licences: Held([image(n, split=split) for n, split in sorted(splits.items())], boxes, licences),
    st.dictionaries(st.integers(2, 9), st.sampled_from(["train", "test"]), max_size=6).map(lambda splits: {1: "train", **splits}),
    boxes_lists,
    st.permutations(["CC-BY-4.0", "CC0-1.0"]),
)


@settings(max_examples=200, deadline=None)
@given(contents, contents, st.integers(1, 2000), st.booleans())
def test_between_files_equal_lines_are_skipped_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, old: Held, new: Held, block: int, foreign: bool
) -> None:
    folder = tmp_path_factory.mktemp("diff")
    for name, held in (("old", old), ("new", new)):
        document = {**held.head, "images": list(held.images()), "annotations": list(held.annotations())}
        coco.write_document(folder / name, document)
        if foreign and name == "new":  # not our lines
            (folder / name).write_text(json.dumps(document))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(coco, "_BLOCK", block)  # so small that spans end everywhere, and not at the same ids on both sides
        assert diff(*(coco.CocoFile.open(folder / name) for name in ("old", "new"))) == diff(old, new)


def test_equal_lines_are_not_even_parsed(tmp_path: Path) -> None:
    same, other = [box(n) for n in range(1, 5001)], [box(n) for n in range(1, 5001) if n % 1000]
    files = []
    for name, boxes in (("old", same), ("new", other)):
        coco.write_document(tmp_path / name, {**Held([], []).head, "images": [image(1)], "annotations": boxes})
        files.append(coco.CocoFile.open(tmp_path / name))
    sides = zip(*files[0].unequal(files[1], "annotations"), strict=True)
    before, after = ([entry["id"] for span in side for entry in span] for side in sides)
    assert before == [1000, 2000, 3000, 4000, 4999, 5000]  # the last line of a list has no comma
    assert after == [4999]
