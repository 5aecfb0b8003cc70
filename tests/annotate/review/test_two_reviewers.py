"""Two people review one dataset at the same time, each in a server process of their own."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

import boxwright
from annotate.journal import Journal, Kind
from annotate.review.session import opinions_path
from tests.browser.app import Server
from tests.browser.test_review_app import NAME, make

pytestmark = pytest.mark.mongod


class Person:
    """Presses keys without a browser: the requests of the keys script."""

    def __init__(self, root: Path, name: str) -> None:
        self.name, self.server = name, Server(root, NAME, "--reviewer", name)
        self.here = ""

    def press(self, act: str, **given: Any) -> dict[str, Any]:
        place = urlsplit(self.server.url)
        body = json.dumps({"sample": self.here, **given}).encode()
        headers = {"Authorization": f"Bearer {self.server.url.rpartition('token=')[2]}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"http://{place.netloc}/boxwright/{act}", body, headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            told: dict[str, Any] = json.loads(answer.read())
        self.here = told["next"] or ""
        return told


def test_two_servers_one_dataset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset, images = make(tmp_path, count=12, proposals=12)
    text = dataset.definition.read_text()
    dataset.definition.write_text(text.replace("[annotate]", "[annotate]\noverlap = 1.0", 1))
    people: list[Person] = []
    try:
        people = [Person(tmp_path, "ann"), Person(tmp_path, "bob")]
        for _ in range(12):  # in turns, as two people do; ann began alone, so every image was hers at first
            for person in people:
                if person.press("next_image")["next"]:
                    person.press("accept" if person.name == "ann" else "mark_negative", seconds=2.0)
    finally:
        assert [person.server.stop() for person in people] == [0, 0]
    with Journal(dataset.labels) as journal:
        assert journal.broken() is None
        verdicts = [event for event in journal.events() if event.kind == Kind.VERDICT]
    by_name = {name: {event.image for event in verdicts if event.actor == f"reviewer:{name}"} for name in ("ann", "bob")}
    assert all(by_name.values()), "both have spoken in the dataset's journal"
    assert by_name["ann"].isdisjoint(by_name["bob"]), "what one has judged waits no longer for the other"
    assert by_name["ann"] | by_name["bob"] == set(images)
    with Journal(opinions_path(dataset, "bob")) as opinions:
        assert opinions.broken() is None
    assert boxwright.main(["agreement", NAME, "--root", str(tmp_path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {(row["reviewer"], row["other"]) for row in told["pairs"]} <= {("ann", "bob"), ("bob", "ann")}
    assert told["pairs"], "some images were seen by both, blind"
    assert told["pairs"][0]["f1"] == 0.0, "one accepts two boxes where the other sees nothing"
    assert set(told["effort"]) == {"ann", "bob"}
