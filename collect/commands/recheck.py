"""`boxwright recheck`: visit sources again; revoke what was taken down, opted out or relicensed."""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace
from dataclasses import replace
from typing import Any

from collect import definition as definitions
from collect.console import Console
from collect.files import exclusive
from collect.records import Reason

_REASONS = (Reason.TAKEN_DOWN, Reason.OPTED_OUT, Reason.RELICENSED)


class RecheckVerb:
    """Looks whether every kept image is still offered, and on terms that the definition allows."""

    def arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", help="a dataset")
        parser.add_argument(
            "--allow-address", action="append", default=[], metavar="IP", help="an address or network of your own, else refused as private"
        )
        parser.add_argument("--impolite", action="store_true", help="no limit per domain, no robots.txt: for your own servers only")

    def run(self, arguments: Namespace, console: Console) -> dict[str, Any]:
        from collect.ledger import Ledger
        from collect.pipeline import DownloadSettings
        from collect.recheck import Recheck
        from collect.sources.source import SourceSettings, settings_for

        dataset = console.workspace.dataset(arguments.name)
        definition = definitions.load(dataset)
        addresses, polite = tuple(arguments.allow_address), not arguments.impolite

        def told(name: str) -> SourceSettings:
            return replace(settings_for(name, definition), allow_addresses=addresses, polite=polite)

        began = time.monotonic()
        with exclusive(dataset.locks / "collect", f"recheck {dataset.name}"), Ledger(dataset.ledger) as ledger:
            recheck = Recheck(ledger, definition, DownloadSettings(allow_addresses=addresses, polite=polite), dry_run=console.dry_run)
            with console.progress("visiting", ledger.num_images()) as advance:
                result = recheck.run(told, advance)
            kept = ledger.num_images()
        revoked = {str(reason): result.revoked[reason] for reason in _REASONS}
        for name, why in result.not_asked.items():
            console.say(f"{name} could not be asked for licences: {why}")
        console.table(("revoked because", "images"), [(reason.replace("_", " "), number) for reason, number in revoked.items()])
        verb = "would be revoked" if console.dry_run else "revoked"
        lost = f"{result.unreachable:,} not reached and left as they are"
        console.out(f"{result.checked:,} images visited, {sum(revoked.values()):,} {verb}, {lost}; {kept:,} kept")
        return {
            "checked": result.checked,
            "revoked": revoked,
            "unreachable": result.unreachable,
            "not_on_the_web": result.skipped,
            "kept": kept,
            "pages_asked": dict(result.pages_asked),
            "not_asked": result.not_asked,
            "seconds": round(time.monotonic() - began, 3),
        }


RECHECK = RecheckVerb()
