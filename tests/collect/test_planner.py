"""What the planner asks next, when it stops, and what it remembers: over a real ledger."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from collect.definition import CollectPolicy, Definition, ObjectClass
from collect.ledger import Ledger
from collect.ledger_rows import Settlement
from collect.planner import Planner, Query
from collect.records import Candidate, ImageRecord, Licence, Reason, State
from collect.sources.source import Outcome, Page

CAT = ObjectClass(name="cat", id=1, queries=("cat", "kitten"), synonyms=("feline",), quota=10)
DOG = ObjectClass(name="dog", id=2, queries=("dog",), quota=5)
CC0 = Licence(spdx="CC0-1.0")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger.sqlite") as opened:
        yield opened


def definition(*classes: ObjectClass, expand: bool = True) -> Definition:
    return Definition(name="pets", classes=classes or (CAT,), collect=CollectPolicy(expand_queries=expand))


def finds(query: Query, numbers: range, licence: Licence = CC0) -> tuple[Candidate, ...]:
    return tuple(
        Candidate(
            url=f"http://example.org/{query.text}/{number}.jpg", source=query.source, query=query.text, class_name=query.class_name,
            rank=number, licence=licence,
        )
        for number in numbers
    )  # fmt: skip


def page(query: Query, numbers: range, cursor: str | None = None, suggestions: tuple[str, ...] = ()) -> Page:
    found = finds(query, numbers)
    return Page(found, Outcome.OK if found else Outcome.EMPTY, cursor, suggestions)


def settle_all(ledger: Ledger, state: State = State.KEPT, reason: Reason = Reason.NONE) -> None:
    """Every waiting URL ends in `state`, with an image of its own."""
    settlements = []
    for lease in ledger.lease(1000):
        sha256 = f"{lease.url_id:064x}"
        image = ImageRecord(
            sha256, "jpg", 10, 10, 1, "0" * 16, 9, state, reason, lease.licence, lease.source, lease.query, lease.class_name, lease.url,
            "", lease.domain, "2026",
        )  # fmt: skip
        settlements.append(Settlement(lease.url_id, state, reason, sha256=sha256, image=image))
    ledger.settle(settlements)


def asked(planner: Planner, source: str = "s") -> Query:
    query = planner.next_query(source)
    assert query is not None
    return query


def test_next_query__follows_the_query_that_brings_images(ledger: Ledger) -> None:
    planner = Planner(ledger, definition(replace(CAT, quota=0)), ["s"])
    first = asked(planner)
    assert first.text == "cat"
    planner.record(first, page(first, range(30), "2"))
    second = asked(planner)
    assert second.text == "kitten"  # each of the definition's own queries is tried once
    planner.record(second, page(second, range(3), "2"))
    settle_all(ledger)
    planner = Planner(ledger, definition(replace(CAT, quota=0)), ["s"])
    assert asked(planner) == first  # 30 kept from one page beat 3
    assert planner.cursor(first) == "2"


def test_quota__is_met_and_never_exceeded(ledger: Ledger) -> None:
    planner = Planner(ledger, definition(), ["s"])
    query = asked(planner)
    planner.record(query, page(query, range(100), "2"))
    assert ledger.counts().states == {"FOUND": 10}  # the other ninety are held back
    assert planner.next_query("s") is None and planner.pause_s("s") is not None
    settle_all(ledger, State.INVALID, Reason.BROKEN)
    planner.tally(fresh=True)
    assert asked(planner) == query and planner.held(query)
    planner.release(query)
    settle_all(ledger)
    planner.tally(fresh=True)
    assert planner.satisfied and planner.next_query("s") is None and planner.pause_s("s") is None
    assert ledger.num_images() == 10
    assert planner.verdict() == "the quota of every class is met"


def test_held_back__asked_again_after_a_kill(ledger: Ledger) -> None:
    """The cursor moves only when all finds of a page are written down."""
    planner = Planner(ledger, definition(), ["s"])
    query = asked(planner)
    planner.record(query, page(query, range(100), "2"))
    assert Planner(ledger, definition(), ["s"]).cursor(query) is None


def test_quota__a_full_class_is_left_while_others_go_on(ledger: Ledger) -> None:
    planner = Planner(ledger, definition(CAT, DOG), ["s"])
    dog = Query("s", "dog", "dog")
    planner.record(dog, page(dog, range(5), "2"))
    settle_all(ledger)
    planner.tally(fresh=True)
    assert asked(planner).class_name == "cat"
    assert not planner.satisfied


def test_stop__dry_sources_are_named(ledger: Ledger) -> None:
    planner = Planner(ledger, definition(expand=False), ["s"])
    while (query := planner.next_query("s")) is not None:
        planner.record(query, page(query, range(2)))
    assert planner.pause_s("s") is None
    assert planner.verdict() == "no source has more (dry: s)"
    assert {row["query"]: row["dry"] for row in ledger.query_rows()} == {"cat": 1, "kitten": 1, "feline": 1}


def test_stop__a_class_for_which_nothing_was_found_is_named(ledger: Ledger) -> None:
    planner = Planner(ledger, definition(CAT, replace(DOG, queries=("dgo", "hound")), expand=False), ["s"])
    for text, name, number in (("cat", "cat", 2), ("kitten", "cat", 0), ("feline", "cat", 0), ("dgo", "dog", 0), ("hound", "dog", 0)):
        query = Query("s", text, name)
        planner.record(query, page(query, range(number)))
    assert planner.verdict() == "no source has more (dry: s); nothing was found for dog, asked for as 'dgo', 'hound'"
    settle_all(ledger)
    ends = planner.ends()
    assert ends["cat"] == "no source has more (dry: s)"
    assert ends["dog"] == "no source has more (dry: s); nothing was found for dog, asked for as 'dgo', 'hound'"


def test_again__what_had_no_more_rests_for_a_week_and_that_is_said(ledger: Ledger) -> None:
    def drained(planner: Planner) -> int:
        asked = 0
        while (query := planner.next_query("s")) is not None:
            planner.record(query, page(query, range(2)))
            asked += 1
        return asked

    first = Planner(ledger, definition(expand=False), ["s"])
    assert drained(first) == 3 and first.verdict() == "no source has more (dry: s)"
    second = Planner(ledger, definition(expand=False), ["s"])
    assert drained(second) == 0
    assert second.verdict() == (
        "no source has more (dry: s; nothing was asked, as all had no more within the last week: --again asks anew)"
    )
    third = Planner(ledger, definition(expand=False), ["s"], restart=True)
    assert drained(third) == 3 and third.verdict() == "no source has more (dry: s)"


def test_renamed__what_was_asked_and_kept_under_the_former_name_counts(ledger: Ledger) -> None:
    planner = Planner(ledger, definition(CAT, expand=False), ["s"])
    planner.record(Query("s", "cat", "cat"), page(Query("s", "cat", "cat"), range(6), "2"))
    planner.record(Query("s", "kitten", "cat"), page(Query("s", "kitten", "cat"), range(0)))
    settle_all(ledger)
    felid = replace(CAT, name="felid", was=("cat",))
    renamed = Planner(ledger, definition(felid, expand=False), ["s"])
    assert renamed.tally().kept == {"felid": 6}
    first = asked(renamed)
    assert first == Query("s", "cat", "felid") and renamed.cursor(first) == "2"
    renamed.record(first, page(first, range(6, 12)))
    settle_all(ledger)
    renamed.tally(fresh=True)
    assert renamed.satisfied, "six of ten were there"
    assert Planner(ledger, definition(felid, expand=False), ["s"]).next_query("s") is None


def test_removed__nothing_is_asked_for_a_class_that_is_gone(ledger: Ledger) -> None:
    query = Query("s", "cat", "cat")
    Planner(ledger, definition(CAT, expand=False), ["s"]).record(query, page(query, range(2), "2"))
    assert {query.class_name for query in Planner(ledger, definition(DOG, expand=False), ["s"])._queries} == {"dog"}


def test_expansion__suggestions_are_recorded_with_their_origin(ledger: Ledger) -> None:
    planner = Planner(ledger, definition(replace(CAT, quota=0)), ["s"])
    query = asked(planner)
    planner.record(query, page(query, range(3), None, ("Siamese", "cat", "tabby  cat")))
    rows = {row["query"]: row["origin"] for row in ledger.query_rows()}
    assert rows == {
        "cat": "", "kitten": "", "feline": "synonym",
        "Siamese": "s suggested it for 'cat'", "tabby cat": "s suggested it for 'cat'",
    }  # fmt: skip
    drifting = Query("s", "Siamese", "cat")
    planner.record(drifting, page(drifting, range(1), None, ("Siam restaurant",)))
    assert "Siam restaurant" not in {row["query"] for row in ledger.query_rows()}  # nothing kept yet: not followed


def test_expansion__stops_where_nothing_new_comes(ledger: Ledger) -> None:
    planner = Planner(ledger, definition(replace(CAT, quota=0, queries=("cat",), synonyms=())), ["s"])
    cat = asked(planner)
    planner.record(cat, page(cat, range(3), None, ("a", "b", "c", "d", "e")))
    for _ in range(3):
        query = asked(planner)
        planner.record(query, Page(finds(cat, range(3)), Outcome.OK))
    assert planner.next_query("s") is None and planner.pause_s("s") is None


def test_blocked__waits_as_asked_then_gives_up(ledger: Ledger) -> None:
    planner = Planner(ledger, definition(), ["s", "other"])
    query = asked(planner)
    planner.record(query, Page((), Outcome.BLOCKED, None, (), "too many requests", 30.0))
    assert planner.next_query("s") is None and planner.pause_s("s") == 1.0
    assert asked(planner, "other")
    planner.record(query, Page((), Outcome.LAYOUT_CHANGED, None, (), "no results, no words"))
    assert planner.pause_s("s") is None
    assert planner.closed() == {"s": "LAYOUT_CHANGED: no results, no words"}
    assert "closed: s (LAYOUT_CHANGED" in planner.verdict()
    assert not any(row["dry"] for row in ledger.query_rows())  # refused is not dry: the next call asks again


def test_limit__counts_this_call_only(ledger: Ledger) -> None:
    query = Query("s", "cat", "cat")
    Planner(ledger, definition(), ["s"]).record(query, page(query, range(3)))
    settle_all(ledger)
    planner = Planner(ledger, definition(), ["s"], limit=2)
    assert not planner.satisfied
    planner.record(Query("s", "kitten", "cat"), page(Query("s", "kitten", "cat"), range(2)))
    settle_all(ledger)
    planner.tally(fresh=True)
    assert planner.satisfied and planner.verdict() == "the limit of 2 images is reached"


def test_ends__each_class_says_why_it_ended(ledger: Ledger) -> None:
    bird = replace(DOG, name="bird", id=3, queries=("bird",), quota=4)
    planner = Planner(ledger, definition(replace(CAT, quota=0), DOG, bird, expand=False), ["s", "other"])
    cat, dog, late = (Query("s", name, name) for name in ("cat", "dog", "bird"))
    for text in ("cat", "kitten", "feline"):
        planner.record(Query("s", text, "cat"), page(cat, range(2)))
    planner.record(dog, page(dog, range(5), "2"))
    planner.record(late, page(late, range(3)))
    settle_all(ledger)
    planner.close_source("other", "its browser is missing.")
    closed = "no source has more (dry: s; closed: other (its browser is missing))"
    assert planner.ends() == {"cat": closed, "dog": "quota met", "bird": closed}
    ledger.add_finds((find, "example.org") for find in finds(late, range(3, 4)))
    assert planner.ends()["bird"] == closed + "; 1 still waiting"
    assert Planner(ledger, planner.definition, ["urls:list.txt"]).ends()["dog"] == "stopped before its end"
    assert Planner(ledger, planner.definition, ["page:http://a.test/"]).ends()["dog"] == "no source was asked for it"


def test_ends__a_limit_stops_only_what_could_go_on(ledger: Ledger) -> None:
    planner = Planner(ledger, definition(CAT, replace(DOG, quota=50), expand=False), ["s"], limit=3)
    query, dog = asked(planner), Query("s", "dog", "dog")
    planner.record(query, page(query, range(1), "2"))
    planner.record(dog, page(dog, range(2)))
    assert planner.ends() == {"cat": "stopped before its end", "dog": "no source has more (dry: s); 2 still waiting"}
    settle_all(ledger)
    assert planner.ends() == {"cat": "limit of 3 images reached", "dog": "no source has more (dry: s)"}


def test_explicit_source__takes_everything_whatever_the_quota(ledger: Ledger) -> None:
    planner = Planner(ledger, definition(), ["urls:list.txt"])
    query = asked(planner, "urls:list.txt")
    assert query == Query("urls:list.txt", "list.txt", "cat")
    planner.record(query, page(query, range(50)))
    settle_all(ledger)
    assert ledger.num_images() == 50
    assert planner.next_query("urls:list.txt") is None
    assert Planner(ledger, definition(), ["urls:list.txt"]).next_query("urls:list.txt") == query  # the list may have grown


def test_licence__a_second_find_frees_from_quarantine(ledger: Ledger) -> None:
    planner = Planner(ledger, definition(replace(CAT, quota=0)), ["s"])
    query = asked(planner)
    planner.record(query, Page(finds(query, range(2), Licence()), Outcome.OK, "2"))
    settle_all(ledger, State.QUARANTINED, Reason.LICENCE_UNKNOWN)
    planner.record(query, Page((finds(query, range(1), CC0)[0], finds(query, range(1, 2), Licence(spdx="CC-BY-NC-4.0"))[0]), Outcome.OK))
    assert ledger.counts().states == {"KEPT": 1, "QUARANTINED": 1}
    assert next(ledger.images(State.KEPT)).licence.spdx == "CC0-1.0"
