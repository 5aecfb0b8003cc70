"""A detector in use: pictures of all kinds in, drawings out; ONNX only where it finds the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from torch import nn

from annotate.boxes import iou_matrix
from annotate.coco import Category
from annotate.journal import Journal
from annotate.state import current
from boxwright import main
from collect.errors import MissingServiceError, NotFoundError, RefusedError, StorageError, UsageError
from collect.workspace import Dataset, Workspace
from train.commands.detect import _least_score, _Work
from train.commands.onnx import _readable
from train.detectors.detector import Detections, open_detector
from train.fitting.run import train_run
from train.serving import onnx_export
from train.serving.draw import draw
from train.serving.onnx_export import export, letterboxed
from train.serving.pictures import Frame, Unreadable, VideoWriter, frames
from train.serving.suppression import across_classes

MakeRelease = Callable[..., Dataset]
CATEGORIES = (Category(1, "cat"), Category(5, "dog"))


def pictures(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [cv2.GaussianBlur(rng.integers(0, 255, (90, 120, 3), dtype=np.uint8), (9, 9), 0) for _ in range(count)]


def test_least_score__is_where_the_runs_f1_was_best_unless_given(tmp_path: Path) -> None:
    assert _least_score(tmp_path, None) == 0.3, "judged on nothing"
    (tmp_path / "metrics.json").write_text('{"threshold": 0.57}')
    assert (_least_score(tmp_path, None), _least_score(tmp_path, 0.0)) == (0.57, 0.0)
    (tmp_path / "metrics.json").write_text('{"threshold": null}')
    assert _least_score(tmp_path, None) == 0.3, "nothing found on any split"


def test_export__finds_the_same_boxes_in_onnxruntime(tmp_path: Path) -> None:
    torch.manual_seed(0)
    detector = open_detector("fcos_mobilenet_v2", CATEGORIES, 96, "auto")
    done = export(detector, tmp_path / "model.onnx", pictures(2))
    assert done.path.is_file()
    assert done.boxes > 0
    assert done.worst_iou >= 0.99
    assert done.worst_score <= 1e-3


@pytest.mark.parametrize("name", ["fcos_mobilenet_v2", "yolox_nano"])
def test_export__without_suppression_is_what_opencv_reads(name: str, tmp_path: Path) -> None:
    """OpenCV's own suppression on OpenCV's own answer gives the boxes of `predict`."""
    torch.manual_seed(0)
    detector = open_detector(name, CATEGORIES, 96, "none").eval()
    state = detector.state_dict()
    for key in state:
        if key == "class_out.bias" or (key.startswith(("head.obj_preds", "head.cls_preds")) and key.endswith("bias")):
            state[key] += 5.0  # as sure as a trained one, so that there are boxes to compare
    done = export(detector, tmp_path / "places.onnx", pictures(2), suppressed=False)
    assert done.boxes > 100
    assert done.opencv == "reads it and finds the same boxes"
    network = cv2.dnn.readNetFromONNX(str(done.path))
    example = letterboxed(pictures(1)[0], 96)
    network.setInput(example)
    boxes, scores = network.forward(["boxes", "scores"])
    place, label = np.nonzero(scores > 0.02)
    xywh = np.concatenate([boxes[place, :2], boxes[place, 2:] - boxes[place, :2]], 1)
    kept = cv2.dnn.NMSBoxesBatched(xywh.tolist(), scores[place, label].tolist(), label.tolist(), 0.02, detector.nms_iou)
    theirs = sorted((float(scores[place[row], label[row]]) for row in kept), reverse=True)[:20]
    ours = detector.predict(torch.from_numpy(example))[0].scores_N[:20].tolist()
    assert ours == pytest.approx(theirs, abs=1e-4)


def test_export__refuses_what_it_cannot_compare(tmp_path: Path) -> None:
    detector = open_detector("yolox_nano", CATEGORIES, 96, "none")
    with pytest.raises(RefusedError, match="finds no box at all"):
        export(detector, tmp_path / "model.onnx", pictures(1))
    assert list(tmp_path.iterdir()) == []


def test_onnx__an_image_that_cannot_be_read_is_named_and_left_out(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "good.png"), pictures(1)[0])
    (tmp_path / "bad.png").write_bytes(b"no picture")
    told: list[str] = []
    console = SimpleNamespace(say=told.append)
    read = list(_readable(tmp_path, ["bad.png", "good.png", "gone.png"], console))  # type: ignore[arg-type]
    assert len(read) == 1
    assert ["bad.png" in told[0], "gone.png" in told[1]] == [True, True]


def test_export__where_nothing_can_be_written(tmp_path: Path) -> None:
    """No failure of an exporter, and said at once."""
    (tmp_path / "file").write_text("no folder")
    detector = open_detector("fcos_mobilenet_v2", CATEGORIES, 96, "auto")
    with pytest.raises(StorageError):
        export(detector, tmp_path / "file" / "model.onnx", pictures(1))


def test_export__without_suppression_of_what_is_not_dense(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no form without suppression"):
        export(open_detector("fasterrcnn_mobilenet_v2", CATEGORIES, 96, "none"), tmp_path / "x.onnx", pictures(1), suppressed=False)


def test_export__of_what_cannot_be_traced_leaves_nothing(tmp_path: Path) -> None:
    class Dice(nn.Module):
        def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            corner = torch.rand(5, 2) * 40 + image.mean() * 0
            return torch.cat([corner, corner + 20], 1), 0.5 + torch.rand(5) / 2, torch.zeros(5, dtype=torch.int64)

    detector = open_detector("fcos_mobilenet_v2", CATEGORIES, 96, "none")
    detector.export_wrapper = Dice  # type: ignore[method-assign]
    with pytest.raises(RefusedError, match="no ONNX file was written"):
        export(detector, tmp_path / "model.onnx", pictures(1))
    assert list(tmp_path.iterdir()) == []


def test_frames__of_folder_file_and_video(tmp_path: Path) -> None:
    (tmp_path / "in" / "sub").mkdir(parents=True)
    for place, picture in enumerate(pictures(2)):
        cv2.imwrite(str(tmp_path / "in" / ("sub" if place else "") / f"{place}.jpg"), picture)
    (tmp_path / "in" / "broken.png").write_bytes(b"no picture")
    writer = VideoWriter("camera", tmp_path / "clip.mp4")
    for picture in pictures(4):
        writer.write(picture)
    writer.close()
    seen = list(frames([str(tmp_path / "in"), str(writer.path)]))
    (tmp_path / "in" / "cut.avi").write_bytes(b"no video")
    everything = list(frames([str(tmp_path)], without=tmp_path / "in" / "sub"))
    assert [Path(item.source).name for item in everything if isinstance(item, Unreadable)] == ["broken.png", "cut.avi"]
    assert [item.place for item in everything if isinstance(item, Frame)] == [0, 1, 2, 3, -1], "a folder's videos too"
    assert [item.name for item in seen if isinstance(item, Frame) and item.place < 0] == ["0.jpg", "sub/1.jpg"]
    assert [Path(item.source).name for item in seen if isinstance(item, Unreadable)] == ["broken.png"]
    assert [item.place for item in seen if isinstance(item, Frame) and item.place >= 0] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "word, error, says",
    [
        ("nowhere.jpg", NotFoundError, "there is no nowhere.jpg"),
        ("pyproject.toml", UsageError, "neither a picture"),
        ("camera:9", MissingServiceError, "camera:9"),
        ("camera:front", UsageError, "camera:N with its number"),
    ],
)
def test_frames__of_what_is_none(word: str, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        list(frames([word], 0.1))


def test_frames__of_a_folder_without_pictures(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("none")
    with pytest.raises(NotFoundError, match="no picture and no video in"):
        list(frames([str(tmp_path)]))


def test_detect__equal_names_do_not_replace_each_other(tmp_path: Path) -> None:
    work = _Work(SimpleNamespace(categories=()), tmp_path, 0.3, 0.7, dry_run=False)  # type: ignore[arg-type]
    picture = np.zeros((8, 8, 3), np.uint8)
    for name in ("a.png", "a.jpg", "sub/a.jpg"):
        work._write(Frame(name, name, picture), picture)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.jpg")) == ["a-2.jpg", "a.jpg", "sub/a.jpg"]
    for source in ("one/clip.avi", "one/clip.avi", "other/clip.avi"):
        work._write(Frame(source, "clip-000000.jpg", picture, 0), picture)
    work.close()
    assert [path.name for path in sorted(tmp_path.glob("*.mp4"))] == ["clip.detected-2.mp4", "clip.detected.mp4"]


def test_across_classes__one_object_one_box_unless_all_are_wanted() -> None:
    boxes = np.array([[10.0, 10, 40, 40], [11, 10, 40, 40], [11, 11, 40, 40], [60, 10, 20, 20], [40, 10, 40, 40]])
    found = Detections(boxes, np.array([0.5, 0.9, 0.6, 0.4, 0.3]), np.array([0, 1, 1, 0, 0]))
    kept = across_classes(found)
    assert kept.scores_N.tolist() == [0.9, 0.6, 0.4, 0.3], "the less sure one of another class goes; its own class is not our business"
    assert len(across_classes(found, 1.0)) == 5
    assert len(across_classes(Detections.none())) == 0


def test_detect__writes_what_other_tools_read(make_release: MakeRelease, workspace: Workspace, tmp_path: Path, one_thread: None) -> None:
    """Pictures and a video, by the command; pycocotools and our own importer read the boxes back."""
    make_release()
    small = {"image_size": 64, "weights": "none", "precision": "fp32", "device": "cpu", "epochs": 1}
    run = train_run(workspace, "shapes", small)["run"]
    folder = tmp_path / "in" / "sub"
    folder.mkdir(parents=True)
    for place, picture in enumerate(pictures(2)):
        cv2.imwrite(str(folder / f"{place}.jpg"), picture)
    (folder / "broken.png").write_bytes(b"no picture")
    video = VideoWriter("camera", tmp_path / "clip.mp4")
    for picture in pictures(3):
        video.write(picture)
    video.close()
    out = tmp_path / "out"
    words = ["detect", f"shapes/{run}", str(folder.parent), str(video.path), "--out", str(out), "--root", str(workspace.root)]
    assert main([*words, "--threshold", "0"]) == 0
    told = COCO(str(out / "detections.json"))
    images = told.loadImgs(told.getImgIds())
    assert [image["file_name"] for image in images[:2]] == ["sub/0.jpg", "sub/1.jpg"]
    assert [image.get("frame") for image in images] == [None, None, 0, 1, 2]
    assert {"sub/0.jpg", "sub/1.jpg", "clip.detected.mp4"} <= {str(path.relative_to(out)) for path in out.rglob("*.*")}
    boxes = told.loadAnns(told.getAnnIds())
    assert min(box["id"] for box in boxes) == 1 and {box["category_id"] for box in boxes} == {3, 9}
    assert [entry["source"] for entry in json.loads((out / "detections.json").read_text())["unreadable"]] == [str(folder / "broken.png")]
    pair = lambda image: [told.loadAnns(told.getAnnIds(image, catIds=[kind])) for kind in (3, 9)]  # noqa: E731
    for image in told.getImgIds():
        discs, squares = ([box["bbox"] for box in kind] for kind in pair(image))
        if discs and squares:
            assert iou_matrix(np.array(discs), np.array(squares)).max() <= 0.7
    assert main([*words, "--threshold", "0", "--class-overlap", "1"]) == 0
    assert len(COCO(str(out / "detections.json")).getAnnIds()) > len(boxes), "an object that may be either is there twice"
    again = ["import", "again", str(out / "detections.json"), "--images", str(folder.parent), "--format", "coco", "--unreviewed"]
    assert main([*again, "--skip-bad", "--root", str(workspace.root)]) == 0
    assert main([*words, "--class-overlap", "7"]) == 2
    _proposes_one_box_an_object(workspace, f"run:shapes/{run}", folder)


def _proposes_one_box_an_object(workspace: Workspace, source: str, folder: Path) -> None:
    """`propose` is as `detect`: of boxes of different classes over each other one, unless all are wanted."""
    root = ["--root", str(workspace.root)]
    assert main(["init", "fresh", "--class", "disc", "--class", "square", *root]) == 0
    assert main(["collect", "fresh", "--source", f"folder:{folder}", "--license", "CC0-1.0", *root]) == 0
    most = []
    for overlap in ("1", "0.7"):
        assert main(["propose", "fresh", "--from", source, "--threshold", "0", "--class-overlap", overlap, *root]) == 0
        with Journal(workspace.dataset("fresh").labels) as journal:
            proposed = [entry.proposed() for entry in current(journal).values()]
        kinds = [[np.array([box.xywh for box in boxes if box.category == kind]) for kind in ("disc", "square")] for boxes in proposed]
        most.append(max(iou_matrix(discs, squares).max(initial=0) for discs, squares in kinds))
    assert most[0] > 0.7 >= most[1]
    assert main(["propose", "fresh", "--from", source, "--class-overlap", "7", *root]) == 2


def test_draw__marks_the_box_and_leaves_the_picture(tmp_path: Path) -> None:
    (picture,) = pictures(1)
    before = picture.copy()
    drawn = draw(picture, Detections(np.array([[10.0, 20.0, 40.0, 30.0]]), np.array([0.9]), np.array([1])), CATEGORIES)
    assert (picture == before).all()
    changed = np.argwhere((drawn != before).any(axis=2))
    assert changed[:, 0].max() <= 52
    assert (drawn[50, 10:50] != before[50, 10:50]).any()


@pytest.mark.parametrize("name", ["rfcn_mobilenet_v2", "fast_rcnn_mobilenet_v2"])
def test_export__says_which_detectors_cannot_leave(name: str, tmp_path: Path) -> None:
    detector = open_detector(name, [Category(1, "a")], 128, "none")
    with pytest.raises(UsageError, match="cannot be"):
        export(detector, tmp_path / "model.onnx", [np.zeros((64, 64, 3), np.uint8)])


def test_export__tied_scores_are_named_as_the_reason() -> None:
    boxes = np.array([[0, 0, 10, 10], [40, 40, 60, 60], [80, 0, 90, 20]], np.float32)
    even = np.array([0.25, 0.25, 0.25], np.float32)
    labels = np.zeros(3, np.int64)
    example = np.zeros((1, 3, 8, 8), np.float32)
    moved = [boxes + 30, even, labels]
    with pytest.raises(onnx_export._Mismatch, match="train it longer"):
        onnx_export._compared(lambda _: moved, [example], [[boxes, even, labels]])
    clear = np.array([0.9, 0.6, 0.3], np.float32)
    with pytest.raises(onnx_export._Mismatch, match="has no equal one"):
        onnx_export._compared(lambda _: [boxes + 30, clear, labels], [example], [[boxes, clear, labels]])
