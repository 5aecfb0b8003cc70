"""Splits: deterministic, stable, balanced, and no group crosses them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotate import coco
from annotate.commands.splits import SPLITS_VERB
from annotate.journal import Kind, Status, box_event, new_box_id
from annotate.release import make_release
from annotate.splits import SIZES, Member, assign, naive_leak, size_name
from boxwright import parser_for
from collect.console import Console
from collect.definition import SplitPolicy
from collect.workspace import Workspace

POLICY = SplitPolicy()


def sha(number: int) -> str:
    return f"{number * 2654435761 % 2**64:016x}" * 4


members_lists = st.lists(
    st.tuples(
        st.lists(st.integers(0, 12), max_size=2), st.sampled_from(["", "", "", "train", "test"]), st.sampled_from(["cat", "dog", ""])
    ),
    max_size=40,
).map(
    lambda rows: [
        Member(sha(n), tuple(links), decided, {(name, "small"): 1} if name else {("", ""): 1})
        for n, (links, decided, name) in enumerate(rows)
    ]
)


@settings(max_examples=200, deadline=None)
@given(members_lists, st.randoms())
def test_assign__never_crosses_never_moves_and_ignores_order(members: list[Member], chance: random.Random) -> None:
    first = assign(members, POLICY)
    assert first.crossing() == []
    assert first.split_of.keys() | first.held_out.keys() == {member.sha256 for member in members}
    for member in members:
        if member.decided and member.sha256 in first.split_of:
            assert first.split_of[member.sha256] == member.decided
        if member.decided == "test":
            assert first.split_of[member.sha256] == "test"
    shuffled = members[:]
    chance.shuffle(shuffled)
    assert assign(shuffled, POLICY) == first


@settings(max_examples=100, deadline=None)
@given(members_lists, members_lists)
def test_assign__keeps_what_was_decided_when_the_dataset_grows(old: list[Member], new: list[Member]) -> None:
    first = assign(old, POLICY).split_of
    grown = [Member(m.sha256, m.links, first.get(m.sha256, m.decided), m.strata) for m in old]
    grown += [Member(sha(10_000 + n), m.links, "", m.strata) for n, m in enumerate(new)]
    second = assign(grown, POLICY)
    for image, split in first.items():
        assert second.split_of.get(image, split) == split
        assert image in second.split_of or image in second.held_out
        if split == "test":
            assert image in second.split_of


def test_assign__balances_classes_and_sizes() -> None:
    chance = random.Random(3)
    members = []
    for n in range(2000):
        strata = Counter((chance.choices(["cat", "dog", "owl"], [80, 18, 2])[0], chance.choice(["small", "large"])) for _ in range(3))
        members.append(Member(sha(n), (n // 2,), "", dict(strata)))
    split_of = assign(members, POLICY).split_of
    totals: dict = {}
    for member in members:
        for key, count in member.strata.items():
            totals.setdefault(key, Counter())[split_of[member.sha256]] += count
    for counts in totals.values():
        for split, share in (("train", 0.7), ("val", 0.15), ("test", 0.15)):
            assert abs(counts[split] / counts.total() - share) < 0.02


def test_naive_leak__sees_pairs_that_a_random_split_tears_apart() -> None:
    paired = {sha(n): n // 2 for n in range(1000)}
    assert 0.6 < naive_leak(paired, POLICY) < 0.8
    assert naive_leak({sha(n): n for n in range(1000)}, POLICY) == 0


def test_the_command_shows_the_balance_by_class_and_size(
    make_dataset: Callable, workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    small = make_dataset()
    with small.journal() as journal:
        for seed in range(40):
            sha256 = small.add_image(seed, boxes=0)
            side = (20.0, 33.0)[seed % 2]  # no large one: it is shown as empty
            name, box = ("cat", "dog")[seed % 4 // 2], (1.0, 2.0, side, side)
            journal.append([box_event(Kind.DRAW, "reviewer:anna", sha256, new_box_id(), Status.PRESENT, name, box)])
    told = SPLITS_VERB.run(parser_for("splits", SPLITS_VERB).parse_args(["pets"]), Console(workspace))
    release = make_release(small.dataset, small.definition)
    expected: dict[str, Counter[str]] = {size: Counter() for size in SIZES}
    for split in ("train", "val", "test"):
        for annotation in coco.read_document(release.path / f"{split}.json")["annotations"]:
            expected[size_name(annotation["bbox"][2] * annotation["bbox"][3])][split] += 1
    assert told["sizes"] == {size: dict(counts) for size, counts in expected.items()}
    assert {size: sum(counts.values()) for size, counts in told["sizes"].items()} == {"small": 20, "medium": 20, "large": 0}
    assert sum(sum(counts.values()) for counts in told["boxes"].values()) == 40
    shown = [" ".join(line.replace("│", " ").split()) for line in capsys.readouterr().out.splitlines()]
    assert "aimed at 70 / 15 / 15 %" in shown
    for name, counts in (("small boxes", told["sizes"]["small"]), ("boxes of dog", told["boxes"]["dog"])):
        numbers = [counts.get(split, 0) for split in ("train", "val", "test")]
        assert any(line.startswith(" ".join(map(str, [name, *numbers, round(5 * numbers[0]), "/"]))) for line in shown), (numbers, shown)
    assert "large boxes 0 0 0 –" in shown
