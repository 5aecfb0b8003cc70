"""Proposals: into the journal as undecided, replaced when proposed again, never over what a person has said."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import boxwright
from annotate.boxes import iou_matrix
from annotate.journal import Journal, Kind, Status, box_event, verdict_event
from annotate.state import ImageLabels, current
from collect import definition as definitions
from collect.errors import MissingServiceError, UsageError
from collect.sources.open_images import SUBSETS
from tests.collect.collecting import jpeg
from train.loop.propose import SAME_CLASS_IOU, Found, Request, Tally, changes, merge_found, open_proposer, propose, undecided
from train.loop.proposers import Tiled, tiles
from train.serving.suppression import CLASS_OVERLAP

PERSON = "reviewer:ann"


@dataclass
class Fixed:
    """A model that always sees the same boxes; everything around it is real."""

    boxes: list[Found]
    name: str = "fixed"
    weights_sha256: str = "ab" * 32
    threshold: float = 0.25
    seen: list[tuple[int, int]] = field(default_factory=list)

    def propose(self, image_HW3, record):
        self.seen.append(image_HW3.shape[:2])
        return list(self.boxes)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        """Nothing."""


def run_all(proposer, dataset, records) -> Tally:
    with Journal(dataset.labels) as journal:
        return [Tally(), *propose(proposer, dataset, undecided(records, journal), journal)][-1]


def labels_of(dataset, sha256: str) -> ImageLabels:
    with Journal(dataset.labels) as journal:
        return current(journal)[sha256]


A = Found("cat", (2.0, 2.0, 20.0, 20.0), 0.9, "a cat")
B = Found("dog", (30.0, 10.0, 20.0, 30.0), 0.6)


def test_proposals_carry_model_score_and_provenance(make_dataset, noise):
    dataset, records = make_dataset("pets", ["cat", "dog"], [noise(1)])
    tally = run_all(Fixed([A, B]), dataset, records)
    assert (tally.images, tally.proposals, tally.replaced, dict(tally.by_class)) == (1, 2, 0, {"cat": 1, "dog": 1})
    first, second = labels_of(dataset, records[0].sha256).proposed()
    assert (first.category, first.xywh, first.score, first.proposed_by) == ("cat", A.xywh, 0.9, "model:fixed")
    assert first.details == {"prompt": "a cat", "threshold": 0.25, "weights_sha256": "ab" * 32}
    assert second.details == {"threshold": 0.25, "weights_sha256": "ab" * 32}


def test_boxes_that_a_source_brought_become_proposals(workspace, tmp_path, capsys):
    """Open Images' own lists in a folder, the picture on a real server: `collect`, then `propose --from sources`."""
    lists, web = tmp_path / "lists", tmp_path / "web"
    lists.mkdir()
    web.mkdir()
    (web / "a.jpg").write_bytes(jpeg(1, (160, 120)))
    handler = partial(Quiet, directory=str(web))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/a.jpg"
        (lists / "class-descriptions-boxable.csv").write_text("/m/1,Cat\n")
        heading = "ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf\n"
        for subset, (boxes, images) in SUBSETS.items():
            rows = "i,/m/1,0.25,0.5,0.5,1,0\n" if subset == "validation" else ""
            (lists / Path(boxes).name).write_text(heading + rows)
            row = f"i,{url},https://creativecommons.org/licenses/by/2.0/,me\n" if rows else ""
            (lists / Path(images).name).write_text("ImageID,OriginalURL,License,Author\n" + row)
        dataset = workspace.new_dataset("pets")
        text = definitions.template("pets", [(1, "kitty")]).replace("[collect]", f'[collect]\nbase_urls = {{ open-images = "{lists}" }}')
        definitions.create(dataset, text.replace('queries = ["kitty"]', 'queries = ["Cat"]'))
        root = ["--root", str(workspace.root)]
        assert boxwright.main(["propose", "pets", "--from", "sources", *root]) == 2, "no images yet"
        assert boxwright.main(["collect", "pets", "--source", "open-images", "--allow-address", "127.0.0.1", "--impolite", *root]) == 0
        server.shutdown()
    capsys.readouterr()
    assert boxwright.main(["propose", "pets", "--from", "sources", "--json", *root]) == 0
    assert json.loads(capsys.readouterr().out)["classes"] == {"kitty": 1}
    with Journal(dataset.labels) as journal:
        (entry,) = current(journal).values()
    (box,) = entry.proposed()
    assert (box.proposed_by, box.xywh) == ("model:sources", (40, 60, 40, 60))


def test_again__same_boxes_write_nothing(make_dataset, noise):
    dataset, records = make_dataset("pets", ["cat", "dog"], [noise(1)])
    run_all(Fixed([A, B]), dataset, records)
    with Journal(dataset.labels) as journal:
        before = journal.head()
    tally = run_all(Fixed([B, A]), dataset, records)
    with Journal(dataset.labels) as journal:
        assert journal.head() == before
    assert (tally.proposals, tally.replaced) == (0, 0)


def test_again__replaces_only_its_own_undecided(make_dataset, noise):
    dataset, records = make_dataset("pets", ["cat", "dog"], [noise(1)])
    run_all(Fixed([A, B]), dataset, records)
    other = Found("dog", (1.0, 30.0, 12.0, 12.0), 0.5)
    run_all(Fixed([other], name="another"), dataset, records)
    tally = run_all(Fixed([Found("cat", (40.0, 2.0, 10.0, 10.0), 0.7)]), dataset, records)
    assert (tally.proposals, tally.replaced) == (1, 2)
    now = {(box.proposed_by, box.xywh) for box in labels_of(dataset, records[0].sha256).proposed()}
    assert now == {("model:another", other.xywh), ("model:fixed", (40.0, 2.0, 10.0, 10.0))}


@pytest.mark.parametrize("verdict", ["accepted", "rejected"])
def test_decided_images_get_none(make_dataset, noise, verdict):
    dataset, records = make_dataset("pets", ["cat"], [noise(1), noise(2)])
    with Journal(dataset.labels) as journal:
        journal.append([verdict_event(PERSON, records[0].sha256, verdict)])
    model = Fixed([A])
    assert run_all(model, dataset, records).images == 1
    with Journal(dataset.labels) as journal:
        assert list(changes(journal, model, records[0].sha256, [A])) == []


def test_what_a_person_said_stays_and_is_not_proposed_again(make_dataset, noise):
    dataset, records = make_dataset("pets", ["cat", "dog"], [noise(1)])
    image = records[0].sha256
    run_all(Fixed([A, B]), dataset, records)
    cat, dog = labels_of(dataset, image).proposed()
    with Journal(dataset.labels) as journal:
        journal.append(
            [
                box_event(Kind.EDIT, PERSON, image, cat.id, Status.PRESENT, "cat", (3.0, 3.0, 20.0, 20.0)),
                box_event(Kind.DELETE, PERSON, image, dog.id, Status.GONE, "dog", dog.xywh),
            ]
        )
    tally = run_all(Fixed([A, B]), dataset, records)
    assert (tally.proposals, tally.replaced) == (0, 0)
    state = labels_of(dataset, image)
    assert [(box.status, box.xywh) for box in state.boxes.values()] == [("present", (3.0, 3.0, 20.0, 20.0)), ("gone", B.xywh)]


def test_a_word_spoken_while_proposing_wins(make_dataset, noise):
    """A person accepts a box after the model looked and before its events are written: both are in one transaction."""
    dataset, records = make_dataset("pets", ["cat"], [noise(1)])
    image = records[0].sha256
    run_all(Fixed([A]), dataset, records)
    box = labels_of(dataset, image).proposed()[0]

    class Slow(Fixed):
        def propose(self, image_HW3, record):
            with Journal(dataset.labels) as other_process:
                other_process.append([box_event(Kind.ACCEPT, PERSON, image, box.id, Status.PRESENT, "cat", box.xywh)])
            return [Found("cat", (40.0, 20.0, 10.0, 10.0), 0.8)]

    tally = run_all(Slow([]), dataset, records)
    assert (tally.proposals, tally.replaced) == (1, 0)
    assert [b.status for b in labels_of(dataset, image).boxes.values()] == ["present", "proposed"]


def test_unreadable_picture_is_a_row_not_an_abort(make_dataset, noise):
    dataset, records = make_dataset("pets", ["cat"], [noise(1), b"not a picture", noise(2)])
    tally = run_all(Fixed([A]), dataset, records)
    assert tally.images == 3
    assert tally.proposals == 2
    assert list(tally.failures) == [records[1].sha256]


boxes = st.builds(
    Found,
    st.sampled_from(["cat", "dog"]),
    st.tuples(*[st.floats(-50, 150)] * 2, *[st.floats(0.1, 120)] * 2),
    st.floats(0, 1),
)


@given(st.lists(boxes, max_size=12))
def test_merged_boxes_lie_inside_and_apart(found):
    merged = merge_found(found, (100, 80))
    assert [m.score for m in merged] == sorted((m.score for m in merged), reverse=True)
    xywh = np.array([m.xywh for m in merged]).reshape(-1, 4)
    assert (xywh[:, :2] >= 0).all() and (xywh[:, :2] + xywh[:, 2:] <= [100 + 1e-9, 80 + 1e-9]).all()
    overlap = iou_matrix(xywh, xywh)
    np.fill_diagonal(overlap, 0)
    names = np.array([m.category for m in merged])
    same = names[:, None] == names[None, :]
    assert not (overlap[same] > SAME_CLASS_IOU).any()
    assert not (overlap > CLASS_OVERLAP).any()


def test_synonyms_merge_into_one():
    found = [
        Found("car", (10, 10, 40, 30), 0.6, "automobile"),
        Found("car", (11, 10, 40, 30), 0.8, "car"),
        Found("bus", (10, 10, 41, 30), 0.7),
    ]
    assert [(m.category, m.prompt) for m in merge_found(found, (100, 80))] == [("car", "car")]


def test_one_object_one_proposal__on_real_detections(real_data):
    """The COCO API's own detections on 100 images: objects with boxes of two classes on them, and objects found."""
    folder = real_data / "evaluation" / "coco-fake100"
    truth, results = (json.loads((folder / name).read_bytes()) for name in ("ground_truth.json", "detections_bbox.json"))
    told = {}
    for limit in (1.0, CLASS_OVERLAP):
        twice = found = 0
        for image in truth["images"]:
            seen = [Found(str(r["category_id"]), tuple(r["bbox"]), r["score"]) for r in results if r["image_id"] == image["id"]]
            kept = merge_found(seen, (image["width"], image["height"]), limit)
            for true in (a for a in truth["annotations"] if a["image_id"] == image["id"]):
                over = iou_matrix(np.array([true["bbox"]]), np.array([k.xywh for k in kept]).reshape(-1, 4))[0] >= 0.5
                classes = {k.category for k, there in zip(kept, over, strict=True) if there}
                twice += len(classes) > 1
                found += str(true["category_id"]) in classes
        told[limit] = twice, found
    assert told == {1.0: (24, 650), CLASS_OVERLAP: (18, 647)}


def test_tiles_find_what_one_look_misses():
    image = np.zeros((800, 800, 3), np.uint8)

    class NearSighted(Fixed):
        """Sees the box at (500, 520) only in views of at most 400 px, and always something at the left edge of its view."""

        def propose(self, image_HW3, record):
            if image_HW3.shape[0] > 400:
                return []
            bright = np.argwhere(image_HW3[:, :, 0] > 0)
            edge = [Found("cat", (0.0, 100.0, 50.0, 50.0), 0.9)]
            if not len(bright):
                return edge
            (y1, x1), (y2, x2) = bright.min(axis=0), bright.max(axis=0)
            return [*edge, Found("cat", (float(x1), float(y1), float(x2 - x1 + 1), float(y2 - y1 + 1)), 0.8)]

    image[520:550, 500:540] = 255
    found = merge_found(Tiled(NearSighted([])).propose(image, None), (800, 800))
    places = {entry.xywh for entry in found}
    assert (500.0, 520.0, 40.0, 30.0) in places
    assert all(x == 0 or (x, y) == (500.0, 520.0) for x, y, _, _ in places), "a box cut by a tile's inner edge is no box"
    assert sum(1 for _ in tiles(image, 500)) == 0


def test_unknown_proposer_and_absent_weights(make_dataset, workspace, monkeypatch):
    monkeypatch.delenv("BOXWRIGHT_FACE_DETECTOR", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("BOXWRIGHT_CACHE", str(workspace.root / "cache"))
    dataset, _ = make_dataset("pets", ["cat"], [])
    from collect import definition

    request = Request(workspace, dataset, definition.load(dataset))
    with pytest.raises(UsageError, match="did you mean 'opencv-face'"):
        open_proposer("opencv-fase", request)
    with pytest.raises(UsageError, match="behind a colon"):
        open_proposer("run", request)
    with pytest.raises(MissingServiceError, match="BOXWRIGHT_FACE_DETECTOR"):
        open_proposer("opencv-face", request)


def test_faces_from_the_command_line(make_dataset, real_data, workspace, capsys):
    photos = [real_data / "face-photos" / "example_05.PNG", real_data / "face-photos" / "example_10.png"]
    dataset, records = make_dataset("faces", ["mask", "face"], photos)
    words = [
        "propose",
        "faces",
        "--from",
        "opencv-face",
        "--weights",
        str(real_data / "face-detector"),
        "--root",
        str(workspace.root),
        "--json",
    ]
    assert boxwright.main(words) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["images"] == 2
    assert 5 <= result["proposals"] <= 6, "four people and a dragon slayer"
    box = labels_of(dataset, records[1].sha256).proposed()[0]
    assert box.category == "face"
    assert iou_matrix(np.array([box.xywh]), np.array([[346.0, 56.0, 62.0, 78.0]]))[0, 0] > 0.6
    assert box.details["weights_sha256"]
    assert boxwright.main([*words[:-1], "--dry-run"]) == 0
    assert boxwright.main(["propose", "faces", "--root", str(workspace.root)]) == 2
