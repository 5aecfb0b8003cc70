"""Import as a whole: real sets and bad ones, all or nothing, the same again, corrections that come back."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from annotate.formats.format import Done
from annotate.intake import Outcome, Request, take_in
from annotate.journal import Journal, Kind, Verdict
from annotate.state import current
from collect import definition
from collect.errors import BusyError, NotFoundError, StorageError, UsageError
from collect.files import exclusive
from collect.ledger import Ledger
from collect.licenses import USER_SUPPLIED, allows
from collect.records import Reason, State
from collect.workspace import Dataset, Workspace


def bring_in(dataset: Dataset, form: str, path: Path, **options: Any) -> Outcome:
    return take_in(dataset, Request(form, path, **options), lambda items, _: iter(items))


def records_of(dataset: Dataset) -> dict[str, Any]:
    with Ledger(dataset.ledger) as ledger:
        return {record.file_name: record for record in ledger.images(*State)}


def labels_of(dataset: Dataset) -> dict[str, Any]:
    """file name -> ImageLabels."""
    with Journal(dataset.labels) as journal:
        labels = current(journal)
    return {name: labels[record.sha256] for name, record in records_of(dataset).items() if record.sha256 in labels}


def picture(path: Path, width: int = 64, height: int = 48, seed: int = 0, orientation: int = 1) -> Path:
    """A picture whose stored pixels are width × height."""
    pixels = np.random.default_rng(seed).integers(0, 255, (height // 4, width // 4, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).resize((width, height))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, quality=95, exif=exif)
    return path


def coco_file(path: Path, images: list[dict[str, Any]], boxes: list[tuple[int, list[float]]], **more: Any) -> Path:
    annotations = [
        {"id": n, "image_id": i, "category_id": 1, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
        for n, (i, box) in enumerate(boxes, 1)
    ]
    document = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cat"}], **more}
    path.write_text(json.dumps(document))
    return path


@pytest.fixture
def one_image(tmp_path: Path) -> Path:
    picture(tmp_path / "labels" / "a.jpg")
    return coco_file(tmp_path / "labels" / "x.json", [{"id": 1, "file_name": "a.jpg", "width": 64, "height": 48}], [(1, [10, 5, 20, 30])])


# Real sets, with their known facts


def test_facemask_has_ids_from_zero_and_keeps_its_split_and_licence(workspace, real_data):
    dataset = workspace.new_dataset("facemask")
    outcome = bring_in(dataset, "coco", real_data / "facemask-coco")
    assert (outcome.images, outcome.annotations) == (848, 4021)
    built = definition.load(dataset)
    assert [(entry.id, entry.name) for entry in built.classes] == [(1, "mask_weared_incorrect"), (2, "with_mask"), (3, "without_mask")]
    records = records_of(dataset).values()
    assert sorted({(r.split, r.licence.spdx) for r in records}) == [("train", "CC-BY-4.0"), ("val", "CC-BY-4.0")]
    assert sum(r.split == "val" for r in records) == 171
    assert {problem.done for problem in outcome.problems} == {Done.MENDED}
    again = bring_in(dataset, "coco", real_data / "facemask-coco")
    assert (again.new_images, again.events) == (0, {})


def test_raccoon_knows_its_duplicates_and_its_split(workspace, real_data):
    dataset = workspace.new_dataset("raccoon")
    outcome = bring_in(dataset, "voc", real_data / "raccoon")
    assert outcome.images == 196  # of 200; four are byte for byte another
    assert sum("byte for byte" in problem.problem for problem in outcome.problems) == 4
    assert {r.split for r in records_of(dataset).values()} == {"train", "test"}
    assert {entry.verdict for entry in labels_of(dataset).values()} == {Verdict.ACCEPTED}
    assert {r.licence.spdx for r in records_of(dataset).values()} == {USER_SUPPLIED}
    assert allows(definition.load(dataset).collect.licenses, USER_SUPPLIED)


def test_raccoon_is_the_same_from_csv(workspace, real_data):
    boxes = {}
    for form in ("voc", "csv"):
        dataset = workspace.new_dataset(form)
        bring_in(dataset, form, real_data / "raccoon")
        boxes[form] = {r.sha256: r.split for r in records_of(dataset).values()}
    assert boxes["voc"] == boxes["csv"]


def test_bccd_skips_two_empty_boxes_and_keeps_three_splits(workspace, real_data):
    dataset = workspace.new_dataset("bccd")
    outcome = bring_in(dataset, "voc", real_data / "bccd")
    assert (outcome.images, outcome.annotations) == (364, 4886)
    skipped = [problem for problem in outcome.problems if problem.done is Done.SKIPPED]
    assert [problem.problem.endswith("has no area") for problem in skipped] == [True, True]
    splits = [r.split for r in records_of(dataset).values()]
    assert [splits.count(name) for name in ("train", "val", "test")] == [205, 87, 72]


def test_face_crops_are_one_object_each(workspace, real_data, tmp_path):
    for name in ("mask", "nomask"):
        (tmp_path / "crops" / name).mkdir(parents=True)
        for path in sorted((real_data / "face-crops" / name).iterdir())[:12]:
            shutil.copy(path, tmp_path / "crops" / name)
    dataset = workspace.new_dataset("crops")
    outcome = bring_in(dataset, "folder", tmp_path / "crops")
    assert outcome.class_names == ["mask", "nomask"]
    for name, entry in labels_of(dataset).items():
        record = records_of(dataset)[name]
        assert [box.xywh for box in entry.present()] == [(0.0, 0.0, record.width, record.height)]


# All or nothing


def test_bad_labels_import_nothing_and_are_all_listed(workspace, tmp_path):
    picture(tmp_path / "in" / "a.jpg")
    images = [
        {"id": 1, "file_name": "a.jpg", "width": 64, "height": 48},
        {"id": 2, "file_name": "gone.jpg"},
        {"id": 3, "file_name": "../b.jpg"},
    ]
    path = coco_file(
        tmp_path / "in" / "x.json", images, [(1, [1, 1, 5, 5]), (2, [1, 1, 5, 5]), (9, [1, 1, 5, 5]), (1, [float("nan"), 1, 5, 5])]
    )
    dataset = workspace.new_dataset("bad")
    with pytest.raises(UsageError) as caught:
        bring_in(dataset, "coco", path)
    for part in ("gone.jpg", "../b.jpg", "annotation 3", "annotation 4", "--skip-bad"):
        assert part in str(caught.value)
    assert not dataset.folder.exists()


def test_a_wrong_folder_floods_no_terminal(workspace, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "novel.txt").write_text("it was a dark and stormy night\n" * 3000)
    with pytest.raises(UsageError) as caught:
        bring_in(workspace.new_dataset("bad"), "yolo", tmp_path / "in")
    assert len(str(caught.value).splitlines()) < 50 and "more; --json lists them" in str(caught.value)
    assert len(caught.value.problems) >= 3000


def test_skip_bad_takes_the_rest_and_does_not_vouch_for_what_lost_boxes(workspace, tmp_path):
    for number, name in enumerate("abc"):
        picture(tmp_path / "in" / f"{name}.jpg", seed=number)
    images = [{"id": n, "file_name": f"{name}.jpg", "width": 64, "height": 48} for n, name in enumerate("abc", 1)]
    path = coco_file(tmp_path / "in" / "x.json", images, [(1, [1, 1, 5, 5]), (2, [2, 2, 5, 5]), (2, [float("nan"), 1, 5, 5])])
    dataset = workspace.new_dataset("bad")
    bring_in(dataset, "coco", path, skip_bad=True)
    labels = labels_of(dataset)
    assert {name: entry.verdict for name, entry in labels.items()} == {"a.jpg": "accepted", "b.jpg": "pending", "c.jpg": "accepted"}
    assert len(labels["b.jpg"].present()) == 1


def test_a_dry_run_writes_nothing(workspace, one_image):
    dataset = workspace.new_dataset("dry")
    outcome = bring_in(dataset, "coco", one_image, dry_run=True)
    assert (outcome.images, outcome.annotations) == (1, 1)
    assert not dataset.folder.exists()


def test_a_full_disk_leaves_no_labels(small_disk, real_data):
    dataset = Workspace.at(small_disk).new_dataset("full")
    with pytest.raises(StorageError, match="full"):
        bring_in(dataset, "voc", real_data / "raccoon")
    assert not dataset.definition.exists()
    assert not dataset.labels.exists()


def test_an_import_waits_for_no_collector(workspace, one_image):
    dataset = workspace.new_dataset("busy")
    with exclusive(dataset.locks / "collect", "collect busy"), pytest.raises(BusyError, match="collect busy"):
        bring_in(dataset, "coco", one_image)
    assert not dataset.definition.exists()


def test_absent_paths_and_formats_are_said(workspace, tmp_path):
    dataset = workspace.new_dataset("x")
    with pytest.raises(NotFoundError, match="nowhere"):
        bring_in(dataset, "coco", tmp_path / "nowhere")
    with pytest.raises(UsageError, match="did you mean 'coco'"):
        bring_in(dataset, "cocoo", tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no JSON file"):
        bring_in(dataset, "coco", tmp_path / "empty")


# Into a dataset that exists


def test_unknown_classes_are_listed_with_the_nearest_and_old_names_count(workspace, one_image):
    dataset = workspace.new_dataset("pets")
    text = definition.template("pets", [(4, "cats")])
    definition.create(dataset, text)
    with pytest.raises(UsageError, match=r"cat.*did you mean 'cats'"):
        bring_in(dataset, "coco", one_image)
    dataset.definition.write_text(text.replace('name = "cats"', 'name = "cats"\nwas = ["cat"]'))
    outcome = bring_in(dataset, "coco", one_image)
    assert [box.category for box in labels_of(dataset)["a.jpg"].present()] == ["cats"]
    assert any(USER_SUPPLIED in problem.problem and problem.done is Done.NOTED for problem in outcome.problems)


def test_images_that_are_there_keep_their_licence_and_no_other_is_told_of(workspace, one_image):
    dataset = workspace.new_dataset("pets")
    definition.create(dataset, definition.template("pets", [(4, "cat")]))
    bring_in(dataset, "coco", one_image, licence="CC0-1.0")
    again = bring_in(dataset, "coco", one_image)
    assert {record.licence.spdx for record in records_of(dataset).values()} == {"CC0-1.0"}
    assert not [problem for problem in again.problems if "licenses" in problem.problem]


def test_a_licence_that_is_stated_later_is_taken__one_that_is_known_stays(workspace, one_image):
    dataset = workspace.new_dataset("pets")
    for said, kept, notes in (("", "LicenseRef-User-Supplied", 0), ("CC-BY-4.0", "CC-BY-4.0", 1), ("CC0-1.0", "CC-BY-4.0", 0)):
        outcome = bring_in(dataset, "coco", one_image, licence=said)
        assert {record.licence.spdx for record in records_of(dataset).values()} == {kept}
        assert sum("here without a stated licence, and has it now" in problem.problem for problem in outcome.problems) == notes


def test_ids_split_licence_and_unreviewed_are_as_asked(workspace, one_image):
    dataset = workspace.new_dataset("asked")
    document = json.loads(one_image.read_text())
    document["categories"] = [{"id": 17, "name": "cat", "supercategory": "animal"}]
    document["annotations"][0]["category_id"] = 17
    one_image.write_text(json.dumps(document))
    bring_in(dataset, "coco", one_image, split="test", licence="cc by 4.0", unreviewed=True)
    assert [(entry.id, entry.supercategory) for entry in definition.load(dataset).classes] == [(17, "animal")]
    (record,) = records_of(dataset).values()
    assert (record.split, record.licence.spdx, record.source) == ("test", "CC-BY-4.0", "import:coco")
    assert labels_of(dataset)["a.jpg"].verdict == Verdict.PENDING
    with pytest.raises(UsageError, match="no SPDX id"):
        bring_in(workspace.new_dataset("other"), "coco", one_image, licence="whatever goes")


def test_a_revoked_image_stays_revoked(workspace, one_image):
    dataset = workspace.new_dataset("revoked")
    bring_in(dataset, "coco", one_image)
    (record,) = records_of(dataset).values()
    with Ledger(dataset.ledger) as ledger:
        ledger.set_image_state(record.sha256, State.REVOKED, Reason.TAKEN_DOWN)
    document = json.loads(one_image.read_text())
    document["annotations"][0]["bbox"] = [1, 1, 9, 9]
    one_image.write_text(json.dumps(document))
    outcome = bring_in(dataset, "coco", one_image)
    assert outcome.events == {}
    assert any("REVOKED" in problem.problem for problem in outcome.problems)


# Pixels


def upright_truth(orientation: int, stored_box: list[float]) -> tuple[float, ...]:
    """Where Pillow's own transposition puts a white box."""
    pixels = np.zeros((48, 64), dtype=np.uint8)
    x, y, w, h = (int(value) for value in stored_box)
    pixels[y : y + h, x : x + w] = 255
    image = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = io.BytesIO()
    image.save(data, "PNG", exif=exif)
    from PIL import ImageOps

    with Image.open(data) as stored:
        left, top, right, bottom = ImageOps.exif_transpose(stored).getbbox()
    return left, top, right - left, bottom - top


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("labels_are", ["stored", "upright"])
def test_boxes_are_brought_upright_once(workspace, tmp_path, orientation, labels_are):
    picture(tmp_path / "in" / "a.jpg", orientation=orientation)
    box = [10.0, 5.0, 20.0, 30.0]
    truth = upright_truth(orientation, box)
    size = (48, 64) if orientation >= 5 else (64, 48)
    stated, written = ((64, 48), box) if labels_are == "stored" else (size, list(truth))
    path = coco_file(tmp_path / "in" / "x.json", [{"id": 1, "file_name": "a.jpg", "width": stated[0], "height": stated[1]}], [(1, written)])
    dataset = workspace.new_dataset("turned")
    outcome = bring_in(dataset, "coco", path)
    (record,) = records_of(dataset).values()
    assert (record.width, record.height, record.orientation) == (*size, orientation)
    (read,) = labels_of(dataset)["a.jpg"].present()
    if labels_are == "upright" or orientation in {1, 5, 6, 7, 8}:
        assert read.xywh == truth
    else:  # 2, 3 and 4 keep the size, so it cannot be told: taken as upright, and said
        assert any("taken as those of the upright picture" in problem.problem for problem in outcome.problems)


@pytest.mark.parametrize(("stated", "factor"), [((128, 96), 0.5), ((32, 24), 2.0)])
def test_labels_of_a_resized_copy_are_scaled_and_said(workspace, one_image, stated, factor):
    document = json.loads(one_image.read_text())
    document["images"][0] |= {"width": stated[0], "height": stated[1]}
    document["annotations"][0]["bbox"] = [value / factor for value in (10, 5, 20, 30)]
    one_image.write_text(json.dumps(document))
    dataset = workspace.new_dataset("scaled")
    outcome = bring_in(dataset, "coco", one_image)
    assert labels_of(dataset)["a.jpg"].present()[0].xywh == (10.0, 5.0, 20.0, 30.0)
    assert "scaled" in outcome.problems[0].problem


def test_labels_of_another_shape_are_refused(workspace, one_image):
    document = json.loads(one_image.read_text())
    document["images"][0] |= {"width": 500, "height": 100}
    one_image.write_text(json.dumps(document))
    with pytest.raises(UsageError, match="another image's labels"):
        bring_in(workspace.new_dataset("shape"), "coco", one_image)


def test_boxes_that_stick_out_are_clipped_and_those_outside_skipped(workspace, tmp_path):
    picture(tmp_path / "in" / "a.jpg")
    path = coco_file(tmp_path / "in" / "x.json", [{"id": 1, "file_name": "a.jpg"}], [(1, [-5, 40, 20, 20]), (1, [70, 1, 5, 5])])
    dataset = workspace.new_dataset("out")
    outcome = bring_in(dataset, "coco", path)
    assert [box.xywh for box in labels_of(dataset)["a.jpg"].present()] == [(0.0, 40.0, 15.0, 8.0)]
    assert [problem.done for problem in outcome.problems] == [Done.MENDED, Done.SKIPPED]


def test_a_test_image_that_is_also_in_train_stays_out_of_train(workspace, tmp_path):
    source = picture(tmp_path / "in" / "train" / "a.jpg")
    (tmp_path / "in" / "test").mkdir()
    shutil.copy(source, tmp_path / "in" / "test" / "b.jpg")
    coco_file(tmp_path / "in" / "train.json", [{"id": 1, "file_name": "a.jpg"}], [(1, [1, 1, 9, 9])])
    coco_file(tmp_path / "in" / "test.json", [{"id": 1, "file_name": "b.jpg"}], [(1, [1, 1, 9, 9])])
    dataset = workspace.new_dataset("leak")
    outcome = bring_in(dataset, "coco", tmp_path / "in")
    assert [record.split for record in records_of(dataset).values()] == ["test"]
    assert len(outcome.problems) == 2


def test_images_of_one_name_are_told_apart_by_folder_or_refused(workspace, tmp_path):
    for number, split in enumerate(("train", "val")):
        picture(tmp_path / "in" / split / "1.jpg", seed=number)
        coco_file(tmp_path / "in" / f"{split}.json", [{"id": 1, "file_name": "1.jpg"}], [(1, [1 + number, 1, 9, 9])])
    dataset = workspace.new_dataset("names")
    outcome = bring_in(dataset, "coco", tmp_path / "in")
    assert outcome.images == 2
    shutil.move(tmp_path / "in" / "val.json", tmp_path / "in" / "more.json")
    with pytest.raises(UsageError, match="several places"):
        bring_in(workspace.new_dataset("names2"), "coco", tmp_path / "in")


def test_odd_images_are_refused_by_name_and_good_ones_kept(workspace, real_data, tmp_path):
    """Truncated and fake images with labels: each is named; the rest of them comes in with --skip-bad."""
    for folder in ("01_truncated", "10_not_images", "05_colour_modes"):
        shutil.copytree(real_data / "odd-images" / folder, tmp_path / "odd" / folder)
    dataset = workspace.new_dataset("odd")
    with pytest.raises(UsageError) as caught:
        bring_in(dataset, "folder", tmp_path / "odd")
    assert "truncated.jpg" in str(caught.value)
    outcome = bring_in(dataset, "folder", tmp_path / "odd", skip_bad=True)
    assert outcome.images == len(records_of(dataset)) > 5


def test_a_zip_is_as_good_as_a_folder(workspace, one_image):
    archive = one_image.parent.parent / "set.zip"
    with zipfile.ZipFile(archive, "w") as out:
        for path in one_image.parent.iterdir():
            out.write(path, f"set/{path.name}")
    outcome = bring_in(workspace.new_dataset("zipped"), "coco", archive)
    assert (outcome.images, outcome.annotations) == (1, 1)


def test_wrong_encodings_are_read_and_said(workspace, tmp_path):
    picture(tmp_path / "in" / "Zoë.jpg")
    box = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
    labelled = f"<filename>Zoë.jpg</filename><object><name>Füchs</name>{box}</object>"
    xml = f'<?xml version="1.0" encoding="utf-8"?><annotation>{labelled}</annotation>'
    (tmp_path / "in" / "a.xml").write_bytes(xml.encode("cp1252"))
    outcome = bring_in(workspace.new_dataset("voc"), "voc", tmp_path / "in")
    assert outcome.class_names == ["Füchs"]
    assert [("Windows-1252" in p.problem, p.done) for p in outcome.problems] == [(True, Done.MENDED)]
    (tmp_path / "in" / "a.csv").write_bytes("filename;class;xmin;ymin;xmax;ymax\nZoë.jpg;Füchs;1,5;2;9;9\n".encode("utf-16"))
    dataset = workspace.new_dataset("csv")
    assert bring_in(dataset, "csv", tmp_path / "in" / "a.csv").class_names == ["Füchs"]
    assert labels_of(dataset)["Zoë.jpg"].present()[0].xywh == (1.5, 2.0, 7.5, 7.0)


def test_xml_entities_are_refused(workspace, tmp_path):
    (tmp_path / "a.xml").write_text('<!DOCTYPE x [<!ENTITY a "b">]><annotation><filename>&a;</filename></annotation>')
    with pytest.raises(UsageError, match="entities"):
        bring_in(workspace.new_dataset("bomb"), "voc", tmp_path)


# Corrections of an export come back


@pytest.fixture
def released(workspace: Workspace, tmp_path: Path) -> tuple[Dataset, Path]:
    """Three images with two boxes each, released as v001."""
    from annotate.release import Options, make_release

    images = []
    for number in range(1, 4):
        picture(tmp_path / "in" / f"{number}.jpg", seed=number)
        images.append({"id": number, "file_name": f"{number}.jpg", "width": 64, "height": 48})
    boxes = [(number, [10.0 * k, 5.0, 9.5, 30.0]) for number in range(1, 4) for k in (1, 3)]
    path = coco_file(tmp_path / "in" / "x.json", images, boxes)
    dataset = workspace.new_dataset("mine")
    bring_in(dataset, "coco", path, split="train", licence="CC-BY-4.0")
    make_release(dataset, definition.load(dataset), Options())
    return dataset, tmp_path


def export(dataset: Dataset, form: str, out: Path) -> Path:
    from annotate.coco import read_document
    from annotate.formats.format import Export, exporter
    from annotate.formats.names import name_images

    document = read_document(dataset.release_path("v001") / "annotations.json")
    exporter(form)(Export({**document, "images": name_images(document["images"])}, dataset.images, out, "v001"))
    return out


def edit_cvat(folder: Path) -> Path:
    """Somebody moves one box of 1.jpg, deletes the other, and draws one on 2.jpg; CVAT writes two digits."""
    from xml.etree import ElementTree

    path = folder / "annotations.xml"
    tree = ElementTree.parse(path)
    images = {image.get("name"): image for image in tree.getroot().iter("image")}
    moved, deleted = images["1.jpg"].findall("box")
    moved.set("xtl", "12.34")
    images["1.jpg"].remove(deleted)
    ElementTree.SubElement(images["2.jpg"], "box", {"label": "cat", "xtl": "1.00", "ytl": "1.00", "xbr": "6.00", "ybr": "7.00"})
    tree.write(path)
    return path


def edit_labelstudio(folder: Path) -> Path:
    path = folder / "tasks.json"
    all_tasks = json.loads(path.read_text())
    tasks = {Path(task["data"]["image"]).name: task for task in all_tasks}
    moved, _ = result = tasks["1.jpg"]["annotations"][0]["result"]
    right = moved["value"]["x"] + moved["value"]["width"]
    moved["value"] |= {"x": 100 * 12.34 / 64, "width": right - 100 * 12.34 / 64}
    result.pop()
    value = {"x": 100 / 64, "y": 100 / 48, "width": 500 / 64, "height": 600 / 48, "rotation": 0, "rectanglelabels": ["cat"]}
    tasks["2.jpg"]["annotations"][0]["result"].append(
        {"id": "Xy12", "type": "rectanglelabels", "original_width": 64, "original_height": 48, "value": value}
    )
    path.write_text(json.dumps(all_tasks))
    return path


def edit_coco(folder: Path) -> Path:
    path = folder / "annotations" / "instances_train.json"
    document = json.loads(path.read_text())
    ids = {image["file_name"]: image["id"] for image in document["images"]}
    first = [a for a in document["annotations"] if a["image_id"] == ids["1.jpg"]]
    right = first[0]["bbox"][0] + first[0]["bbox"][2]
    first[0]["bbox"][0], first[0]["bbox"][2] = 12.34, right - 12.34
    document["annotations"].remove(first[1])
    document["annotations"].append({"id": 99, "image_id": ids["2.jpg"], "category_id": 1, "bbox": [1, 1, 5, 6], "area": 30, "iscrowd": 0})
    path.write_text(json.dumps(document))
    return path


EDITS = {"cvat": edit_cvat, "labelstudio": edit_labelstudio, "coco": edit_coco}


@pytest.mark.parametrize("form", sorted(EDITS))
@pytest.mark.parametrize("with_images", [True, False])
def test_a_corrected_export_edits_boxes_instead_of_doubling_them(released, form, with_images):
    dataset, folder = released
    before = labels_of(dataset)
    path = EDITS[form](export(dataset, form, folder / "out"))
    if not with_images:  # the label file alone comes back: images are found in the dataset by name
        path = Path(shutil.copy(path, folder / "alone" / path.name if (folder / "alone").mkdir() is None else path))
    outcome = bring_in(dataset, form, path)
    assert outcome.events == {Kind.EDIT: 1, Kind.DELETE: 1, Kind.IMPORT: 1}
    after = labels_of(dataset)
    moved, deleted = before["1.jpg"].present()
    (kept,) = after["1.jpg"].present()
    assert kept.id == moved.id
    assert kept.xywh == pytest.approx((12.34, 5.0, 19.5 - 12.34, 30.0), abs=0.005)
    assert after["1.jpg"].boxes[deleted.id].status == "gone"
    assert [box.id for box in after["2.jpg"].present()][:2] == [box.id for box in before["2.jpg"].present()]
    assert after["2.jpg"].present()[2].xywh == pytest.approx((1, 1, 5, 6), abs=1e-6)
    assert bring_in(dataset, form, path).events == {}


def test_both_sides_changed_is_a_conflict_that_is_listed_and_ours_stays(released):
    from annotate.journal import Status, box_event

    dataset, folder = released
    path = edit_cvat(export(dataset, "cvat", folder / "out"))
    (first, second), sha = labels_of(dataset)["1.jpg"].present(), records_of(dataset)["1.jpg"].sha256
    with Journal(dataset.labels) as journal:
        journal.append(
            [
                box_event(Kind.EDIT, "reviewer:anna", sha, first.id, Status.PRESENT, "cat", (20.0, 5.0, 9.0, 9.0)),
                box_event(Kind.EDIT, "reviewer:anna", sha, second.id, Status.PRESENT, "cat", (31.0, 6.0, 9.0, 9.0)),
            ]
        )
    outcome = bring_in(dataset, "cvat", path)
    assert outcome.events == {Kind.IMPORT: 1}
    conflicts = [problem for problem in outcome.problems if "ours was kept" in problem.problem]
    assert len(conflicts) == 2
    assert [box.xywh for box in labels_of(dataset)["1.jpg"].present()] == [(20.0, 5.0, 9.0, 9.0), (31.0, 6.0, 9.0, 9.0)]


def test_what_was_drawn_here_since_the_release_survives_the_return(released):
    from annotate.journal import Status, box_event, new_box_id

    dataset, folder = released
    out = export(dataset, "cvat", folder / "out")
    sha = records_of(dataset)["3.jpg"].sha256
    with Journal(dataset.labels) as journal:
        journal.append([box_event(Kind.DRAW, "reviewer:anna", sha, new_box_id(), Status.PRESENT, "cat", (1.0, 1.0, 4.0, 4.0))])
    assert bring_in(dataset, "cvat", out).events == {}
    assert len(labels_of(dataset)["3.jpg"].present()) == 3


def test_a_corrected_export_from_before_a_class_was_renamed(released, capsys):
    dataset, folder = released
    path = edit_coco(export(dataset, "coco", folder / "out"))
    dataset.definition.write_text(dataset.definition.read_text().replace('name = "cat"', 'name = "felid"\nwas = ["cat"]'))
    outcome = bring_in(dataset, "coco", path)
    assert outcome.events == {Kind.EDIT: 1, Kind.DELETE: 1, Kind.IMPORT: 1}, "a new name is no edit"
    assert not [problem for problem in outcome.problems if "split" in problem.problem]


def test_an_export_that_comes_back_brings_no_news_of_its_splits(workspace, tmp_path):
    from annotate.release import Options, make_release

    images = [{"id": number, "file_name": f"{number}.jpg", "width": 64, "height": 48} for number in range(1, 9)]
    for image in images:
        picture(tmp_path / "in" / image["file_name"], seed=image["id"])
    dataset = workspace.new_dataset("mine")
    path = coco_file(tmp_path / "in" / "x.json", images, [(n, [10.0, 5.0, 9.5, 30.0]) for n in range(1, 9)])
    bring_in(dataset, "coco", path, licence="CC-BY-4.0")
    make_release(dataset, definition.load(dataset), Options())
    outcome = bring_in(dataset, "coco", export(dataset, "coco", tmp_path / "out"))
    assert (outcome.events, outcome.problems) == ({}, [])
    assert bring_in(dataset, "coco", path, split="val").problems, "another split than the release's is told of"


def test_an_export_makes_the_same_dataset_anew(released):
    dataset, folder = released
    other = replace(dataset, name="copy", folder=dataset.folder.with_name("copy"))
    bring_in(other, "yolo", export(dataset, "yolo", folder / "out"))
    ours = {
        r.sha256: [(b.category, pytest.approx(b.xywh, abs=1e-9)) for b in labels_of(dataset)[n].present()]
        for n, r in records_of(dataset).items()
    }
    theirs = {r.sha256: [(b.category, b.xywh) for b in labels_of(other)[n].present()] for n, r in records_of(other).items()}
    assert theirs == ours
