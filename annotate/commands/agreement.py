"""`boxwright agreement`: how far reviewers agree, and the images they differ on."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from collect.console import Console


class Agreement:
    """Compares second opinions and gold images with the dataset's labels."""

    def arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", help="the dataset")
        parser.add_argument("--queue", action="store_true", help="put the images that reviewers differ on at the head of queue.json")
        parser.add_argument("--top", type=int, default=20, help="disagreements to list (default: %(default)s)")

    def run(self, arguments: Namespace, console: Console) -> dict[str, Any]:
        from annotate.journal import Journal
        from annotate.review.agreement import agreement
        from annotate.review.effort import effort
        from annotate.review.queue import put_first
        from annotate.state import current
        from collect.definition import load

        dataset = console.workspace.dataset(arguments.name)
        definition = load(dataset)
        with Journal(dataset.labels) as journal:
            result = agreement(dataset, definition, current(journal))
            result["effort"] = effort(journal).as_document()
        self._show(console, definition.class_names, result, arguments.top)
        if arguments.queue and not console.dry_run:
            result["queued"] = put_first(dataset, result["disagreements"])
            console.say(f"{result['queued']} image(s) stand first in {dataset.folder / 'queue.json'}")
        return result

    def _show(self, console: Console, names: list[str], result: dict[str, Any], top: int) -> None:
        if not result["pairs"]:
            console.out(
                "No image was seen by two reviewers yet. Once a second one works (`boxwright review NAME --reviewer OTHER`),"
                " a share of [annotate] overlap is shown to both."
            )
        else:
            rows = [[row[key] for key in ("reviewer", "other", "kind", "images", "f1", "kappa", "same_verdict")] for row in result["pairs"]]
            console.table(["reviewer", "against", "kind", "images", "F1", "kappa", "same verdict"], rows)
            rows = [
                [row["reviewer"], row["other"], row["kind"], name, row["per_class"][name]]
                for row in result["pairs"]
                for name in names
                if name in row["per_class"]
            ]
            console.table(["reviewer", "against", "kind", "class", "F1"], rows)
        if result["disagreements"]:
            rows = [
                [row["image"][:12], row["reviewer"], row["other"], row["score"], row["reason"]] for row in result["disagreements"][:top]
            ]
            console.table(["image", "reviewer", "against", "score", "reason"], rows, title="They differ on")


AGREEMENT = Agreement()
