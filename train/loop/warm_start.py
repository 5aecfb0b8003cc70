"""Warm start: a new detector takes over everything that a trained one knows, its head's rows by category *name*.

Ids and the order of labels mean nothing here. A category that is new keeps the detector's own first values (the focal
prior); one that was renamed or merged (`was` in dataset.toml) takes the former rows, their mean where there are several;
one that was split off takes the row of the category that its `supercategory` names; rows of removed categories go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from annotate.coco import Category
from collect.definition import Definition, ObjectClass
from collect.errors import RefusedError
from train.detectors.detector import Detector, HeadRows


@dataclass(frozen=True)
class WarmStart:
    """What was copied. `copied` maps a category to the former ones that its rows come from."""

    source: str
    copied: Mapping[str, tuple[str, ...]]
    fresh: tuple[str, ...]
    removed: tuple[str, ...]
    num_tensors: int
    left: tuple[str, ...] = field(default=())

    def sentence(self) -> str:
        """In words, for the run's config and report."""
        parts = [f"{new} ← {' + '.join(old)}" if old != (new,) else new for new, old in self.copied.items()]
        words = [f"warm start from {self.source}", f"rows copied: {', '.join(parts) or 'none'}"]
        if self.fresh:
            words.append(f"new: {', '.join(self.fresh)}")
        if self.removed:
            words.append(f"gone: {', '.join(self.removed)}")
        if self.left:
            words.append(f"{len(self.left)} of {self.num_tensors + len(self.left)} tensors of another shape were left new")
        return "; ".join(words)

    def to_json(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "copied": {new: list(old) for new, old in self.copied.items()},
            "fresh": list(self.fresh),
            "removed": list(self.removed),
            "tensors": self.num_tensors,
            "left": list(self.left),
        }


def ancestry(before: Sequence[Category], after: Sequence[Category], definition: Definition) -> dict[str, tuple[str, ...]]:
    """For each category now, the former categories whose rows it takes: none for a new one.

    `was` is looked at first for names that are gone: a class renamed from `a` to `b` while `b` is new takes `a`.
    """
    old = {category.name for category in before}
    declared = {entry.name: entry for entry in definition.classes}
    result: dict[str, tuple[str, ...]] = {}
    for category in after:
        entry = declared.get(category.name)
        parent = category.supercategory or (entry.supercategory if entry else "")
        sources = [tuple(name for name in _names(it, declared) if name in old) for it in (category.name, parent)]
        result[category.name] = sources[0] or sources[1]
    return result


def _names(name: str, declared: Mapping[str, ObjectClass]) -> tuple[str, ...]:
    """A class's name and those that it had."""
    return (name, *(declared[name].was if name in declared else ()))


@torch.no_grad()
def warm_start(detector: Detector, source: Detector, source_name: str, definition: Definition) -> WarmStart:
    """Copy a trained detector's weights into a new one of the same family, in place.

    Raises:
        RefusedError: they are of different families: most tensors do not fit.
    """
    heads, source_heads = detector.head_rows(), source.head_rows()
    origins = ancestry(source.categories, detector.categories, definition)
    place_of = {category.name: place for place, category in enumerate(source.categories)}
    places = [[place_of[name] for name in origins[category.name]] for category in detector.categories]
    theirs = source.state_dict()
    left, num_copied = [], 0
    for name, tensor in detector.state_dict().items():  # its tensors are the detector's own storage
        given = theirs.get(name)
        if name in heads and given is not None and name in source_heads:
            fits = _copy_rows(tensor, given, heads[name], source_heads[name], places)
        else:
            fits = given is not None and given.shape == tensor.shape
            if fits and given is not None:
                tensor.copy_(given)
        num_copied += fits
        if not fits:
            left.append(name)
    if num_copied < len(left):
        raise RefusedError(
            f"{source_name} cannot warm-start this detector: only {num_copied} of {num_copied + len(left)} tensors fit; "
            "choose the champion's --detector, or `--cold` to begin from pretrained weights"
        )
    used = {name for names in origins.values() for name in names}
    return WarmStart(
        source=source_name,
        copied={name: names for name, names in origins.items() if names},
        fresh=tuple(name for name, names in origins.items() if not names),
        removed=tuple(category.name for category in source.categories if category.name not in used),
        num_tensors=num_copied,
        left=tuple(left),
    )


def _copy_rows(tensor: Tensor, given: Tensor, rows: HeadRows, given_rows: HeadRows, places: Sequence[Sequence[int]]) -> bool:
    """Copy the rows of each category from the mean of its former ones; False where the other axes do not fit."""
    mine, other = tensor.movedim(rows.axis, 0), given.movedim(given_rows.axis, 0)
    if mine.shape[1:] != other.shape[1:] or rows.rows_CR.shape[1] != given_rows.rows_CR.shape[1]:
        return False
    for label, former in enumerate(places):
        if former:
            taken = torch.stack([other[torch.from_numpy(given_rows.rows_CR[place])] for place in former]).mean(0)
            mine[torch.from_numpy(rows.rows_CR[label])] = taken.to(mine)
    if len(rows.shared) == len(given_rows.shared):
        for place, from_place in zip(rows.shared, given_rows.shared, strict=True):
            mine[place] = other[from_place].to(mine)
    return True
