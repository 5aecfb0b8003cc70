"""Pascal VOC's AP on the two sets whose numbers are published (Padilla et al. 2021)."""

from __future__ import annotations

from pathlib import Path

import pytest

from annotate.coco import read_document
from train.judging import inputs
from train.judging.voc import voc_ap


def voc_sample(folder: Path) -> tuple[inputs.Truth, inputs.Detections]:
    """Lines of `name x y w h` and `name score x y w h`, one file an image."""
    names = sorted(path.name for path in (folder / "groundtruths").iterdir())
    document: dict[str, list[dict[str, object]]] = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "person"}]}
    found = []
    for number, name in enumerate(names):
        document["images"].append({"id": number, "file_name": name})
        for line in (folder / "groundtruths" / name).read_text().splitlines():
            box = [float(word) for word in line.split()[1:]]
            document["annotations"].append({"id": 0, "image_id": number, "category_id": 1, "bbox": box})
        for line in (folder / "detections" / name).read_text().splitlines():
            score, *box = (float(word) for word in line.split()[1:])
            found.append({"image_id": number, "category_id": 1, "bbox": box, "score": score})
    truth = inputs.truth(document)
    return truth, inputs.detections(found, truth)


def test_voc_sample(real_data: Path) -> None:
    truth, found = voc_sample(real_data / "evaluation" / "voc-sample")
    assert (len(truth.areas_A), len(found)) == (15, 24)
    result = voc_ap(truth, found, iou_threshold=0.3)
    assert (round(100 * result.mean_every_point, 2), round(100 * result.mean_eleven_point, 2)) == (24.57, 26.84)
    without = voc_ap(truth, found, iou_threshold=0.3, plus_one=False)
    assert round(100 * without.mean_every_point, 2) != 24.57


@pytest.mark.parametrize(("iou_threshold", "every", "eleven"), [(0.5, 89.58, 88.64), (0.75, 50.97, 49.24)])
def test_toy_example(real_data: Path, iou_threshold: float, every: float, eleven: float) -> None:
    folder = real_data / "evaluation" / "toy-example"
    truth = inputs.truth(read_document(folder / "gts_coco_format" / "toy_example_coco.JSON"))
    found = inputs.detections(inputs.read_detections(folder / "dets_coco_format" / "coco_dets.json"), truth)
    result = voc_ap(truth, found, iou_threshold=iou_threshold)
    assert (round(100 * result.mean_every_point, 2), round(100 * result.mean_eleven_point, 2)) == (every, eleven)


def test_a_taken_box_is_not_left_for_the_next_best() -> None:
    """COCO would give the second detection the free box beside; VOC calls it wrong."""
    boxes = [[0, 0, 10, 10], [3, 0, 10, 10]]
    truth = inputs.truth(
        {
            "images": [{"id": 1}],
            "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
            "annotations": [{"id": n, "image_id": 1, "category_id": 1, "bbox": box} for n, box in enumerate(boxes)],
        }
    )
    found = inputs.detections([{"image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 10], "score": s} for s in (0.9, 0.8)], truth)
    result = voc_ap(truth, found, iou_threshold=0.5)
    assert result.every_point == {1: 0.5, 2: None}
    assert voc_ap(truth, inputs.detections([], truth)).mean_every_point == 0.0
