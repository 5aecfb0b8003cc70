"""Faces by OpenCV, classes by new layers: windows, merging, looks, losses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from annotate.boxes import iou_matrix
from annotate.coco import Category
from collect.errors import CorruptError, MissingServiceError
from train.data.cache import decode
from train.detectors.detector import Batch
from train.detectors.face import FaceDetector, find_folder, merge, windows
from train.detectors.two_phase import FACE_SURE, FEATURES, MARGINS, TwoPhase, _away, _moved, two_phase
from train.fitting.checkpoint import fill

CATEGORIES = (Category(1, "mask"), Category(2, "nomask"))


@pytest.fixture
def faces(real_data, monkeypatch) -> FaceDetector:
    monkeypatch.setenv("BOXWRIGHT_FACE_DETECTOR", str(real_data / "face-detector"))
    return FaceDetector(find_folder())


def test_faces_large_and_small(faces, real_data):
    """A crop that a face fills (opencv/opencv#15912: one raw pass fails there) and small faces in a photo."""
    family = decode(real_data / "face-photos" / "example_05.PNG")
    boxes, scores = faces.detect(family, 0.9)
    assert len(boxes) == 4
    x, y, w, h = boxes[scores.argmax()].astype(int)
    close = np.ascontiguousarray(family[max(y, 0) : y + h, max(x, 0) : x + w])
    box, _ = faces.detect(close, 0.5)
    assert len(box) == 1
    assert iou_matrix(box, np.array([[0.0, 0.0, w, h]]))[0, 0] > 0.6
    street = decode(real_data / "face-photos" / "example_09.png")
    whole_only = FaceDetector(faces.folder, min_tile_px=10_000)
    assert len(faces.detect(street, 0.5)[0]) > len(whole_only.detect(street, 0.5)[0])


def test_boxes_lie_inside(faces, real_data):
    for path in sorted((real_data / "face-photos").iterdir())[:3]:
        image = decode(path)
        boxes, scores = faces.detect(image, 0.3)
        assert (boxes[:, :2] >= 0).all()
        assert (boxes[:, :2] + boxes[:, 2:] <= [image.shape[1] + 1e-6, image.shape[0] + 1e-6]).all()
        assert (np.diff(scores) <= 0).all()


def test_windows_cover_the_picture():
    for size in ((640, 480), (300, 900), (250, 250)):
        tiles = [w for w in windows(size, 100) if w.inner]
        seen = np.zeros((size[1], size[0]), dtype=bool)
        for tile in tiles:
            seen[max(0, int(tile.y)) : int(np.ceil(tile.y + tile.side)), max(0, int(tile.x)) : int(np.ceil(tile.x + tile.side))] = True
        assert seen.all() or not tiles


def test_a_box_within_a_better_one_is_the_same_face():
    boxes = np.array([[0, 0, 10, 10], [2, 2, 6, 6], [20, 20, 30, 30.0]])
    assert merge(boxes, np.array([0.9, 0.8, 0.7]), 0.35) == [0, 2]


def test_absent_files_say_where_they_are_had(tmp_path, monkeypatch):
    monkeypatch.delenv("BOXWRIGHT_FACE_DETECTOR", raising=False)
    monkeypatch.setenv("BOXWRIGHT_CACHE", str(tmp_path))
    with pytest.raises(MissingServiceError, match="opencv_3rdparty"):
        two_phase(CATEGORIES, 0, "none")


def test_loss_and_prediction(faces, real_data):
    torch.manual_seed(0)
    detector = TwoPhase(CATEGORIES, 320, faces)
    image = decode(real_data / "face-photos" / "example_10.png")
    tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
    detector.train()
    assert not detector.features.training
    batch = Batch(tensor, [torch.tensor([[346.0, 56.0, 408.0, 134.0]])], [torch.tensor([1])])
    loss = detector.loss(batch)["class"]
    loss.backward()
    assert detector.output.weight.grad is not None and detector.features[0][0].weight.grad is None
    empty = detector.loss(Batch(tensor, [torch.zeros(0, 4)], [torch.zeros(0, dtype=torch.int64)]))["class"]
    empty.backward()
    assert empty.item() == 0
    detector.eval()
    found = detector.predict(tensor)[0]
    assert set(found.labels_N.tolist()) == {0, 1}
    assert (found.scores_N.diff() <= 0).all()
    assert iou_matrix(np.array([[346.0, 56.0, 62.0, 78.0]]), _xywh(found.boxes_xyxy_N4[:1]))[0, 0] > 0.6


def test_boxes_are_drawn_as_the_labels_draw_them(faces, real_data):
    """Labels that reach from the hair to the collar: after one picture the detector's boxes do so, too."""
    torch.manual_seed(0)
    detector = TwoPhase(CATEGORIES, 320, faces).eval()
    tensor = torch.from_numpy(np.array(decode(real_data / "face-photos" / "example_05.PNG"))).permute(2, 0, 1)[None]
    found, _ = detector._faces(tensor[0], FACE_SURE)
    labelled = _moved(found, torch.tensor([0.0, 0.1, 0.05, 0.3]))
    detector.learn_offset(tensor, [labelled])
    assert detector.offset_seen.tolist() == [len(found), 1]
    after = detector.predict(tensor)[0].boxes_xyxy_N4.unique(dim=0)
    away = (after[:, None] - labelled[None]).abs().amax(2).amin(0)
    assert (away < 0.5).all(), "each labelled box is among those drawn"
    detector.learn_offset(tensor, [torch.zeros(0, 4)])
    assert detector.offset_seen.tolist() == [len(found), 1], "a picture without boxes says nothing"


@given(st.lists(st.floats(-0.5, 0.5), min_size=4, max_size=4))
def test_moving_is_the_inverse_of_the_difference(offset):
    boxes = torch.tensor([[10.0, 20.0, 60.0, 90.0], [5.0, 5.0, 25.0, 30.0]], dtype=torch.float64)
    moved = _moved(boxes, torch.tensor(offset, dtype=torch.float64))
    assert torch.allclose(_away(moved, boxes), torch.tensor(offset, dtype=torch.float64).expand(2, 4), atol=1e-9)


def _xywh(boxes: torch.Tensor) -> np.ndarray:
    array = boxes.double().numpy()
    return np.concatenate([array[:, :2], array[:, 2:] - array[:, :2]], axis=1)


def test_two_looks__end_where_the_picture_does(faces):
    """Tight and wide; at the edge both are the picture's own pixels, as a crop's are, and never black ones."""
    detector = TwoPhase(CATEGORIES, 320, faces).eval()
    across = torch.arange(200.0).expand(1, 3, 200, 200) + 20
    looks = detector.looks(across, [torch.tensor([[80.0, 80.0, 120.0, 120.0], [0.0, 0.0, 200.0, 200.0]])])
    assert looks.shape == (2, 2, 3, 128, 128)
    shown = [(margin, float(look.max() - look.min())) for margin, look in zip(MARGINS, looks[0], strict=True)]
    for margin, span in shown:
        assert span == pytest.approx(40 * (1 + 2 * margin), abs=1.5)
    assert looks[1].min() >= 20 and torch.allclose(looks[1, 0], looks[1, 1])
    assert detector.embed(looks).shape == (2, FEATURES)
    assert detector.embed(looks[:0]).shape == (0, FEATURES)


def test_weights_of_one_look_are_refused(faces, tmp_path):
    """A run of an earlier version; `--weights` takes what fits of it, as of any other file."""
    detector = TwoPhase(CATEGORIES, 320, faces)
    state = detector.state_dict()
    state["hidden.1.weight"] = state["hidden.1.weight"][:, :1280]
    with pytest.raises(CorruptError, match=r"not those of a two-phase with its categories.*train it anew"):
        fill(detector, state, "v001-two-phase-1", "two-phase")
    torch.save(state, tmp_path / "old.pt")
    assert "1 tensors new" in two_phase(CATEGORIES, 320, str(tmp_path / "old.pt")).weights_origin


@pytest.mark.slow
def test_trained_like_any_other_detector(faces, make_dataset, labelled_events, real_data, workspace, monkeypatch):
    """`boxwright train NAME --detector two-phase`: one epoch on real photos, a checkpoint, metrics on val and test."""
    from annotate.journal import Journal
    from annotate.release import make_release
    from collect import definition
    from train.detectors.table import DETECTORS
    from train.fitting.run import train_run

    monkeypatch.setitem(DETECTORS, "two-phase", "train.detectors.two_phase:two_phase")
    photos = [path for path in sorted((real_data / "face-photos").iterdir()) if path.stem != "example_06"]
    dataset, records = make_dataset("faces", ["mask", "nomask"], photos)
    text = dataset.definition.read_text().replace("train = 0.7", "train = 0.5").replace("val = 0.15", "val = 0.25")
    dataset.definition.write_text(text.replace("test = 0.15", "test = 0.25"))
    with Journal(dataset.labels) as journal:
        for place, record in enumerate(records):
            boxes, _ = faces.detect(decode(dataset.image_path(record.sha256, record.extension)), 0.6)
            journal.append(labelled_events(record, [(("mask", "nomask")[place % 2], tuple(box)) for box in boxes.tolist()]))
    make_release(dataset, definition.load(dataset))
    options = {"detector": "two-phase", "epochs": 1, "image_size": 320, "weights": "none", "device": "cpu", "batch_size": 4}
    result = train_run(workspace, "faces", options)
    assert 0 <= result["metrics"]["test"]["AP50"] <= 1
    assert result["metrics"]["test"]["AR100"] > 0.5, "the faces are found where the same detector put them"
