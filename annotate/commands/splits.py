"""`boxwright splits`: the balance of a release's splits by class and box size, and proof that no group crosses them."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Mapping
from typing import Any

from annotate.release import Options, make_release
from annotate.splits import SPLITS, naive_leak
from collect import definition
from collect.console import Console


class SplitsVerb:
    """Shows the splits as a release made now would have them."""

    def arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", help="a dataset")
        parser.add_argument("--allow-unreviewed", action="store_true", help="as for `release`")

    def run(self, arguments: Namespace, console: Console) -> dict[str, Any]:
        dataset = console.workspace.dataset(arguments.name)
        described = definition.load(dataset)
        options = Options(unreviewed=arguments.allow_unreviewed, dry_run=True)
        release = make_release(dataset, described, options)
        assignment = release.assignment
        group_of = {sha: group for sha, group in assignment.group_of.items() if sha in assignment.split_of}
        result = {
            "images": release.images,
            "boxes": release.boxes,
            "sizes": release.sizes,
            "aim": {split: getattr(described.split, split) for split in SPLITS},
            "groups": len(set(group_of.values())),
            "largest_group": max(Counter(group_of.values()).values(), default=0),
            "crossing": len(assignment.crossing()),
            "held_out": len(assignment.held_out),
            "naive_leak": naive_leak(assignment.group_of, described.split),
        }
        self._show(result, console)
        return result

    def _show(self, result: dict[str, Any], console: Console) -> None:
        rows = [_row("images", result["images"])]
        rows += [_row(f"{size} boxes", counts) for size, counts in result["sizes"].items()]
        rows += [_row(f"boxes of {name}", counts) for name, counts in result["boxes"].items()]
        console.table(("", *SPLITS, "shares"), rows, title=f"aimed at {_shares(result['aim'])}")
        console.out(
            f"{result['groups']} groups, the largest of {result['largest_group']} images; {result['crossing']} cross a split; "
            f"{result['held_out']} images held out.\n"
            f"Were images split at random, {result['naive_leak']:.1%} of the test images would have a group mate in train."
        )


def _row(name: str, counts: Mapping[str, float]) -> tuple[object, ...]:
    return (name, *(counts.get(split, 0) for split in SPLITS), _shares(counts))


def _shares(counts: Mapping[str, float]) -> str:
    """Per cent of each split, "–" where there is nothing."""
    total = sum(counts.values())
    return " / ".join(f"{100 * counts.get(split, 0) / total:.0f}" for split in SPLITS) + " %" if total else "–"


SPLITS_VERB = SplitsVerb()
