"""Diff: what differs between two releases, each thing once and by its kind."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from annotate.diff import BOX_KINDS, IMAGE_KINDS, diff, markdown
from annotate.document import Draft


class Held:
    """Content in memory."""

    def __init__(self, images: list[dict[str, Any]], annotations: list[dict[str, Any]]) -> None:
        self.head = {
            "licenses": [{"id": 1, "name": "CC-BY-4.0"}, {"id": 2, "name": "CC0-1.0"}],
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
