"""lookalikes.json: pairs of images that look alike to a model and not to the hashes, for a person to decide.

`boxwright audit NAME --lookalikes` writes it, the review reads it: both images of a pair come first, each with the reason
"looks like IMAGE (.97)", and stand side by side as near-duplicates do. Nothing else follows from a pair.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from annotate.journal import Verdict
from annotate.state import ImageLabels
from collect.clock import now
from collect.errors import CorruptError
from collect.files import write_atomic
from collect.workspace import Dataset

#: As many can be compared at once: each has a digit, and the one to keep is chosen from what is on the screen.
MOST = 9


@dataclass(frozen=True)
class Pair:
    """Two images by sha256, the smaller one first; `at` is when the pair was found first: a verdict since then has settled it."""

    image: str
    like: str
    cosine: float
    at: str = ""

    @property
    def names(self) -> tuple[str, str]:
        return self.image, self.like


def path_of(dataset: Dataset) -> Path:
    """Where the pairs of a dataset lie."""
    return dataset.folder / "lookalikes.json"


def read(dataset: Dataset) -> list[Pair]:
    """The pairs, the most alike first; [] when nobody has looked for any.

    Raises:
        CorruptError: the file is not as :func:`write` leaves it.
    """
    path = path_of(dataset)
    try:
        pairs = [Pair(str(row["image"]), str(row["like"]), float(row["cosine"]), str(row["at"])) for row in json.loads(path.read_bytes())]
    except FileNotFoundError:
        return []
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptError(f"{path} is not as Boxwright writes it ({error!r}); delete it or write it anew") from error
    return sorted(pairs, key=lambda pair: -pair.cosine)


def write(dataset: Dataset, pairs: Iterable[Pair]) -> list[Pair]:
    """Put these pairs in the place of those that were there; one that was known keeps its time, so that it is not asked for twice."""
    known = {pair.names: pair.at for pair in read(dataset)}
    at = now()
    written = [Pair(*pair.names, round(pair.cosine, 4), known.get(pair.names, at)) for pair in pairs]
    write_atomic(path_of(dataset), json.dumps([asdict(pair) for pair in written], indent=1) + "\n")
    return written


def among(pairs: Iterable[Pair], images: Collection[str]) -> list[Pair]:
    """The pairs of which both images are still there."""
    return [pair for pair in pairs if pair.image in images and pair.like in images]


def settled(pair: Pair, entry_of: Callable[[str], ImageLabels]) -> bool:
    """Whether somebody has decided a pair: one of it is rejected, or both were accepted since it was found, since they differ."""
    entries = [entry_of(name) for name in pair.names]
    kept = all(entry.verdict == Verdict.ACCEPTED and entry.reviewed_at >= pair.at for entry in entries)
    return kept or any(entry.verdict == Verdict.REJECTED for entry in entries)


def reason(pair: Pair, image: str) -> str:
    """Why one image of a pair is in the queue.

    >>> reason(Pair("a" * 64, "b" * 64, 0.968), "b" * 64)
    'looks like aaaaaaaaaaaa (.97)'
    """
    other = pair.like if image == pair.image else pair.image
    return f"looks like {other[:12]} ({f'{pair.cosine:.2f}'.removeprefix('0')})"


def joined(groups: Mapping[str, str], pairs: Sequence[Pair]) -> dict[str, str]:
    """Groups of near-duplicates (sha256 -> name), with images that look alike put into one, the most alike first.

    A group grows only where every image of it looks like every one that joins: whoever keeps one of a group rejects the rest,
    and "alike" does not carry on from a to b to c. Hence also no group grows beyond what is shown at once.

    >>> sorted(joined({}, [Pair("a", "b", 0.98), Pair("b", "c", 0.97)]).items())
    [('a', 'a'), ('b', 'a')]
    """
    name_of = dict(groups)
    members: dict[str, list[str]] = {}
    for image, name in groups.items():
        members.setdefault(name, []).append(image)
    alike = {pair.names for pair in pairs}
    for pair in pairs:
        first, second = (members.get(name_of.get(image, ""), [image]) for image in pair.names)
        cross = {(min(a, b), max(a, b)) for a in first for b in second}
        if first is not second and len(first) + len(second) <= MOST and cross <= alike:
            name = name_of.get(pair.image) or name_of.get(pair.like) or pair.image[:8]
            members[name] = [*first, *second]
            name_of |= dict.fromkeys(members[name], name)
    return name_of
