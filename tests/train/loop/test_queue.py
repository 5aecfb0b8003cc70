"""What next: doubt, need, novelty and cost decide the order; starving classes become a diff."""

from __future__ import annotations

import itertools
import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import boxwright
from annotate.journal import Journal, Kind, Status, Verdict, box_event, new_box_id, verdict_event
from collect import definition
from collect.ledger import Ledger
from train.loop.rank import Glance, Known, Weights, cost_s, disagreement, order
from train.loop.starving import Hunger, Stock, hungry, rewritten

NAMES = ("common", "rare")
KNOWN = Known(np.array([400, 10]), NAMES)


def glance(image, scores, labels=None, vector=None, apart=0.0):
    labels = labels if labels is not None else [0] * len(scores)
    return Glance(image, np.array(scores, dtype=float), np.array(labels, dtype=np.int64), vector, apart)


def names_of(*glances, known=KNOWN):
    return [entry.image for entry in order(glances, known)]


def test_doubt_before_certainty():
    assert names_of(glance("sure", [0.98]), glance("empty", []), glance("unsure", [0.5])) == ["unsure", "empty", "sure"]


def test_rare_before_common():
    assert names_of(glance("common", [0.5], [0]), glance("rare", [0.5], [1])) == ["rare", "common"]


def test_a_class_that_was_served_waits_its_turn():
    boxes = [glance(f"{kind} {k}", [0.9], [kind]) for kind in (0, 1) for k in range(3)]
    queue = names_of(*boxes, known=Known(np.array([1, 1]), NAMES))
    assert [name[0] for name in queue] in (list("010101"), list("101010"))


def test_a_crowd_of_the_rare_goes_before_one_of_them_beside_many_common():
    crowd, mixed = glance("crowd", [0.9] * 6, [1] * 6), glance("mixed", [0.9] * 6, [0] * 5 + [1])
    assert names_of(mixed, crowd) == ["crowd", "mixed"]


def test_one_lucky_box_does_not_beat_many():
    """A mean over one box says little: it is drawn towards the mean of all."""
    one, many = glance("one", [0.6], [1]), glance("many", [0.6] * 9, [1] * 9)
    common = [glance(f"common {k}", [0.6] * 4, [0] * 4) for k in range(4)]
    assert names_of(one, many, *common)[0] == "many"


def test_disagreement_counts():
    assert names_of(glance("agree", [0.9]), glance("differ", [0.9], apart=1.0))[0] == "differ"


def test_of_two_alike_the_second_waits():
    a, b, c = (np.eye(3)[k] for k in range(3))
    queue = names_of(
        glance("first", [0.5, 0.5], [1, 1], a), glance("its twin", [0.5, 0.5], [1, 1], a), glance("other", [0.5, 0.5], [1, 1], b),
        known=Known(np.array([400, 10]), NAMES, c[None]),
    )  # fmt: skip
    assert queue == ["first", "other", "its twin"]


def test_equal_worth__the_cheap_one_first():
    assert cost_s(np.array([0.9, 0.9])) > cost_s(np.array([0.9]))
    result = order([glance("many", [0.5] * 2), glance("few", [0.5])], KNOWN, Weights(need=0))
    assert [entry.image for entry in result] == ["few", "many"]


@given(st.lists(st.lists(st.floats(0, 1), max_size=5), max_size=12), st.booleans())
def test_every_image_once_scores_fall(scores, looks):
    rng = np.random.default_rng(0)
    glances = [glance(str(k), s, vector=(v := rng.normal(size=4)) / np.linalg.norm(v) if looks else None) for k, s in enumerate(scores)]
    ranked = order(glances, KNOWN)
    assert sorted(entry.image for entry in ranked) == sorted(g.image for g in glances)
    assert all(np.isfinite(entry.score) and entry.reason for entry in ranked)
    assert all(a.score >= b.score - 1e-5 for a, b in itertools.pairwise(ranked))


def test_disagreement_of_equal_answers_is_none():
    boxes, labels = np.array([[0, 0, 10, 10.0]]), np.array([1])
    assert disagreement(boxes, labels, boxes, labels) == 0
    assert disagreement(boxes, labels, boxes, np.array([0])) == 1
    assert disagreement(boxes, labels, np.zeros((0, 4)), np.zeros(0, dtype=int)) == 1


TOML = """name = "pets"
contact = ""  # mine

[[class]]
id = 1
name = "cat"
queries = ["cat", "tabby"]   # two
quota = 100

[[class]]
id = 2
name = "hen"
queries = ["hen"]
synonyms = ["chicken"]
quota = 50                # few

[[class]]
id = 3
name = "cow"
"""


def test_starving_classes_become_a_diff_that_keeps_comments(tmp_path):
    recipe = definition.parse(tmp_path / "dataset.toml", TOML)
    rows = [{"class_name": "hen", "query": "hen farm", "source": "s", "origin": "hen", "found": 9, "pages": 1}]
    stock = Stock({"cat": 400, "hen": 40, "cow": 300}, {"hen": 60}, {"hen": 0.1}, rows)
    (hunger,) = hungry(recipe, stock)
    assert (hunger.name, hunger.new_quota, hunger.new_queries) == ("hen", 240, ("chicken", "hen farm"))
    after = rewritten(TOML, [hunger])
    changed = definition.parse(tmp_path / "dataset.toml", after)
    assert changed.class_named("hen").queries == ("hen", "chicken", "hen farm")
    assert changed.class_named("hen").quota == 240
    assert changed.class_named("cat") == recipe.class_named("cat")
    assert "# few" in after and "# two" in after and "# mine" in after
    added = rewritten(TOML, [Hunger("cow", 0, 0, None, 0, 0, ("cow",))])
    assert definition.parse(tmp_path / "x", added).class_named("cow").queries == ("cow",)


def test_queue_and_suggest_from_the_command_line(make_dataset, noise, workspace, capsys, monkeypatch):
    monkeypatch.setattr("train.fitting.weights.imagenet_mobilenet_v2", lambda: None)  # the histogram: nothing is downloaded
    dataset, records = make_dataset("pets", ["cat", "hen"], [noise(k) for k in range(4)])
    with Journal(dataset.labels) as journal:
        for record, score in zip(records, (0.99, 0.5, 0.97), strict=False):
            journal.append([box_event(Kind.PROPOSE, "model:m", record.sha256, new_box_id(), Status.PROPOSED, "cat", (1, 1, 9, 9), score)])
    words = ["--root", str(workspace.root), "--json"]
    assert boxwright.main(["queue", "pets", *words]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["queue"][0]["image"] == records[1].sha256
    assert json.loads((dataset.folder / "queue.json").read_text()) == result["queue"]
    assert boxwright.main(["queue", "pets", "--suggest", *words[:-1]]) == 0
    spoken = capsys.readouterr().out
    assert "nothing is labelled yet" in spoken and "starves:" not in spoken
    with Journal(dataset.labels) as journal:
        for x in (1, 20, 40):
            journal.append([box_event(Kind.DRAW, "reviewer:a", records[0].sha256, new_box_id(), Status.PRESENT, "cat", (x, 1, 9, 9))])
            journal.append([box_event(Kind.DRAW, "reviewer:a", records[3].sha256, new_box_id(), Status.PRESENT, "hen", (x, 1, 9, 9))])
        journal.append([verdict_event("reviewer:a", records[3].sha256, Verdict.REJECTED)])  # its boxes feed nobody
    dataset.definition.write_text(
        dataset.definition.read_text().replace('name = "hen"', 'name = "hen"\nwas = ["biddy"]\nsynonyms = ["chicken"]')
    )
    before = dataset.definition.read_text()
    with Ledger(dataset.ledger) as ledger:
        row = {"source": "s", "cursor": "", "outcome": "EMPTY", "pages": 1, "found": 0, "dry": 1, "origin": ""}
        ledger.save_query(row | {"query": "henn", "class_name": "biddy"})  # what the class was called when that was asked
        ledger.save_query(row | {"query": "dog", "class_name": "dog"})  # of a class that is gone
    assert boxwright.main(["queue", "pets", "--suggest", *words[:-1]]) == 0
    spoken = capsys.readouterr().out
    assert "hen starves: 0 boxes; images collected for it: 0 of 200; `boxwright collect pets` asks for more" in spoken
    assert "the query 'henn' (hen) brought nothing from s" in spoken and "dog" not in spoken
    assert boxwright.main(["queue", "pets", "--suggest", *words]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [row["class"] for row in told["starving"]] == ["hen"]
    assert dataset.definition.read_text() == before
    assert '+queries = ["hen", "chicken"]' in told["diff"]
    assert "quota = 600" not in told["diff"], "a quota of 200 with no image collected asks for more already"
    assert boxwright.main(["queue", "pets", "--suggest", "--apply", *words]) == 0
    assert json.loads(capsys.readouterr().out)["diff"] == told["diff"]
    dataset.definition.write_text(before)
    assert boxwright.main(["queue", "pets", "--suggest", "--apply", *words[:-1]]) == 0
    assert "written into dataset.toml; `boxwright collect pets` asks for it" in capsys.readouterr().out
    hen = definition.load(dataset).class_named("hen")
    assert (hen.quota, hen.queries) == (200, ("hen", "chicken"))
    assert boxwright.main(["queue", "pets", "--suggest", *words]) == 0
    assert not json.loads(capsys.readouterr().out)["diff"], "accepted once, not proposed again"


def test_what_the_queue_tells(make_dataset, noise, workspace, capsys, monkeypatch):
    monkeypatch.setattr("train.fitting.weights.imagenet_mobilenet_v2", lambda: None)  # the histogram: nothing is downloaded
    dataset, records = make_dataset("pets", ["cat"], [noise(0)])
    root = ["--root", str(workspace.root)]
    assert boxwright.main(["queue", "pets", *root]) == 0
    told = capsys.readouterr().out
    assert "1 images wait" in told
    assert "--run RUN takes another" in told
    assert boxwright.main(["queue", "pets", "--apply", *root]) == 2
    assert "--suggest --apply" in capsys.readouterr().err
    assert boxwright.main(["queue", "pets", "--top", "-3", *root]) == 2
    capsys.readouterr()
    with Journal(dataset.labels) as journal:
        journal.append([verdict_event("reviewer:a", records[0].sha256, Verdict.ACCEPTED)])
    assert boxwright.main(["queue", "pets", *root]) == 0
    told = capsys.readouterr().out
    assert "nothing waits" in told
    assert "━" not in told, "no table without rows"
