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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from annotate.journal import Journal
from annotate.review.simulated import Effort, Truth, simulate
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


@dataclass
class Story:
    """What the demo has done so far."""

    console: Console
    dataset: Dataset
    seconds: dict[str, float] = field(default_factory=dict)
    efforts: dict[str, Effort] = field(default_factory=dict)
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """A step of the story: its title before it, its time kept."""
        self.console.say(f"\n── {title} " + "─" * max(0, 90 - len(title)))
        started = time.perf_counter()
        yield
        self.seconds[title] = round(time.perf_counter() - started, 1)

    def command(self, verb: str, *words: str) -> dict[str, Any]:
        """Run `boxwright VERB …` as a person would, in this process; returns its result document."""
        import boxwright

        self.console.say(f"$ boxwright {verb} {' '.join(words)}")
        implementation = boxwright.resolve(verb)
        arguments = boxwright.parser_for(verb, implementation).parse_args(list(words))
        return implementation.run(arguments, self.console) or {}


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
        if dataset.release_names():
            raise UsageError(f"{dataset.folder} holds a finished demo; look at it, or choose another --root to run it again")
        story = Story(console, dataset)
        with _site(story, arguments.scenes) as site:
            console.say(f"{arguments.scenes} scenes at {site.base_url}: two search services, albums, robots.txt, broken and doubled files")
            _collect(story, site)
            self._first_round(story, site, arguments)
            self._second_round(story, site, arguments)
        return _told(story)

    def _first_round(self, story: Story, site: Site, arguments: Namespace) -> None:
        with story.step("a reviewer draws the first batch"):
            first = _truths(story.dataset, site)
            story.efforts["draw"] = _review(story, first[: int(len(first) * FIRST_BATCH)])
        with story.step("the first release"):
            story.command("release", NAME)
        if not arguments.no_app:
            with story.step("the same images in the FiftyOne App"):
                _open_app(story)
        with story.step("train on ImageNet weights; the first champion"):
            story.runs["v001"] = story.command("retrain", NAME, *_budget(arguments.train_seconds))
        with story.step("another family, the same release: torchvision's SSDLite"):
            story.runs["ssdlite"] = story.command(
                "train", NAME, "--detector", "ssdlite320_mobilenet_v3_large", *_budget(arguments.train_seconds // 2)
            )

    def _second_round(self, story: Story, site: Site, arguments: Namespace) -> None:
        with story.step("the champion proposes boxes for the rest"):
            story.command("propose", NAME, "--from", "run:champion")
        with story.step("the reviewer accepts, corrects or rejects them"):
            story.efforts["correct"] = _review(story, _truths(story.dataset, site))
        with story.step("retrain: the second release, a warm start, and the gate"):
            story.runs["v002"] = story.command("retrain", NAME, *_budget(arguments.train_seconds))
            story.command("diff", NAME, "v001", "v002", "--html", str(story.dataset.folder / "diff-v001-v002.html"))
        with story.step("every byte as it was written?"):
            story.command("verify", NAME)


@contextmanager
def _site(story: Story, scenes: int) -> Iterator[Site]:
    with story.step("a small internet on this machine"):
        site = Site(scenes, fragments=False)  # so that the pages are read by a real browser
    with site:
        yield site


def _budget(cpu_seconds: int) -> tuple[str, ...]:
    """Options that bound a training by CPU-seconds: what it learns does not hang on what else the machine is doing."""
    return "--time-budget", str(cpu_seconds), "--budget-clock", "cpu"


def _collect(story: Story, site: Site) -> None:
    with story.step("collect: search, download, check, record"):
        text = SHIPPED.read_text()
        urls = ", ".join(f'{json.dumps(source)} = "{site.base_url}"' for source in SOURCES)
        text = text.replace("[collect]\n", f"[collect]\nbase_urls = {{ {urls} }}\n", 1)
        definition.parse(SHIPPED, text)
        write_atomic(story.dataset.definition, text)
        os.environ.setdefault(key_variable("bing-api"), "any key will do here")
        story.command("collect", NAME, "--allow-address", "127.0.0.1")
        story.command("status", NAME)


def _truths(dataset: Dataset, site: Site) -> list[Truth]:
    """What a perfect reviewer would draw on the images nobody has judged yet."""
    with Ledger(dataset.ledger) as ledger, Journal(dataset.labels) as journal:
        judged = {event.image for event in journal.events() if not event.box}
        return [
            Truth(record.sha256, record.width, record.height, site.truth(record.sha256))
            for record in ledger.images()
            if record.sha256 not in judged
        ]


def _review(story: Story, truths: list[Truth]) -> Effort:
    with Journal(story.dataset.labels) as journal:
        effort = simulate(journal, definition.load(story.dataset), truths)
        journal.seal()
    story.console.say(
        f"{effort.images} images: {effort.draws} boxes drawn, {effort.corrections} corrected, {effort.accepts} accepted as proposed, "
        f"{effort.deletions} thrown out; a person would need {effort.seconds / 60:.0f} minutes"
    )
    return effort


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


def _told(story: Story) -> dict[str, Any]:
    efforts = {name: vars(effort) for name, effort in story.efforts.items()}
    result = {
        "path": str(story.dataset.folder),
        "releases": story.dataset.release_names(),
        "runs": story.runs,
        "effort": efforts,
        "seconds": story.seconds,
    }
    write_atomic(story.dataset.folder / "demo.json", json.dumps(result, indent=2, default=str) + "\n")
    drawn, corrected = story.efforts["draw"], story.efforts["correct"]
    per_image = [effort.seconds / max(1, effort.images) for effort in (drawn, corrected)]
    story.console.table(("step", "seconds"), list(story.seconds.items()), title="what took how long")
    story.console.out(
        f"An image cost the reviewer {per_image[0]:.0f} s to draw, {per_image[1]:.0f} s with the champion's proposals.\n"
        f"{story.runs['v002'].get('reason', '')}\n"
        f"Look at {story.dataset.folder / 'report.html'} (what was collected), "
        f"{story.dataset.runs / story.runs['v002']['run'] / 'report.html'} (the detector)."
    )
    return result


DEMO = Demo()
