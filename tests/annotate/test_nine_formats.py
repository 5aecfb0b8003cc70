"""The same ground truth in nine formats: every importer must read the same boxes, through the whole import."""

from __future__ import annotations

from pathlib import Path

import pytest

from annotate.formats.format import Done
from annotate.intake import Request, take_in
from annotate.journal import Journal
from annotate.state import current
from collect.ledger import Ledger
from collect.workspace import Workspace

#: format -> (folder, precision in px: half a unit in the last digit of what the files hold, on images of up to 500 px)
FORMATS = {
    "coco_format_v1": ("coco", 1e-9),
    "coco_format_v2": ("coco", 1e-9),
    "cvat_format": ("cvat", 1e-9),
    "imagenet_format": ("imagenet", 1e-9),
    "labelme_format": ("labelme", 1e-9),
    "openimages_format": ("openimages", 500 * 1e-10),
    "pascalvoc_format": ("voc", 1e-9),
    "tfrecord_format": ("tfrecord", 500 * 1e-7),
    "yolo_format": ("yolo", 500 * 1.5e-6),
}


def boxes_of(workspace: Workspace, root: Path, folder: str, form: str) -> dict[str, list[tuple[str, tuple[float, ...]]]]:
    dataset = workspace.new_dataset(folder)
    outcome = take_in(dataset, Request(form, root / "gts" / folder, root / "images"), lambda items, _: iter(items))
    assert outcome.images == 100
    assert outcome.annotations == 273
    assert len(outcome.class_names) == 20
    assert {problem.done for problem in outcome.problems} <= {Done.MENDED, Done.NOTED}
    with Ledger(dataset.ledger) as ledger:
        names = {record.sha256: record.file_name for record in ledger.images()}
    with Journal(dataset.labels) as journal:
        labels = current(journal)
    return {names[sha]: sorted((box.category, box.xywh) for box in entry.present()) for sha, entry in labels.items()}


@pytest.fixture(scope="module")
def truth(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[tuple[str, tuple[float, ...]]]]:
    return boxes_of(Workspace.at(tmp_path_factory.mktemp("truth")), real_data / "voc20-in-nine-formats", "pascalvoc_format", "voc")


@pytest.mark.parametrize("folder", sorted(FORMATS))
def test_all_nine_say_the_same_boxes(folder, truth, real_data, workspace):
    form, precision = FORMATS[folder]
    read = boxes_of(workspace, real_data / "voc20-in-nine-formats", folder, form)
    assert read.keys() == truth.keys()
    for name, boxes in truth.items():
        # rounding may change the order of boxes whose first edges are equal
        unmatched = list(read[name])
        for category, xywh in boxes:
            match = next(
                (b for b in unmatched if b[0] == category and max(abs(p - q) for p, q in zip(b[1], xywh, strict=True)) <= precision), None
            )
            assert match, f"{name}: {category} {xywh} is not among {unmatched}"
            unmatched.remove(match)
        assert not unmatched
