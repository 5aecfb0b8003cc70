"""A release: what every tool reads alike, immutable, with ids and splits that stay."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pycocotools.coco import COCO

from annotate import coco, manifest
from annotate.journal import Kind, Status, Verdict, box_event, new_box_id, verdict_event
from annotate.release import Options, Release, make_release
from annotate.state import of_image
from annotate.undo import undo
from annotate.verify import problems
from collect import definition
from collect.errors import RefusedError, StorageError, UsageError
from collect.ledger import Ledger
from collect.licenses import USER_SUPPLIED
from collect.records import Licence, Reason, State
from collect.workspace import Workspace


def written(release: Release) -> dict[str, Any]:
    return coco.read_document(release.path / "annotations.json")


def test_release__is_read_by_pycocotools_with_all_that_was_said(make_dataset: Callable) -> None:
    small = make_dataset(images=6)
    negative = small.add_image(100, boxes=0)
    release = make_release(small.dataset, small.definition)
    assert release.version == "v001"
    truth = COCO(str(release.path / "annotations.json"))
    assert sorted(truth.getAnnIds()) == [1, 2, 3, 4, 5, 6]
    assert {image["sha256"] for image in truth.loadImgs(truth.getImgIds())} >= {negative}
    assert [category["id"] for category in truth.loadCats(truth.getCatIds())] == [1, 5]
    annotation = truth.loadAnns([1])[0]
    assert annotation["bbox"] == [4.0, 8.5, 20.25, 30.0]
    assert annotation["area"] == 20.25 * 30
    assert annotation["reviewed_by"] == "reviewer:anna"
    image = truth.loadImgs(annotation["image_id"])[0]
    assert (image["width"], image["height"]) == (128, 96)
    assert (small.dataset.images / image["file_name"]).is_file()
    cut = [json.loads((release.path / f"{split}.json").read_text()) for split in ("train", "val", "test")]
    assert sum(len(part["images"]) for part in cut) == 7
    credits_ = (release.path / "ATTRIBUTION.md").read_text()
    assert "[noise 3](https://example.org/3) by author 3, [CC-BY-4.0](https://creativecommons.org/licenses/by/4.0/)" in credits_


def test_release__again_without_a_change_is_the_same_release(make_dataset: Callable) -> None:
    small = make_dataset(images=3)
    first = make_release(small.dataset, small.definition)
    again = make_release(small.dataset, small.definition)
    assert (again.version, again.changed) == ("v001", False)
    assert first.path == again.path


def test_release__keeps_ids_and_splits_and_never_gives_an_id_twice(make_dataset: Callable) -> None:
    small = make_dataset(images=12)
    first = written(make_release(small.dataset, small.definition))
    gone = first["images"][3]["sha256"]
    with small.journal() as journal:
        journal.append([verdict_event("reviewer:anna", gone, Verdict.REJECTED)])
    for seed in range(50, 60):
        small.add_image(seed)
    second = written(make_release(small.dataset, small.definition))
    old_images = {image["sha256"]: (image["id"], image["split"]) for image in first["images"]}
    new_images = {image["sha256"]: (image["id"], image["split"]) for image in second["images"]}
    assert gone not in new_images
    assert all(new_images[sha] == told for sha, told in old_images.items() if sha != gone)
    assert old_images[gone][0] not in {number for number, _ in new_images.values()}
    old_boxes = {annotation["box"]: annotation["id"] for annotation in first["annotations"]}
    assert all(old_boxes.get(a["box"], a["id"]) == a["id"] for a in second["annotations"])
    assert len({a["id"] for a in second["annotations"]} | set(old_boxes.values())) == 22


def test_release__an_image_that_comes_back_has_its_old_ids_and_split(make_dataset: Callable) -> None:
    small = make_dataset(images=12)
    first = written(make_release(small.dataset, small.definition))
    away = [image["sha256"] for image in first["images"] if image["split"] == "test"]

    def judge(verdict: Verdict, seed: int) -> dict[str, Any]:
        with small.journal() as journal:
            journal.append([verdict_event("reviewer:anna", sha, verdict) for sha in away])
        small.add_image(seed)
        return written(make_release(small.dataset, small.definition))

    gone = judge(Verdict.REJECTED, 50)
    assert not {image["sha256"] for image in gone["images"]} & set(away)
    judge(Verdict.REJECTED, 51)  # out for longer than one release
    back = judge(Verdict.ACCEPTED, 52)
    assert {image["sha256"]: (image["id"], image["split"]) for image in back["images"]}.items() >= {
        image["sha256"]: (image["id"], image["split"]) for image in first["images"]
    }.items()
    assert {a["box"]: a["id"] for a in back["annotations"]}.items() >= {a["box"]: a["id"] for a in first["annotations"]}.items()


def test_release__of_a_box_that_became_a_crowd_is_a_new_one(make_dataset: Callable) -> None:
    small = make_dataset(images=2)
    first = written(make_release(small.dataset, small.definition))["annotations"][0]
    sha = next(
        image["sha256"] for image in written(make_release(small.dataset, small.definition))["images"] if image["id"] == first["image_id"]
    )
    with small.journal() as journal:
        journal.append([box_event(Kind.EDIT, "reviewer:bert", sha, first["box"], Status.PRESENT, "cat", first["bbox"], iscrowd=1)])
    second = make_release(small.dataset, small.definition)
    assert second.changed
    assert written(second)["annotations"][0]["iscrowd"] == 1


def test_release__of_near_duplicates_keeps_them_in_one_split(make_dataset: Callable) -> None:
    small = make_dataset(images=20)
    twins = [small.add_image(seed, phash="00000000000000ff") for seed in (200, 201, 202)]
    document = written(make_release(small.dataset, small.definition))
    assert len({image["split"] for image in document["images"] if image["sha256"] in twins}) == 1


def test_release__holds_out_a_train_image_whose_twin_an_import_put_into_test(make_dataset: Callable) -> None:
    small = make_dataset()
    tested = small.add_image(1, phash="00000000000000ff", split="test")
    trained = small.add_image(2, phash="00000000000000fe", split="train")
    small.add_image(3, split="train")
    release = make_release(small.dataset, small.definition)
    assert {image["sha256"]: image["split"] for image in written(release)["images"]}[tested] == "test"
    assert trained in release.assignment.held_out
    assert any("held out" in note for note in release.notes)


def test_release__leaves_out_what_nobody_reviewed_unless_asked(make_dataset: Callable) -> None:
    small = make_dataset(images=2)
    pending = small.add_image(50, verdict=Verdict.PENDING)
    bare = small.add_image(51, boxes=0, verdict=Verdict.PENDING)
    proposed = small.add_image(52, boxes=0, verdict=Verdict.PENDING)
    with small.journal() as journal:
        journal.append([box_event(Kind.PROPOSE, "model:m", proposed, new_box_id(), Status.PROPOSED, "cat", (1, 1, 9, 9), 0.7)])
    release = make_release(small.dataset, small.definition, Options(dry_run=True))
    assert release.num_images == 2
    assert release.left_out["not reviewed yet"] == 3
    shas = {image["sha256"] for image in written(make_release(small.dataset, small.definition, Options(unreviewed=True)))["images"]}
    assert {pending, proposed} <= shas
    assert bare not in shas


def test_release__says_why_a_split_that_should_have_images_has_none(make_dataset: Callable) -> None:
    small = make_dataset()
    for seed in range(6):
        small.add_image(seed, split="train" if seed else "test")
    notes = make_release(small.dataset, small.definition).notes
    why = "images keep the split that they were imported with, until `boxwright splits pets --free SPLIT`"
    assert f"val has no image, though [split] gives it 15%: {why}" in notes


def test_release__of_nothing_says_what_to_do(make_dataset: Callable) -> None:
    small = make_dataset()
    with pytest.raises(UsageError, match="the dataset is empty"):
        make_release(small.dataset, small.definition)
    small.add_image(1, verdict=Verdict.PENDING)
    with pytest.raises(UsageError, match=r"1 not reviewed yet.*--allow-unreviewed"):
        make_release(small.dataset, small.definition)


def test_release__refuses_licences_that_are_not_allowed_and_lists_them(make_dataset: Callable) -> None:
    small = make_dataset(images=2)
    bad = small.add_image(7, licence=Licence("CC-BY-NC-2.0"))
    unknown = small.add_image(8, licence=Licence(USER_SUPPLIED))
    with pytest.raises(RefusedError) as caught:
        make_release(small.dataset, small.definition)
    assert bad[:12] in str(caught.value)
    assert unknown[:12] in str(caught.value)
    assert small.dataset.release_names() == []


def test_release__refuses_when_a_file_is_gone(make_dataset: Callable) -> None:
    small = make_dataset(images=2)
    sha = small.add_image(9)
    small.dataset.image_path(sha, "png").unlink()
    with pytest.raises(RefusedError, match=sha):
        make_release(small.dataset, small.definition)


def test_release__leaves_out_revoked_images_and_says_so(make_dataset: Callable) -> None:
    small = make_dataset(images=4)
    sha = written(make_release(small.dataset, small.definition))["images"][0]["sha256"]
    with Ledger(small.dataset.ledger) as ledger:
        ledger.set_image_state(sha, State.REVOKED, Reason.TAKEN_DOWN)
    release = make_release(small.dataset, small.definition)
    assert sha not in {image["sha256"] for image in written(release)["images"]}
    assert f"Revoked, and so left out: `{sha[:12]}`" in (release.path / "changes.md").read_text()


def test_release__refuses_to_give_a_class_id_to_another_class(make_dataset: Callable) -> None:
    small = make_dataset(images=2)
    make_release(small.dataset, small.definition)
    text = small.dataset.definition.read_text()
    renamed = definition.parse(small.dataset.definition, text.replace('name = "cat"', 'name = "cow"'))
    with pytest.raises(RefusedError, match="ids are fixed for ever"):
        make_release(small.dataset, renamed)
    declared = definition.parse(small.dataset.definition, text.replace('name = "cat"', 'name = "cow"\nwas = ["cat"]'))
    assert written(make_release(small.dataset, declared))["categories"][0] == {"id": 1, "name": "cow", "supercategory": ""}


def test_release__says_which_boxes_a_class_that_went_takes_with_it(make_dataset: Callable) -> None:
    small = make_dataset(images=2)
    whole = make_release(small.dataset, small.definition)
    cats = sum(whole.boxes["cat"].values())
    text = small.dataset.definition.read_text()
    without = definition.parse(
        small.dataset.definition, text[: text.index("[[class]]")] + text[text.index("[[class]]", text.index('"cat"')) :]
    )
    assert "cat" not in without.class_names
    release = make_release(small.dataset, without)
    assert cats
    assert release.num_boxes == whole.num_boxes - cats
    assert [note for note in release.notes if f"{cats} box" in note and 'was = ["cat"]' in note]


def test_release__after_an_undo_has_the_old_boxes_with_the_old_ids(make_dataset: Callable) -> None:
    small = make_dataset(images=2)
    first = written(make_release(small.dataset, small.definition))
    box = first["annotations"][0]["box"]
    sha = next(image["sha256"] for image in first["images"] if image["id"] == first["annotations"][0]["image_id"])
    with small.journal() as journal:
        head, _ = journal.head()
        journal.append([box_event(Kind.EDIT, "reviewer:bert", sha, box, Status.PRESENT, "dog", (0, 0, 5, 5))])
        assert make_release(small.dataset, small.definition).version == "v002"
        undo(journal, lambda event: event.seq > head)
        assert of_image(journal, sha).boxes[box].category == "cat"
    third = written(make_release(small.dataset, small.definition))
    strip = [{key: value for key, value in a.items() if key != "event"} for a in third["annotations"]]
    assert strip == [{key: value for key, value in a.items() if key != "event"} for a in first["annotations"]]


def test_verify__finds_any_changed_byte_of_a_release_or_image(make_dataset: Callable) -> None:
    small = make_dataset(images=3)
    release = make_release(small.dataset, small.definition)
    assert list(problems(small.dataset)) == []
    chance = random.Random(1)
    targets = [*release.path.iterdir(), *small.dataset.images.rglob("*.png")]
    for path in targets:
        original = path.read_bytes()
        for _ in range(8):
            changed = bytearray(original)
            changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
            path.write_bytes(changed)
            assert any(path.name in problem for problem in problems(small.dataset)), path
        path.write_bytes(original)
    assert list(problems(small.dataset)) == []
    (release.path / "test.json").unlink()
    assert any("test.json is missing" in problem for problem in problems(small.dataset))


def test_verify__finds_events_cut_off_the_end(make_dataset: Callable) -> None:
    small = make_dataset(images=3)
    make_release(small.dataset, small.definition)
    database = sqlite3.connect(small.dataset.labels)
    with database:
        database.execute("DELETE FROM events WHERE seq = (SELECT max(seq) FROM events)")
    database.close()
    assert any("lacks event" in problem for problem in problems(small.dataset))
    small.dataset.labels.with_suffix(".head").unlink()  # a release remembers, too
    assert any("the last one in v001, is missing" in problem for problem in problems(small.dataset))


def test_arrays__agree_with_the_document(make_dataset: Callable) -> None:
    small = make_dataset(images=5)
    release = make_release(small.dataset, small.definition)
    read = coco.read(release.path / "annotations.json")
    assert read.boxes_xywh_A4.tolist() == [a["bbox"] for a in written(release)["annotations"]]
    assert [len(rows) for rows in read.annotations_of()] == [1] * 5
    assert manifest.read(release.path)["counts"]["annotations"] == 5


def test_write__on_a_full_disk_leaves_no_half_release(make_dataset: Callable, small_disk: Path) -> None:
    small = make_dataset(images=40)
    shutil.copytree(small.dataset.folder, small_disk / "datasets" / "pets", dirs_exist_ok=True)
    full = Workspace.at(small_disk).dataset("pets")
    (small_disk / "filler").write_bytes(bytes(max(0, shutil.disk_usage(small_disk).free - 60_000)))
    with pytest.raises(StorageError, match="the disk is full"):
        make_release(full, small.definition)
    assert full.release_names() == []
    assert [path for path in full.releases.glob(".*") if any(path.iterdir())] == []
    (small_disk / "filler").unlink()
    assert make_release(full, small.definition).version == "v001"
