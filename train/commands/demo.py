"""`boxwright demo`: the whole loop, twice round, on a small internet of its own.

The demo types the same commands as a person would and shows them. Only two things stand in for the world: the site on
127.0.0.1 that serves the pictures, and the reviewer, who knows the true boxes and goes through the functions behind the
App's buttons.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from annotate.journal import Journal
from annotate.review.simulated import Truth, simulate
from collect import definition
from collect.console import Console
from collect.demo.site import Site
from collect.errors import MissingServiceError, UsageError
from collect.files import write_atomic
from collect.ledger import Ledger
from collect.sources.photograph import photograph
from collect.sources.source import key_variable
from collect.workspace import Dataset

NAME = "demo"
SHIPPED = Path(__file__).parent.parent.parent / "datasets" / NAME / "dataset.toml"
SOURCES = ("openverse", "bing-api", "bing-images")
FIRST_BATCH = 0.5
#: What each step gave and how long it took, beside the dataset: a demo that was interrupted goes on at the step it was in.
KEPT = "demo.json"


@dataclass
class Story:
    """What the demo has done so far: the result and the seconds of each step by its title."""

    console: Console
    dataset: Dataset
    port: int = 0
    results: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def step(self, title: str, act: Callable[[], Any]) -> Any:
        """Do a step of the story, or go by what it gave when it was done before; returns its result (as JSON has it)."""
        self.console.say(f"\n── {title} " + "─" * max(0, 90 - len(title)))
        if title in self.seconds:
            self.console.say(f"done before, in {self.seconds[title]} s")
            return self.results[title]
        started = time.perf_counter()
        self.results[title] = act()
        self.seconds[title] = round(time.perf_counter() - started, 1)
        self.keep()
        return self.results[title]

    def keep(self) -> None:
        kept = {"port": self.port, "results": self.results, "seconds": self.seconds}
        write_atomic(self.dataset.folder / KEPT, json.dumps(kept, indent=2, default=str) + "\n")

    def command(self, verb: str, *words: str) -> dict[str, Any]:
        """Run `boxwright VERB …` as a person would, in this process; returns its result document."""
        import boxwright

        self.console.say(f"$ boxwright {verb} {' '.join(words)}")
        implementation = boxwright.resolve(verb)
        arguments = boxwright.parser_for(verb, implementation).parse_args(list(words))
        try:
            return implementation.run(arguments, self.console) or {}
        except KeyboardInterrupt as stop:
            # What the verb would have typed to go on is not how the demo goes on.
            raise KeyboardInterrupt from stop


class Demo:
    """Collect → review → release → train → propose → review → release → retrain, in minutes."""

    def arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--scenes", type=int, default=400, help="pictures on the demo's site (default: %(default)s)")
        parser.add_argument(
            "--train-seconds", type=int, default=120, help="CPU-seconds per training of the small detector (default: %(default)s)"
        )
        parser.add_argument("--no-app", action="store_true", help="do not open the App and take its picture")

    def run(self, arguments: Namespace, console: Console) -> dict[str, Any]:
        dataset = console.workspace.new_dataset(NAME)
        if console.dry_run:
            console.out(f"would build {dataset.folder} from a site on 127.0.0.1, twice round the loop")
            return {"path": str(dataset.folder)}
        story = _begun(console, dataset)
        if LAST_STEP in story.seconds:
            raise UsageError(f"{dataset.folder} holds a finished demo; look at it, or choose another --root to run it again")
        site = _site(story, arguments.scenes)
        with site:
            console.say(f"{arguments.scenes} scenes at {site.base_url}: two search services, albums, robots.txt, broken and doubled files")
            story.step("collect: search, download, check, record", lambda: _collect(story, site))
            drawn = story.step("a reviewer draws the first batch", lambda: _review(story, site, FIRST_BATCH))
            self._first_round(story, arguments)
            corrected, run = self._second_round(story, site, arguments)
        return _told(story, drawn, corrected, run)

    def _first_round(self, story: Story, arguments: Namespace) -> None:
        seconds = arguments.train_seconds
        story.step("the first release", lambda: story.command("release", NAME))
        if not arguments.no_app:
            story.step("the same images in the FiftyOne App", lambda: _open_app(story))
        story.step("train on ImageNet weights; the first champion", lambda: story.command("retrain", NAME, *_budget(seconds)))
        story.step(
            "another family, the same release: torchvision's SSDLite",
            lambda: story.command("train", NAME, "--detector", "ssdlite320_mobilenet_v3_large", *_budget(seconds // 2)),
        )

    def _second_round(self, story: Story, site: Site, arguments: Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
        story.step("the champion proposes boxes for the rest", lambda: story.command("propose", NAME, "--from", "run:champion"))
        corrected = story.step("the reviewer accepts, corrects or rejects them", lambda: _review(story, site, 1.0))
        run = story.step(
            "retrain: the second release, a warm start, and the gate",
            lambda: story.command("retrain", NAME, *_budget(arguments.train_seconds)),
        )
        page = str(story.dataset.folder / "diff-v001-v002.html")
        story.step("what changed between the two", lambda: story.command("diff", NAME, "v001", "v002", "--html", page))
        story.step(LAST_STEP, lambda: story.command("verify", NAME))
        return corrected, run


LAST_STEP = "every byte as it was written?"


def _begun(console: Console, dataset: Dataset) -> Story:
    """An interrupted demo's story so far, or a new one."""
    try:
        return Story(console, dataset, **json.loads((dataset.folder / KEPT).read_bytes()))
    except FileNotFoundError:
        return Story(console, dataset)


def _site(story: Story, scenes: int) -> Site:
    """The site, at the port it had before: what an interrupted collection has seen keeps its URLs."""
    story.console.say("\n── a small internet on this machine " + "─" * 57)
    site = Site(scenes, fragments=False, port=story.port)  # no fragments: so that the pages are read by a real browser
    story.port = urlsplit(site.base_url).port or 0
    story.keep()
    return site


def _budget(cpu_seconds: int) -> tuple[str, ...]:
    """Options that bound a training by CPU-seconds: what it learns does not hang on what else the machine is doing."""
    return "--time-budget", str(cpu_seconds), "--budget-clock", "cpu"


def _collect(story: Story, site: Site) -> dict[str, Any]:
    text = SHIPPED.read_text()
    urls = ", ".join(f'{json.dumps(source)} = "{site.base_url}"' for source in SOURCES)
    text = text.replace("[collect]\n", f"[collect]\nbase_urls = {{ {urls} }}\n", 1)
    definition.parse(SHIPPED, text)
    write_atomic(story.dataset.definition, text)
    os.environ.setdefault(key_variable("bing-api"), "any key will do here")
    story.command("collect", NAME, "--allow-address", "127.0.0.1")
    return story.command("status", NAME)


def _review(story: Story, site: Site, share: float) -> dict[str, Any]:
    """A perfect reviewer judges the first `share` of the images, as far as nobody has judged them yet; what it cost."""
    with Ledger(story.dataset.ledger) as ledger, Journal(story.dataset.labels) as journal:
        records = list(ledger.images())
        judged = {event.image for event in journal.events() if not event.box}
        truths = [
            Truth(record.sha256, record.width, record.height, site.truth(record.sha256))
            for record in records[: int(len(records) * share)]
            if record.sha256 not in judged
        ]
        effort = simulate(journal, definition.load(story.dataset), truths)
        journal.seal()
    story.console.say(
        f"{effort.images} images: {effort.draws} boxes drawn, {effort.corrections} corrected, {effort.accepts} accepted as proposed, "
        f"{effort.deletions} thrown out; a person would need {effort.seconds / 60:.0f} minutes"
    )
    return asdict(effort)


def _open_app(story: Story) -> None:
    """Start `boxwright review` as a person would, look at it with a real browser, and end it."""
    words = ["review", NAME, "--reviewer", "demo", "--no-open", "--port", "0", "--json", "--root", str(story.console.workspace.root)]
    story.console.say(f"$ boxwright {' '.join(words[:4])}")
    log = story.dataset.folder / "review.log"
    with log.open("wb") as errors:
        app = subprocess.Popen([sys.executable, "-m", "boxwright", *words], stdout=subprocess.PIPE, stderr=errors, text=True)
        try:
            assert app.stdout is not None
            line = app.stdout.readline()
            if not line:
                raise MissingServiceError(f"the App did not start: {log.read_text().strip().splitlines()[-1:]}")
            story.console.say(f"the App is up; its picture: {_photograph(json.loads(line)['url'], story.dataset.folder / 'app.png')}")
        finally:
            app.send_signal(signal.SIGINT)
            app.wait(timeout=60)


def _photograph(url: str, path: Path) -> str:
    """The path of a picture of the App; where there is no browser, the word that says so."""
    try:
        return str(photograph(url, path, "[data-cy=fo-grid] canvas, [data-cy=looker], .looker"))
    except MissingServiceError as error:
        return f"none ({error})"


def _told(story: Story, drawn: dict[str, Any], corrected: dict[str, Any], run: dict[str, Any]) -> dict[str, Any]:
    """The end of the story: what took how long, what a reviewer saved, what the gate said, and what to look at."""
    per_image = [effort["seconds"] / max(1, effort["images"]) for effort in (drawn, corrected)]
    story.console.table(("step", "seconds"), list(story.seconds.items()), title="what took how long")
    story.console.out(
        f"An image cost the reviewer {per_image[0]:.0f} s to draw, {per_image[1]:.0f} s with the champion's proposals.\n"
        f"{run.get('reason', '')}\n"
        f"Look at {story.dataset.folder / 'report.html'} (what was collected), "
        f"{story.dataset.runs / run['run'] / 'report.html'} (the detector)."
    )
    return {"path": str(story.dataset.folder), "releases": story.dataset.release_names(), "steps": story.results, "seconds": story.seconds}


DEMO = Demo()
