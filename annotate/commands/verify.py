"""`boxwright verify`: exits 0 only if every byte of journal, images and releases is as written."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from annotate.journal import Journal
from annotate.verify import problems
from collect.console import Console
from collect.errors import CorruptError


class VerifyVerb:
    """Checks a dataset to the last byte."""

    def arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", help="a dataset")

    def run(self, arguments: Namespace, console: Console) -> dict[str, Any]:
        dataset = console.workspace.dataset(arguments.name)
        with console.progress("checking images") as advance:
            found = list(problems(dataset, advance))
        if found:
            console.document({"ok": False, "problems": found})
            raise CorruptError(f"{len(found)} things are not as they were written:\n" + "\n".join(f"  {problem}" for problem in found))
        if dataset.labels.exists() and not console.dry_run:
            with Journal(dataset.labels) as journal:
                journal.seal()  # what was just found whole is under watch from now on, to the last byte
        console.out(f"{dataset.name}: journal, images and {len(dataset.release_names())} releases are as they were written")
        return {"ok": True, "problems": []}


VERIFY = VerifyVerb()
