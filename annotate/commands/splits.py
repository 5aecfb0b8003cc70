"""`boxwright splits`: the balance of a release's splits by class and box size, and proof that no group crosses them.

With `--free` it sets images free of the split that they were imported with.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from annotate.free import free
from annotate.release import Options, make_release
from annotate.splits import SPLITS, naive_leak
from collect import definition
from collect.console import Console
from collect.errors import UsageError
from collect.workspace import Dataset


class SplitsVerb:
    """Shows the splits as a release made now would have them."""

    def arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", help="a dataset")
        parser.add_argument("--allow-unreviewed", action="store_true", help="as for `release`")
        parser.add_argument("--free", choices=SPLITS, help="let [split] decide on the images that an import fixed in this split")
        parser.add_argument("--source", default="", help="with --free: only those of this source, such as import:coco")
        parser.add_argument(
            "--released", action="store_true",
            help="with --free: those too that a release holds; numbers of the releases so far then compare with no later one's",
        )  # fmt: skip

    def run(self, arguments: Namespace, console: Console) -> dict[str, Any]:
        if (arguments.source or arguments.released) and not arguments.free:
            raise UsageError("--source and --released say which images `--free SPLIT` sets free")
        dataset = console.workspace.dataset(arguments.name)
        if arguments.free:
            return _free(dataset, arguments, console)
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


def _free(dataset: Dataset, arguments: Namespace, console: Console) -> dict[str, Any]:
    told = free(dataset, arguments.free, arguments.source, released=arguments.released, dry_run=console.dry_run)
    would = "would be " if console.dry_run else ""
    console.out(
        f"{told.images:,} images that were imported as {arguments.free} {would or 'are '}free; the next release splits them as [split] says"
    )
    if told.kept:
        console.out(
            f"{told.kept:,} stay as they are, since a release holds them; --released frees these too, and what is lost by it is told"
        )
    if told.of_releases:
        console.out(
            f"{told.of_releases:,} of them stand in a release up to {told.release}: what was measured on those compares with none later, "
            f"and `boxwright retrain {dataset.name}` refuses where they come into test or leave it, unless with --force"
        )
    return asdict(told)


def _row(name: str, counts: Mapping[str, float]) -> tuple[object, ...]:
    return (name, *(counts.get(split, 0) for split in SPLITS), _shares(counts))


def _shares(counts: Mapping[str, float]) -> str:
    """Per cent of each split, "–" where there is nothing."""
    total = sum(counts.values())
    return " / ".join(f"{100 * counts.get(split, 0) / total:.0f}" for split in SPLITS) + " %" if total else "–"


SPLITS_VERB = SplitsVerb()
