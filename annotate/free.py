"""Setting images free of the split that they were imported with: only by a person's word, and on the record.

The import's split goes from the ledger; `freed` in the image's `extra` says which it was, when, and what the newest release was by
then. Splits that this release and those before it gave such an image do not count any longer: the next release gives it one as it
gives all others theirs, and that stays.
"""

from __future__ import annotations

from dataclasses import dataclass

from annotate.parent import Parent
from collect.clock import now
from collect.files import exclusive
from collect.ledger import Ledger
from collect.records import ImageRecord
from collect.workspace import Dataset


@dataclass(frozen=True)
class Freed:
    """How many images are free now, how many of them stand in a release, and how many stay because they do.

    `release` is the newest release, "" where there is none.
    """

    images: int
    of_releases: int
    kept: int
    release: str


def free(dataset: Dataset, split: str, source: str = "", *, released: bool = False, dry_run: bool = False) -> Freed:
    """Free the images that were imported with this split; those that a release ever held only with `released`.

    Raises:
        BusyError: a collection, an import or a release is at work.
    """
    doing = f"free images of {dataset.name}"
    with (
        exclusive(dataset.locks / "collect", doing),
        exclusive(dataset.locks / "release", doing),
        Ledger(dataset.ledger) as ledger,
    ):
        parent = Parent.of(dataset)
        fixed = [record for record in ledger.images() if record.split == split and source in {"", record.source}]
        held = [record for record in fixed if record.sha256 in parent.split_of]
        chosen = [record for record in fixed if released or record.sha256 not in parent.split_of]
        if not dry_run:
            ledger.free_images([record.sha256 for record in chosen], {"split": split, "after": parent.version, "at": now()})
    return Freed(len(chosen), len(held) if released else 0, 0 if released else len(held), parent.version)


def just_freed(record: ImageRecord, parent: Parent) -> bool:
    """Whether an image was set free since the newest release, which holds it or held it once."""
    told = record.extra.get("freed")
    return told is not None and told["after"] == parent.version and record.sha256 in parent.split_of
