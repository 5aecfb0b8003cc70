"""Order, shares, reasons and near-duplicate groups."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from dataclasses import replace

import pytest

from annotate.journal import Journal, Kind, Status, Verdict, box_event, new_box_id, verdict_event
from annotate.review import queue, verdicts
from annotate.review.session import opinions_path
from annotate.review.verdicts import Desk, Shown
from annotate.state import current
from collect import definition as definitions
from collect.definition import Definition
from collect.errors import CorruptError
from collect.ledger import Ledger
from collect.records import ImageRecord, Licence, Reason, State
from collect.workspace import Dataset, Workspace

NAMES = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(12)]


def record(image: str, phash: str = "") -> ImageRecord:
    return ImageRecord(
        image, "jpg", 200, 100, 1, phash, 9, State.KEPT, Reason.NONE, Licence(), "folder", "", "", "", "", "", "2026"
    )  # fmt: skip


def setup(workspace: Workspace, extra: str = "") -> tuple[Dataset, Definition]:
    dataset = workspace.new_dataset("beach")
    text = definitions.template("beach", [(1, "gull"), (2, "crab")]).replace("[annotate]", f"[annotate]\n{extra}")
    definition = definitions.create(dataset, text)
    with Ledger(dataset.ledger) as ledger:
        ledger.add_images(record(image, f"{int(image[:16], 16):016x}") for image in NAMES)
    return dataset, definition


def order(workspace: Workspace, dataset: Dataset, definition: Definition, reviewer: str = "ann") -> list[queue.Card]:
    with Journal(dataset.labels) as journal:
        return queue.cards(workspace, dataset, definition, journal, reviewer)


def test_wanted_ones_first_judged_ones_last(workspace: Workspace) -> None:
    dataset, definition = setup(workspace)
    with Journal(dataset.labels) as journal:
        number = new_box_id()
        journal.append(
            [
                verdict_event("reviewer:ann", NAMES[0], Verdict.ACCEPTED),
                box_event(Kind.IMPORT, "import:coco", NAMES[3], number, Status.PRESENT, "gull", (1, 2, 30, 40)),
            ]
        )
    rows = [{"image": NAMES[2], "score": 0.4, "reason": "low score"}, {"image": NAMES[1], "score": 0.9, "reason": "first of its kind"}]
    (dataset.folder / "queue.json").write_text(json.dumps(rows))
    suspect = {"image": NAMES[3], "box": number, "kind": "wrong_class", "score": 0.7, "category": "crab"}
    (dataset.folder / "audit.json").write_text(json.dumps({"suspects": [suspect]}))
    cards = order(workspace, dataset, definition)
    assert [card.record.sha256 for card in cards[:3]] == [NAMES[1], NAMES[3], NAMES[2]]
    assert [card.reason for card in cards[:3]] == ["first of its kind", "model disagrees: crab?", "low score"]
    assert cards[1].suspects[0].xywh == (1, 2, 30, 40)
    assert cards[-1].record.sha256 == NAMES[0]
    assert len(cards) == len(NAMES)


def test_flagged_quality_is_mixed_in_by_how_near_it_is_to_being_kept_out(workspace: Workspace) -> None:
    dataset, definition = setup(workspace)
    policy = definition.collect
    scores = {
        NAMES[1]: {"dark": 0.9 * policy.max_dark},
        NAMES[2]: {"blurred": 0.6 * policy.max_blur, "blank": 0.0},
        NAMES[3]: {"dark": 0.3},
    }
    with Ledger(dataset.ledger) as ledger:
        ledger.add_images(replace(record(hashlib.sha256(name.encode()).hexdigest()), quality=score) for name, score in scores.items())
    (dataset.folder / "queue.json").write_text(json.dumps([{"image": NAMES[0], "score": 0.5, "reason": "3 unsure boxes"}]))
    first = [card.reason for card in order(workspace, dataset, definition)[:4]]
    assert first == ["quality: dark", "3 unsure boxes", "quality: blurred", ""]


def test_near_duplicates_stand_side_by_side() -> None:
    records = [
        record("a" * 64, "f0f0f0f0f0f0f0f0"),
        record("b" * 64, "0f0f0f0f0f0f0f0f"),
        record("c" * 64, "f0f0f0f0f0f0f0f3"),
        record("d" * 64, ""),
    ]
    groups = queue.duplicate_groups(records, 10)
    assert set(groups) == {"a" * 64, "c" * 64}
    assert len(set(groups.values())) == 1
    assert queue.duplicate_groups(records[:1], 10) == {}


def test_every_image_has_one_owner_and_a_share_goes_to_two() -> None:
    images = [hashlib.sha256(bytes([a, b])).hexdigest() for a in range(64) for b in range(64)]
    everyone = ["ann", "bob", "cleo"]
    parts = {name: [queue.part_of(image, name, everyone, 0.05) for image in images] for name in everyone}
    for shares in zip(*parts.values(), strict=True):
        assert Counter(shares)["own"] == 1
        assert Counter(shares)["second opinion"] in {0, 1}
    twice = sum(part == "second opinion" for shares in parts.values() for part in shares)
    assert 0.03 < twice / len(images) < 0.07
    moved = sum(
        queue.part_of(image, "ann", everyone, 0) == "own" and queue.part_of(image, "ann", ["ann", "bob"], 0) == "others" for image in images
    )
    assert moved == 0, "a reviewer who joins takes images away and moves none between the others"
    assert all(queue.part_of(image, "ann", ["ann"], 1.0) == "own" for image in images[:50])


def test_second_opinions_are_blind_and_enter_no_release(workspace: Workspace) -> None:
    dataset, definition = setup(workspace, "overlap = 1.0")
    with Journal(dataset.labels) as journal:
        journal.append(
            box_event(Kind.PROPOSE, "model:m", image, new_box_id(), Status.PROPOSED, "gull", (10, 10, 30, 30), 0.8) for image in NAMES
        )
    mine = [card.record.sha256 for card in order(workspace, dataset, definition, "ann") if card.part == "own"]
    assert len(mine) == len(NAMES), "alone, all are hers"
    order(workspace, dataset, definition, "bob")
    cards = {card.record.sha256: card for card in order(workspace, dataset, definition, "ann")}
    image = next(name for name, card in cards.items() if card.part == "own")
    with Journal(dataset.labels) as journal:
        ann = Desk(journal, definition, "ann")
        seen = verdicts.shown(definition, image, (200, 100), cards[image].labels)
        verdicts.accept(ann, replace(seen, boxes=(replace(seen.boxes[0], category="crab"),)))
    seconds = {card.record.sha256: card for card in order(workspace, dataset, definition, "bob")}[image]
    assert seconds.part == "second opinion"
    assert [(box.category, box.status) for box in seconds.labels.boxes.values()] == [("gull", "proposed")], "as the model said it"
    with Journal(opinions_path(dataset, "bob")) as own:
        verdicts.accept(Desk(own, definition, "bob"), verdicts.shown(definition, image, (200, 100), seconds.labels))
    with Journal(dataset.labels) as journal:
        assert {event.actor for event in journal.events()} == {"model:m", "reviewer:ann"}
        assert len(current(journal)[image].present()) == 1


def test_gold_images_are_shown_blind(workspace: Workspace) -> None:
    dataset, definition = setup(workspace, f'gold = ["{NAMES[5]}"]')
    with Journal(dataset.labels) as journal:
        verdicts.draw(Desk(journal, definition, "boss"), Shown(NAMES[5], 200, 100), "gull", (10, 10, 30, 30))
        journal.append([verdict_event("reviewer:boss", NAMES[5], Verdict.ACCEPTED)])
    card = next(card for card in order(workspace, dataset, definition) if card.record.sha256 == NAMES[5])
    assert (card.part, card.labels.boxes, card.labels.verdict) == ("gold", {}, "pending")


def test_a_broken_queue_file_is_named(workspace: Workspace) -> None:
    dataset, definition = setup(workspace)
    (dataset.folder / "queue.json").write_text('[{"image": "x"}]')
    with pytest.raises(CorruptError, match=r"queue\.json"):
        order(workspace, dataset, definition)
    (dataset.folder / "queue.json").write_text("[")
    with pytest.raises(CorruptError, match="not valid JSON"):
        order(workspace, dataset, definition)


def test_what_came_up_against_a_verdict_makes_it_wait_again(workspace: Workspace) -> None:
    dataset, definition = setup(workspace)
    with Journal(dataset.labels) as journal:
        journal.append([verdict_event("reviewer:ann", image, Verdict.ACCEPTED) for image in NAMES])
    time.sleep(0.005)
    suspect = {"image": NAMES[4], "box": "", "kind": "missing", "score": 0.7, "category": "crab", "bbox": [1, 2, 30, 40]}
    (dataset.folder / "audit.json").write_text(json.dumps([suspect]))
    queue.put_first(dataset, [{"image": NAMES[7], "score": 0.5, "reason": "reviewers disagree: gull or crab?"}])
    first, second, *rest = order(workspace, dataset, definition)
    assert [(card.record.sha256, card.again) for card in (first, second)] == [(NAMES[7], True), (NAMES[4], True)]
    assert not any(card.again for card in rest)
    with Journal(dataset.labels) as journal:
        journal.append([verdict_event("reviewer:ann", NAMES[4], Verdict.ACCEPTED)])
    assert [card.record.sha256 for card in order(workspace, dataset, definition) if card.again] == [NAMES[7]]
