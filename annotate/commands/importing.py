"""`boxwright import`: take in images and labels that exist already."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from annotate.formats.format import IMPORTERS, Done, Problem
from annotate.intake import LabelsRefusedError, Outcome, Request, take_in
from annotate.journal import Kind
from annotate.public_sets import SETS, Web, fetch, parse
from collect.console import Console

#: The import format that stands for all public sets.
PUBLIC = "public"
_SHOWN = 10

_NEWS = {"new_images": "images new", "new_boxes": "boxes new", "edited_boxes": "boxes edited", "deleted_boxes": "boxes deleted"}


class Import:
    """Images and labels of another tool become ledger rows and journal events."""

    def arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", help="the dataset; made with the classes found if it is new")
        parser.add_argument("path", help="label file, folder, or a zip or tar of it; with --format public SET[/PART][:CLASS,…]")
        parser.add_argument("--format", required=True, metavar="F", help=f"{', '.join(sorted(IMPORTERS))}; public: {', '.join(SETS)}")
        parser.add_argument("--images", type=Path, metavar="DIR", help="where the images lie (default: near the labels)")
        parser.add_argument("--split", choices=("train", "val", "test"), default="", help="put all images there")
        parser.add_argument(
            "--license",
            default="",
            metavar="SPDX",
            dest="licence",
            help="of images whose labels state none, on your word",
        )
        parser.add_argument("--unreviewed", action="store_true", help="the labels are no ground truth: leave the images to review")
        parser.add_argument("--skip-bad", action="store_true", help="leave out what cannot be mended instead of importing nothing")
        public = parser.add_argument_group("--format public")
        public.add_argument("--limit", type=int, default=0, metavar="N", help="take N images of the public set at most")
        public.add_argument("--mirror", default="", metavar="URL", help="fetch from there: a folder for each host of the set")

    def run(self, arguments: Namespace, console: Console) -> dict[str, Any]:
        dataset = console.workspace.new_dataset(arguments.name)
        form, path, licence = arguments.format, Path(arguments.path), arguments.licence
        if form == PUBLIC:
            wanted = parse(arguments.path, arguments.limit)
            if console.dry_run:
                console.out(f"would fetch {arguments.path} and import it into {dataset.name}")
                return Outcome().document()
            console.say(f"fetching {arguments.path}; what is fetched is kept in {console.workspace.root / '.cache' / 'public'}")
            fetched = fetch(wanted, Web(console.workspace.root / ".cache" / "public", arguments.mirror))
            form, path, licence = fetched.format, fetched.folder, licence or fetched.licence
        request = Request(form, path, arguments.images, arguments.split, licence, arguments.unreviewed, arguments.skip_bad, console.dry_run)
        try:
            outcome = take_in(dataset, request, console.track)
        except LabelsRefusedError as error:
            console.document(Outcome(problems=error.problems).document())
            raise
        show_problems(outcome.problems, console)
        doing = "would import" if console.dry_run else "imported"
        console.out(
            f"{doing} {outcome.images} images with {outcome.annotations} boxes of {len(outcome.class_names)} classes into {dataset.name}"
            f"{'' if console.dry_run else _what_was_new(outcome)};"
            f" see them with `boxwright review {dataset.name}`"
        )
        return outcome.document()


def _what_was_new(outcome: Outcome) -> str:
    """Nothing where all of it was new; else a second import of the same labels would read like the first."""
    told = outcome.document()
    if (told["new_images"], told["new_boxes"]) == (outcome.images, outcome.annotations):
        return ""
    parts = [f"{told[key]} {words}" for key, words in _NEWS.items() if told[key]]
    if outcome.events.get(Kind.VERDICT) and not told["new_images"]:
        parts.append(f"{outcome.events[Kind.VERDICT]} verdicts new")
    return f" ({', '.join(parts) or 'all of it was there already'})"


def show_problems(problems: Iterable[Problem], console: Console) -> None:
    """The first problems in words, those that cost labels before mere notes, and how many there were; `--json` holds them all."""
    grave = list(Done)[::-1]
    problems = sorted(problems, key=lambda problem: grave.index(problem.done))
    for problem in problems[:_SHOWN]:
        console.say(f"  {problem}")
    if len(problems) > _SHOWN:
        counts = Counter(str(problem.done) for problem in problems)
        console.say(f"  … {len(problems)} in all ({', '.join(f'{n} {done}' for done, n in counts.items())}); --json lists them")


IMPORT = Import()
