"""dataset.toml: read, checked and written here and nowhere else.

An error names the file, the line and the nearest valid key. Class ids are fixed for ever once a release used them; a
class that was renamed or merged lists its former names under `was`.
"""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from collect.errors import NotFoundError, UsageError
from collect.files import write_atomic
from collect.licenses import check_entry
from collect.toml_tables import TableReader
from collect.workspace import Dataset

MOST_EPSILON = 0.1


@dataclass(frozen=True)
class ObjectClass:
    """One `[[class]]`: what to find and how to box it. `quota` is the number of kept images wanted, 0 = no limit."""

    name: str
    id: int
    definition: str = ""
    supercategory: str = ""
    queries: tuple[str, ...] = ()
    synonyms: tuple[str, ...] = ()
    prompt: str = ""
    quota: int = 0
    was: tuple[str, ...] = ()


@dataclass(frozen=True)
class CollectPolicy:
    """`[collect]`: sources, licences and what an image must be. Shares of scores are in [0, 1], 1 = certainly bad.

    `lookalike_model` is an ONNX file, its path from the dataset's folder on, that proposes pictures to be held against each other
    (:mod:`collect.lookalikes`). `options` holds, by source, the provider's own parameters: `[collect.options.serpapi]`,
    `engine = "google_images"`.
    """

    sources: tuple[str, ...] = ("openverse", "wikimedia")
    licenses: tuple[str, ...] = ("CC0-1.0", "PDM-1.0", "CC-BY", "CC-BY-SA")
    base_urls: dict[str, str] = field(default_factory=dict)
    options: dict[str, dict[str, str]] = field(default_factory=dict)
    min_side_px: int = 64
    max_aspect: float = 5.0
    max_megabytes: float = 40.0
    max_megapixels: float = 89.0
    max_frames: int = 1000
    deadline_s: float = 60.0
    concurrency: int = 64
    per_domain: int = 2
    max_per_domain: int = 0
    max_per_author: int = 0
    max_blank: float = 0.9
    max_dark: float = 0.9
    max_blur: float = 0.95
    max_watermark: float = 0.95
    max_placeholder: float = 0.95
    near_duplicate_bits: int = 10
    lookalike_model: str = ""
    expand_queries: bool = True


@dataclass(frozen=True)
class AnnotatePolicy:
    """`[annotate]`: who proposes boxes, what a box may carry, how reviewers share the work.

    `keep_iou` is how exact a box must be: a proposal of the right class that overlaps the true box by so much is left as it is.
    """

    proposer: str = ""
    attributes: tuple[str, ...] = ("occluded", "truncated", "crowd")
    min_box_px: float = 2.0
    keep_iou: float = 0.75
    overlap: float = 0.05
    gold: tuple[str, ...] = ()


@dataclass(frozen=True)
class SplitPolicy:
    """`[split]`: shares of the images, and what must not be torn apart besides near-duplicates and pages."""

    train: float = 0.7
    val: float = 0.15
    test: float = 0.15
    group_by: tuple[str, ...] = ()
    seed: int = 0


@dataclass(frozen=True)
class TrainRecipe:
    """`[train]`: the default recipe; `boxwright train` overrides each entry. 0 = the detector's own default.

    `epsilon` is the gate's: the loss of AP, as a share of 1, that `boxwright retrain` takes for none.
    """

    detector: str = "fcos_mobilenet_v2"
    epochs: int = 30
    batch_size: int = 0
    image_size: int = 0
    learning_rate: float = 0.0
    seed: int = 0
    epsilon: float = 0.0


@dataclass(frozen=True)
class Definition:
    """A whole dataset.toml."""

    name: str
    classes: tuple[ObjectClass, ...]
    contact: str = ""
    description: str = ""
    collect: CollectPolicy = field(default_factory=CollectPolicy)
    annotate: AnnotatePolicy = field(default_factory=AnnotatePolicy)
    split: SplitPolicy = field(default_factory=SplitPolicy)
    train: TrainRecipe = field(default_factory=TrainRecipe)

    @property
    def class_names(self) -> list[str]:
        return [entry.name for entry in self.classes]

    def class_named(self, name: str) -> ObjectClass:
        """The class that has this name, or had it (`was`).

        Raises:
            UsageError: no class has or had it; names the nearest.
        """
        entry = self.current(name)
        if entry is None:
            near = difflib.get_close_matches(name, self.class_names, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else "."
            raise UsageError(f"{self.name} has no class '{name}'{hint} Its classes: {', '.join(self.class_names)}")
        return entry

    def current(self, name: str) -> ObjectClass | None:
        """The class that has or had `name`, else None: labels of a class that was removed."""
        for entry in self.classes:
            if entry.name == name:
                return entry
        for entry in self.classes:
            if name in entry.was:
                return entry
        return None

    def present_name(self, name: str) -> str:
        """What the class that has or had `name` is called now; of one that was removed its name as it was."""
        entry = self.current(name)
        return entry.name if entry else name


_SECTIONS: dict[str, type] = {
    "collect": CollectPolicy,
    "annotate": AnnotatePolicy,
    "split": SplitPolicy,
    "train": TrainRecipe,
}
#: (table, key) -> the least and the most that makes sense; a place for nought connections would wait for ever.
_BOUNDS: dict[tuple[str, str], tuple[float, float]] = {
    ("class", "quota"): (0, math.inf),
    ("collect", "min_side_px"): (0, math.inf),
    ("collect", "max_aspect"): (0, math.inf),
    ("collect", "max_megabytes"): (0.001, math.inf),
    ("collect", "max_megapixels"): (0.001, math.inf),
    ("collect", "max_frames"): (1, math.inf),
    ("collect", "deadline_s"): (1, math.inf),
    ("collect", "concurrency"): (1, 1000),
    ("collect", "per_domain"): (1, 1000),
    ("collect", "max_per_domain"): (0, math.inf),
    ("collect", "max_per_author"): (0, math.inf),
    ("collect", "near_duplicate_bits"): (0, 16),
    **{("collect", f"max_{score}"): (0, 1) for score in ("blank", "dark", "blur", "watermark", "placeholder")},
    ("annotate", "min_box_px"): (0, math.inf),
    ("annotate", "keep_iou"): (0.5, 0.95),  # below, a box is another's; above, people disagree with themselves
    ("annotate", "overlap"): (0, 1),
}
_TOP = {"name", "contact", "description", "class", *_SECTIONS}


def parse(path: Path, text: str) -> Definition:
    """A definition from the text of a dataset.toml; `path` is only named in errors.

    Raises:
        UsageError: anything wrong, as `file:line: what; did you mean …`.
    """
    reader = TableReader(path, text.removeprefix("\ufeff"), _BOUNDS)
    try:
        document = tomllib.loads(text.removeprefix("\ufeff"))
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"line (\d+)", str(error))
        raise reader.error(int(line[1]) if line else len(reader.lines), f"not valid TOML: {error}") from error
    reader.reject_unknown("", document, _TOP)
    if not isinstance(document.get("name"), str):
        raise reader.error(1, 'the definition has no name; add `name = "…"` at the top')
    classes = document.get("class", [])
    if not isinstance(classes, list) or not classes:
        raise reader.error(reader.key_line("", "class"), "the definition has no class; add a [[class]] table with a name and an id")
    built = tuple(reader.build(ObjectClass, "class", entry, nth) for nth, entry in enumerate(classes))
    sections: dict[str, Any] = {}
    for key, kind in _SECTIONS.items():
        table = document.get(key, {})
        if not isinstance(table, dict):
            raise reader.error(reader.key_line("", key), f"'{key}' must be a table: write [{key}]")
        sections[key] = reader.build(kind, key, table)
    texts = {key: reader.value(str, "", key, document[key], 0) for key in ("name", "contact", "description") if key in document}
    definition = Definition(classes=built, **texts, **sections)
    _check(reader, definition)
    return definition


def _check(reader: TableReader, definition: Definition) -> None:
    seen_ids: dict[int, str] = {}
    seen_names: set[str] = set()
    for nth, entry in enumerate(definition.classes):
        if not entry.name.strip():
            raise reader.error(reader.key_line("class", "name", nth), "a class needs a name")
        if entry.id < 0:
            raise reader.error(reader.key_line("class", "id", nth), f"class '{entry.name}' has id {entry.id}; ids count from 1")
        if entry.id in seen_ids:
            raise reader.error(
                reader.key_line("class", "id", nth),
                f"id {entry.id} is used by '{seen_ids[entry.id]}' and by '{entry.name}'",
            )
        for name in (entry.name, *entry.was):
            if name in seen_names:
                raise reader.error(reader.key_line("class", "name", nth), f"the class name '{name}' is used twice")
            seen_names.add(name)
        seen_ids[entry.id] = entry.name
    split = definition.split
    total = split.train + split.val + split.test
    if min(split.train, split.val, split.test) < 0 or abs(total - 1) > 1e-6:
        raise reader.error(
            reader.key_line("split", "train"),
            f"the shares of [split] add up to {total:g}; they must be ≥ 0 and add up to 1",
        )
    if not 0 <= definition.train.epsilon <= MOST_EPSILON:
        raise reader.error(
            reader.key_line("train", "epsilon"),
            f"epsilon is {definition.train.epsilon:g}; it is a share of 1 from 0 to {MOST_EPSILON}: 0.005 is half an AP point",
        )
    unknown = set(split.group_by) - {"author", "domain"}
    if unknown:
        raise reader.error(reader.key_line("split", "group_by"), f"cannot group by {sorted(unknown)}; valid: author, domain")
    for licence in definition.collect.licenses:
        try:
            check_entry(licence)
        except UsageError as error:
            raise reader.error(reader.key_line("collect", "licenses"), str(error)) from error


def load(dataset: Dataset) -> Definition:
    """The definition of a dataset.

    Raises:
        NotFoundError: there is no dataset.toml.
        UsageError: it is wrong; says where and what is right.
    """
    path = dataset.definition
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no {path}; `boxwright init {dataset.name} --class …` writes one") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from error
    definition = parse(path, text)
    if definition.name != dataset.name:
        raise UsageError(f"{path}:1: the name is '{definition.name}' but the folder is '{dataset.name}'; make them equal")
    return definition


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def template(name: str, classes: list[tuple[int, str]], licenses: tuple[str, ...] = CollectPolicy.licenses, proposer: str = "") -> str:
    """A new dataset.toml with comments, for classes given as `(id, name)`."""
    blocks = "\n".join(
        f"""[[class]]
id = {number}                                  # fixed for ever once released
name = {_quoted(label)}
definition = ""                         # what counts, and where the box ends; reviewers see it
queries = [{_quoted(label)}]
quota = 200                             # kept images wanted; 0 = no limit
"""
        for number, label in classes
    )
    allow = ", ".join(_quoted(entry) for entry in licenses)
    return f"""name = {_quoted(name)}
contact = ""                            # a mailto: or https: address; goes into the User-Agent of every request

{blocks}
[collect]
sources = ["openverse", "wikimedia"]    # asked side by side; `boxwright collect {name} --source S` overrides
licenses = [{allow}]   # SPDX ids or families; others are refused, unknown ones kept apart
min_side_px = 64

[annotate]
proposer = {_quoted(proposer)}                           # "opencv-face", "run:RUN", "zero-shot:MODEL" or "sources"; "" = nobody
attributes = ["occluded", "truncated", "crowd"]

[split]
train = 0.7
val = 0.15
test = 0.15

[train]
detector = "fcos_mobilenet_v2"
epochs = 30
"""


def create(dataset: Dataset, text: str) -> Definition:
    """Write a new dataset.toml after checking it.

    Raises:
        UsageError: the text is wrong, or the dataset exists already.
    """
    if dataset.definition.exists():
        raise UsageError(f"{dataset.definition} exists already; edit it, or choose another name")
    definition = parse(dataset.definition, text)
    write_atomic(dataset.definition, text)
    return definition
