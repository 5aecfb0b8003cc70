"""`boxwright collect`: find, download, check and record images."""

from __future__ import annotations

import importlib
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from collect import definition as definitions
from collect.console import Console
from collect.definition import Definition
from collect.errors import MissingServiceError, UsageError
from collect.files import exclusive
from collect.licenses import allows, check_entry
from collect.workspace import Dataset

if TYPE_CHECKING:
    from pathlib import Path

    from collect.gather import Gathered, LimitedPipeline
    from collect.sources.source import Source

#: What downloads -> its pipeline, and the HTTP client that it uses.
ENGINES = {
    "local": ("collect.gather:LimitedPipeline", "aiohttp"),
    "pycurl": ("collect.gather:LimitedPipeline", "pycurl"),
    "ray": ("collect.ray_engine:RayPipeline", "aiohttp"),
}


class Collect:
    """Searches sources for the classes of a definition and downloads what they offer, until the quotas are met."""

    def arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", help="a dataset")
        parser.add_argument(
            "--source",
            action="append",
            metavar="S",
            help="openverse, wikimedia, …, page:URL, urls:FILE, folder:DIR, video:FILE; repeatable",
        )
        parser.add_argument("--limit", type=int, default=0, metavar="N", help="keep at most N images in this call")
        parser.add_argument("--again", action="store_true", help="ask also what had no more when it was asked within the last week")
        parser.add_argument("--license", metavar="SPDX", help="the licence of what sources without one bring: your word, recorded as such")
        parser.add_argument(
            "--allow-address", action="append", default=[], metavar="IP", help="an address or network of your own, else refused as private"
        )
        parser.add_argument("--impolite", action="store_true", help="no limit per domain, no robots.txt: for your own servers only")
        parser.add_argument(
            "--engine", choices=list(ENGINES), default="local",
            help="what downloads: aiohttp (local), libcurl (pycurl: less CPU) or Ray workers (ray); the last two are extras",
        )  # fmt: skip

    def run(self, arguments: Namespace, console: Console) -> dict[str, Any]:
        dataset = console.workspace.dataset(arguments.name)
        definition = definitions.load(dataset)
        licence = _checked(arguments, definition, console)
        names = list(dict.fromkeys(arguments.source or definition.collect.sources))
        if not names:
            raise UsageError(f"{dataset.definition} names no sources; add them under [collect], or give --source")
        if console.dry_run:
            return _plan(definition, names, console)
        arguments.license = licence
        with exclusive(dataset.locks / "collect", f"collect {dataset.name}"):
            return _collect(dataset, definition, names, arguments, console)


def _checked(arguments: Namespace, definition: Definition, console: Console) -> str | None:
    """What can be wrong in the arguments, before anything is done; returns `--license` as an SPDX id."""
    from collect.sources.source import check_names

    check_names(definition)
    if arguments.limit < 0:
        raise UsageError(f"--limit {arguments.limit} keeps less than nothing; give a number above 0")
    if arguments.license is None:
        return None
    spdx = check_entry(arguments.license)
    if not allows(definition.collect.licenses, spdx):
        console.say(
            f"note: {spdx} is not among the definition's licenses ({', '.join(definition.collect.licenses)}); such images are refused"
        )
    return spdx


def _collect(dataset: Dataset, definition: Definition, names: list[str], arguments: Namespace, console: Console) -> dict[str, Any]:
    from collect.contact_sheet import write_report
    from collect.gather import Gathering
    from collect.ledger import Ledger
    from collect.live import live_table
    from collect.pipeline import DownloadSettings
    from collect.sources.source import open_source, settings_for

    addresses = tuple(arguments.allow_address)
    told = {"license": arguments.license, "allow_addresses": addresses, "polite": not arguments.impolite}
    sources = {name: open_source(name, replace(settings_for(name, definition), **told)) for name in names}
    _tell_terms(sources.values(), console)
    Ledger(dataset.ledger).close()  # a new one is laid out by one connection, before several open it
    engine, client = ENGINES[arguments.engine]
    settings = DownloadSettings(allow_addresses=addresses, polite=not arguments.impolite, client=client)
    gathering = Gathering(dataset, definition, sources, settings, _pipeline(engine))
    try:
        with live_table(dataset.ledger, definition, quiet=console.quiet):
            gathered = gathering.run(arguments.limit, restart=arguments.again or bool(arguments.license))
    except KeyboardInterrupt:
        console.say("interrupted: report.html is being written; Ctrl-C again ends at once")
        with Ledger(dataset.ledger) as ledger:
            write_report(dataset, ledger, definition, gathering.ends)
        raise
    with Ledger(dataset.ledger) as ledger:
        report = write_report(dataset, ledger, definition, gathered.ends)
    in_vain = gathered.closed.keys() == sources.keys() and not any(gathered.states.values())
    _tell(console, dataset.name, gathered, report, in_vain=in_vain, addresses=addresses)
    result = {
        "states": gathered.states,
        "reasons": gathered.reasons,
        "seconds": round(gathered.seconds, 3),
        "images_per_second": round(gathered.images_per_second, 3),
        "verdict": gathered.verdict,
        "closed_sources": gathered.closed,
        "waiting": gathered.waiting,
        "report": str(report),
    }
    if in_vain:
        console.document(result)
        raise MissingServiceError(f"nothing came: {gathered.verdict}")
    return result


def _tell(console: Console, name: str, gathered: Gathered, report: Path, *, in_vain: bool, addresses: tuple[str, ...]) -> None:
    """How a collection ended, in words; of one whose sources all refused (`in_vain`) its error tells."""
    for source, why in gathered.closed.items():
        if why not in gathered.verdict:
            console.say(f"{source} was given up: {why}")
    if not in_vain:
        console.table(("state", "URLs in this call"), sorted(gathered.states.items()), title=name)
        console.out(f"{gathered.verdict}. {gathered.states['KEPT']:,} images kept in {gathered.seconds:.1f} s; see {report}")
    if gathered.reasons.get("DENIED(address)") and not addresses:
        console.say("addresses that are not public were refused; if they are your own servers, give --allow-address and run this again")
    if gathered.waiting:
        console.say(f"{gathered.waiting:,} URLs still wait (for a retry, or beyond quota and limit); run the same command again to go on")


def _tell_terms(sources: Iterable[Source], console: Console) -> None:
    names = [source.name for source in sources if source.terms == "restricted"]
    if names:
        console.say(f"note: the terms of {', '.join(names)} restrict what results may be used for; to use them is your decision")


def _pipeline(place: str) -> type[LimitedPipeline]:
    module, _, attribute = place.partition(":")
    return cast("type[LimitedPipeline]", getattr(importlib.import_module(module), attribute))


def _plan(definition: Definition, names: list[str], console: Console) -> dict[str, Any]:
    """What a call would ask, for `--dry-run`; sources are opened, so that a wrong name or a missing key shows."""
    from collect.planner import is_explicit
    from collect.sources.source import open_source, settings_for

    sources = [open_source(name, settings_for(name, definition)) for name in names]
    for source in sources:
        source.close()
    _tell_terms(sources, console)
    rows = [
        (name, entry.name, name.partition(":")[2] if is_explicit(name) else ", ".join(entry.queries or (entry.name,)), entry.quota)
        for name in names
        for entry in definition.classes
    ]
    console.table(("source", "class", "queries", "quota"), rows, title="would ask")
    return {"would_ask": [dict(zip(("source", "class", "queries", "quota"), row, strict=True)) for row in rows]}


COLLECT = Collect()
