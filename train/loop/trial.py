"""Champion against challenger: whether they can be compared at all, and what comes of it.

Nothing is moved here: a trial ends in a document for `gate.json`. Whoever asked for it writes that first and crowns then, so that
a kill in between loses neither.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from collect.definition import Definition
from collect.errors import RefusedError
from collect.ledger import Ledger
from collect.records import State
from collect.workspace import Dataset
from train.data.release import Release, open_release
from train.fitting import config
from train.judging.inputs import read_detections
from train.loop.champion import Champion
from train.loop.evidence import Candidate, gather
from train.loop.gate import Policy, check_frozen, decide, document
from train.serving.predictor import Predictor, detect_split

Say = Callable[[str], None]


def objection(
    dataset: Dataset, definition: Definition, champion: Champion | None, version: str, split_of: Mapping[str, str], say: Say
) -> str:
    """Why a challenger that learns from a release cannot be compared with the champion on its test images; "" where it can.

    The release need not be written yet: it is given as its version and the split of each image by sha256.
    """
    if champion is None:
        return ""
    before = open_release(dataset, champion.release)
    theirs = [category.name for category in config.read(dataset.runs / champion.run).categories]
    if not any(definition.current(name) for name in theirs):
        return (
            f"the champion {champion.run} knows {', '.join(theirs)}, and none of that is a class of {dataset.name} now; "
            "declare renamed classes with `was` in dataset.toml, or begin anew with --force"
        )
    missing = len(before.split_of) - len(split_of)
    if missing > 0:
        images = "image" if missing == 1 else "images"
        say(f"{version} has {missing} {images} fewer than {before.version}, which the champion was trained on")
    with Ledger(dataset.ledger) as ledger:
        revoked = {record.sha256 for record in ledger.images(State.REVOKED)}
    seen = {*before.splits["train"].sha256_I, *before.splits["val"].sha256_I}
    try:
        check_frozen(before.splits["test"].sha256_I, [sha256 for sha256, split in split_of.items() if split == "test"], seen, revoked)
    except RefusedError as error:
        return str(error)
    return ""


def called_there(definition: Definition, released: Sequence[str]) -> dict[str, str]:
    r"""Former class name → what a release calls it. It may be older than the definition: a class is renamed while a retrain waits.

    >>> from pathlib import Path
    >>> from collect.definition import parse, template
    >>> text = template("pets", [(1, "cat")]).replace('name = "cat"', 'name = "cat"\nwas = ["kitty", "tom"]')
    >>> [called_there(parse(Path("x.toml"), text), names) for names in (["cat"], ["kitty"])]
    [{'kitty': 'cat', 'tom': 'cat'}, {'tom': 'kitty', 'cat': 'kitty'}]
    """
    result: dict[str, str] = {}
    for entry in definition.classes:
        names = (*entry.was, entry.name)
        there = [name for name in names if name in released]
        if there:
            result |= {name: there[-1] for name in names if name not in there}
    return result


@dataclass(frozen=True)
class Trial:
    """What is compared, and where. `device` is what the champion detects on; `force` promotes whatever comes of it."""

    dataset: Dataset
    definition: Definition
    release: Release
    champion: Champion | None
    device: str = "auto"
    force: bool = False

    def judge(self, run: str, objection: str = "") -> dict[str, Any]:
        """The document of the verdict on a trained run.

        Raises:
            RefusedError: the two have no category in common (not with `force`).
        """
        if self.champion is None:
            return self._first(run)
        aliases = called_there(self.definition, [category.name for category in self.release.categories])
        after = Candidate(
            config.read(self.dataset.runs / run).categories, read_detections(self.dataset.runs / run / "detections-test.json")
        )
        try:
            evidence = gather(self.release.documents["test"], self._candidate(self.champion.run), after, aliases)
        except RefusedError as error:
            if not self.force:
                raise
            return self._uncompared(run, self.champion.run, f"{objection} {error}".strip())
        policy = Policy(epsilon=self.definition.train.epsilon)
        verdict = decide(evidence, policy)
        result = document(evidence, verdict, policy)
        forced = self.force and not verdict.promoted
        if forced:
            result |= {"verdict": "promoted", "reason": f"promoted by --force, although {verdict.reason}"}
        return {
            **result,
            "forced": forced or bool(objection),
            "frozen": f"promoted by --force, against this: {objection}" if objection else self._stayed_frozen(self.champion.release),
            "run": run,
            "release": self.release.version,
            "champion": run if verdict.promoted or forced else self.champion.run,
            "champion_before": self.champion.run,
        }

    def _stayed_frozen(self, before: str) -> str:
        return (
            f"both models were judged on the {len(self.release.splits['test'].sha256_I)} test images of {self.release.version}; all of "
            f"{before}'s that were not revoked are among them, and the champion was trained on none"
        )

    def _candidate(self, run: str) -> Candidate:
        """A run on this release's test images."""
        predictor = Predictor.from_run(self.dataset.runs / run, self.device)
        results, _ = detect_split(predictor, self.release.splits["test"], self.release.images)
        return Candidate(predictor.categories, results)

    def _first(self, run: str) -> dict[str, Any]:
        """The first run is the champion because there is no other; said in so many words, with nothing compared."""
        metrics = json.loads((self.dataset.runs / run / "metrics.json").read_bytes())
        return {
            "verdict": "promoted",
            "finding": "first",
            "reason": "promoted: the first champion; there was nothing to compare it with",
            "delta_ap": None,
            "interval": None,
            "challenger_ap": metrics.get("test", {}).get("AP"),
            "run": run,
            "release": self.release.version,
            "champion": run,
            "forced": False,
        }

    def _uncompared(self, run: str, before: str, why: str) -> dict[str, Any]:
        """Promoted by force where nothing could be compared at all."""
        reason = f"promoted by --force, with nothing compared: {why}"
        return {**self._first(run), "finding": "not_compared", "reason": reason, "forced": True, "champion_before": before}
