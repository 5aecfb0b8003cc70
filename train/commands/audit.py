"""`boxwright audit`: hunt for label errors with cross-validated predictions, or for images that look alike."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import Any

from annotate.document import Ids, StableIds, draft
from annotate.journal import Journal, Verdict
from annotate.state import ImageLabels, current
from collect import definition
from collect.console import Console
from collect.errors import UsageError
from collect.files import exclusive, write_atomic
from collect.images.duplicates import clusters
from collect.ledger import Ledger
from collect.records import ImageRecord
from collect.workspace import Dataset
from train.detectors.table import place_of
from train.loop.audit import Suspicion, audit, from_coco
from train.loop.spoil import WORTH_A_LOOK, Worth, worth

_SHOWN, _SHOWN_WHOLE = 15, 5
_LIKELY = 0.5
_LEAST = 0.1
_MOST = 1000
_FEWEST_FOLDS = 2
#: Models that would name less than this share of the errors are told to be weak.
_WEAK = 0.2


class Audit:
    """Ranks boxes and images that look wrong to models that never saw them; writes `audit.json` for the review."""

    def arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", help="a dataset")
        parser.add_argument("--folds", type=int, default=4, metavar="K", help="how many parts, each judged by a model of the others")
        parser.add_argument("--detector", default="fcos_mobilenet_v2", help="what is trained on each part (default: %(default)s)")
        parser.add_argument("--image-size", type=int, default=320, metavar="PX")
        parser.add_argument("--epochs", type=int, default=15, metavar="N")
        parser.add_argument(
            "--fold-budget", type=float, default=180.0, metavar="S", help="seconds of training a part (default: %(default)s)"
        )
        parser.add_argument("--device", default="auto")
        parser.add_argument(
            "--top", type=int, metavar="N", help=f"keep the N likeliest (default: those that are worth a look, {_MOST} at most)"
        )
        parser.add_argument(
            "--lookalikes", action="store_true", help="instead: pairs of kept images that a network finds alike, no hash did"
        )
        parser.add_argument("--cosine", type=float, default=0.9, metavar="C", help="with --lookalikes: from here on (default: %(default)s)")

    def run(self, arguments: Namespace, console: Console) -> dict[str, Any]:
        if arguments.folds < _FEWEST_FOLDS:
            raise UsageError(f"--folds {arguments.folds}: at least {_FEWEST_FOLDS}, for each part is judged by a model of the others")
        if arguments.top is not None and arguments.top < 1:
            raise UsageError(f"--top {arguments.top}: at least 1")
        dataset = console.workspace.dataset(arguments.name)
        recipe = definition.load(dataset)
        if arguments.lookalikes:
            return self._lookalikes(dataset, recipe, arguments, console)
        place_of(arguments.detector)
        records, document = labelled(dataset, recipe)
        if console.dry_run:
            console.out(f"would train {arguments.folds} small models on {len(records)} labelled images")
            return {"images": len(records), "suspects": []}
        from train.loop.folds import FoldPlan, cross_predict

        options = {
            "detector": arguments.detector,
            "image_size": arguments.image_size,
            "epochs": arguments.epochs,
            "time_budget_s": arguments.fold_budget,
            "device": arguments.device,
        }
        with exclusive(dataset.locks / "audit", f"audit {dataset.name}"):
            near = clusters([record.phash for record in records], None, recipe.collect.near_duplicate_bits)
            groups = [record.group or f"near {cluster}" for record, cluster in zip(records, near, strict=True)]
            plan = FoldPlan(arguments.folds, 0, options)
            results = cross_predict(document, dataset.images, groups, dataset.folder / ".cache" / "audit", plan, console.say)
            found = audit(*from_coco(document, results))
            known = worth(document, results)
            if arguments.top is None:
                named = [suspect for suspect in found if known.names(suspect)][:_MOST]
            else:  # a whole image is named where it is likely wrong; by its lesser suspicions its boxes are listed anyway
                named = [s for s in found if s.score >= (_LIKELY if s.kind == Suspicion.IMAGE else _LEAST)][: arguments.top]
            suspects = [suspect.to_json() for suspect in named]
            write_atomic(dataset.folder / "audit.json", json.dumps(suspects, ensure_ascii=False, indent=1) + "\n")
        self._tell(arguments.name, suspects, console)
        if arguments.top is None:
            _tell_worth(known, arguments, console)
        return {"images": len(records), "path": str(dataset.folder / "audit.json"), "finds": known.found, "suspects": suspects}

    def _lookalikes(self, dataset: Dataset, recipe: definition.Definition, arguments: Namespace, console: Console) -> dict[str, Any]:
        if not 0 < arguments.cosine <= 1:
            raise UsageError(f"--cosine {arguments.cosine:g} must lie above 0 and not above 1")
        with Ledger(dataset.ledger) as ledger, Journal(dataset.labels) as journal:
            labels = current(journal)
            records = [r for r in ledger.images() if labels.get(r.sha256, ImageLabels()).verdict != Verdict.REJECTED]
        if console.dry_run:
            console.out(f"would hold {len(records)} images against each other")
            return {"images": len(records), "pairs": []}
        from annotate.review.lookalikes import path_of, reason, write
        from train.loop.lookalikes import lookalikes

        with exclusive(dataset.locks / "audit", f"audit {dataset.name}"):
            pairs = write(
                dataset, lookalikes(dataset, records, arguments.cosine, arguments.top or _MOST, recipe.collect.near_duplicate_bits)
            )
        rows = [(pair.image[:12], reason(pair, pair.image)) for pair in pairs[:_SHOWN]]
        if not pairs:
            console.out(f"no two of {len(records):,} images look alike from {arguments.cosine:g} on; a lower --cosine asks for more")
        else:
            console.table(("image", "why"), rows, title=f"{len(pairs):,} pairs look alike{_part(rows, len(pairs))}")
            console.out(
                f"`boxwright review {dataset.name}` shows them first; D puts them side by side. Nothing is removed without a person"
            )
        if len(pairs) == (arguments.top or _MOST):
            console.say(f"there may be more: these are the {len(pairs)} closest; a higher --cosine asks for fewer")
        return {"images": len(records), "path": str(path_of(dataset)), "pairs": [vars(pair) for pair in pairs]}

    def _tell(self, name: str, suspects: list[dict[str, Any]], console: Console) -> None:
        if not suspects:
            console.out("no suspects that are worth a look")
            return
        rows = [(s["kind"], s["image"][:12], float(s["score"]), s["why"]) for s in suspects if s["kind"] != "image"]
        likely = sum(row[2] > _LIKELY for row in rows)
        title = f"{len(rows):,} suspects, {likely} of them above {_LIKELY:.2f}{_part(rows[:_SHOWN], len(rows))}"
        console.table(("kind", "image", "score", "why"), rows[:_SHOWN], title=title)
        whole = [s["image"][:12] for s in suspects if s["kind"] == "image"]
        if whole:
            images = "1 image looks" if len(whole) == 1 else f"{len(whole)} images look"
            console.out(f"{images} wrong as a whole: {', '.join(whole[:_SHOWN_WHOLE])}{' …' if len(whole) > _SHOWN_WHOLE else ''}")
        console.out(f"`boxwright review {name}` shows them first")


def _tell_worth(known: Worth, arguments: Namespace, console: Console) -> None:
    """How much the list is worth, as errors made on purpose have shown."""
    fewer = f"fewer than one in {1 / WORTH_A_LOOK:.0f}"
    console.out(
        f"the list ends where {fewer} would be an error; of errors made on purpose in these labels such a list names {known.found:.0%}"
    )
    if known.found < _WEAK:
        console.out(
            f"the models are too weak to tell more: give each fold longer (--fold-budget, now {arguments.fold_budget:g} s) or label more "
            "images; --top N names the N likeliest all the same"
        )


def _part(shown: Sequence[object], whole: int) -> str:
    return f"; the first {len(shown)}" if len(shown) < whole else ""


def labelled(dataset: Dataset, recipe: definition.Definition) -> tuple[list[ImageRecord], dict[str, Any]]:
    """The images that somebody labelled and accepted, in the order of the COCO document of their boxes as they are now.

    Raises:
        UsageError: there is none.
    """
    with Ledger(dataset.ledger) as ledger, Journal(dataset.labels) as journal:
        labels = current(journal)
        records = [r for r in ledger.images() if labels.get(r.sha256, ImageLabels()).verdict == Verdict.ACCEPTED]
    if not records:
        raise UsageError(f"{dataset.name} has no accepted image to audit; `boxwright review {dataset.name}` or `boxwright import` first")
    ids = Ids(StableIds({}, 1), StableIds({}, 1))
    drawn = draft(recipe, records, labels, {record.sha256: "" for record in records}, ids, unreviewed=False)
    return records, drawn.document()


AUDIT = Audit()
