"""Pairs that look alike: kept with their time, grouped without chains, and in the queue until somebody has decided."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotate.journal import Journal, Verdict, verdict_event
from annotate.review import lookalikes, queue
from annotate.review.lookalikes import MOST, Pair
from collect import definition as definitions
from collect.errors import CorruptError
from collect.workspace import Dataset, Workspace

MakeBeach = Callable[[Sequence[str], tuple[int, int]], Dataset]
NAMES = [f"{digit}" * 64 for digit in "12345"]


@pytest.fixture
def dataset(make_beach: MakeBeach) -> Dataset:
    return make_beach(NAMES, (200, 100))


def order(workspace: Workspace, dataset: Dataset) -> list[queue.Card]:
    with Journal(dataset.labels) as journal:
        return queue.cards(workspace, dataset, definitions.load(dataset), journal, "ann")


def judge(dataset: Dataset, verdict: Verdict, *images: str) -> None:
    with Journal(dataset.labels) as journal:
        journal.append([verdict_event("reviewer:ann", image, verdict) for image in images])


def test_a_pair_comes_first_side_by_side_until_it_is_decided(workspace: Workspace, dataset: Dataset) -> None:
    one, two, three, four, five = NAMES
    judge(dataset, Verdict.ACCEPTED, one, four)
    time.sleep(0.005)
    found = [Pair(one, four, 0.97111), Pair(two, five, 0.96)]
    assert [pair.cosine for pair in lookalikes.write(dataset, found)] == [0.9711, 0.96]
    cards = order(workspace, dataset)
    assert [card.record.sha256 for card in cards] == [one, four, two, five, three], "what was accepted waits again"
    assert [card.reason for card in cards[:2]] == ["looks like 444444444444 (.97)", "looks like 111111111111 (.97)"]
    assert cards[0].duplicates == cards[1].duplicates != cards[2].duplicates == cards[3].duplicates != ""
    assert [card.again for card in cards] == [True, True, False, False, False]

    judge(dataset, Verdict.ACCEPTED, one, four)
    judge(dataset, Verdict.REJECTED, five)
    time.sleep(0.005)
    lookalikes.write(dataset, found)  # found anew, and already decided
    cards = order(workspace, dataset)
    assert not any(card.again for card in cards)
    assert [card.record.sha256 for card in cards[:2]] == [two, three]
    assert (cards[0].reason, cards[0].duplicates) == ("", ""), "the other one of the pair is rejected"


def test_a_broken_file_is_named(workspace: Workspace, dataset: Dataset) -> None:
    lookalikes.path_of(dataset).write_text('[{"image": "x"}]')
    with pytest.raises(CorruptError, match=r"lookalikes\.json"):
        order(workspace, dataset)


def test_joined__into_a_group_of_near_duplicates_only_by_all_of_it() -> None:
    groups = {"a": "twins", "b": "twins"}
    assert lookalikes.joined(groups, [Pair("a", "c", 0.97)]) == groups
    assert lookalikes.joined(groups, [Pair("a", "c", 0.97), Pair("b", "c", 0.95)]) == {**groups, "c": "twins"}


@given(st.lists(st.sampled_from(list(combinations("abcdefghijklm", 2))), unique=True))
def test_joined__no_chains_and_no_more_than_can_be_shown(edges: list[tuple[str, str]]) -> None:
    pairs = [Pair(*edge, 0.9) for edge in edges]
    groups = lookalikes.joined({}, pairs)
    assert all(size in range(2, MOST + 1) for size in Counter(groups.values()).values())
    assert all((a, b) in edges for a, b in combinations(sorted(groups), 2) if groups[a] == groups[b])
    assert all(a in groups or b in groups for a, b in edges)
