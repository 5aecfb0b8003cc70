"""Import: labels and images that exist already become ledger rows and journal events, or nothing does.

Everything is read and checked first, and all problems are reported together. Then the images are stored, then the definition
and the ledger, then the journal in one transaction: a kill in between leaves images without labels, and the same command
run again goes on. Run again after that, it changes nothing.
"""

from __future__ import annotations

import difflib
import hashlib
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from annotate.archives import unpacked
from annotate.corrections import events_of
from annotate.formats.format import Done, LabelSet, Problem, importer
from annotate.held import Held
from annotate.image_index import ImageIndex
from annotate.incoming import Incoming, gather
from annotate.journal import Event, Journal, Kind
from annotate.state import ImageLabels
from collect.blobs import Blob, store_all, sweep
from collect.clock import now
from collect.definition import Definition, create, load, parse
from collect.errors import CorruptError, NotFoundError, UsageError
from collect.files import exclusive
from collect.ledger import Ledger
from collect.licenses import USER_SUPPLIED, allows, check_entry, spdx_from_name
from collect.records import ImageRecord, Licence, Reason, State
from collect.workspace import Dataset

Track = Callable[[Iterable[Any], str], Iterator[Any]]


@dataclass(frozen=True)
class Request:
    """One import as it was asked for. `split` fixes that of every image, "" = as the files say; `licence` is SPDX, "" = none."""

    format: str
    path: Path
    images: Path | None = None
    split: str = ""
    licence: str = ""
    unreviewed: bool = False
    skip_bad: bool = False
    dry_run: bool = False


#: So many refusals are listed in words.
_LISTED = 40


@dataclass
class Outcome:
    """What an import found, and what was new in it."""

    images: int = 0
    annotations: int = 0
    class_names: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    new_images: int = 0
    events: dict[str, int] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """As `--json` shows it."""
        return {
            "images": self.images,
            "annotations": self.annotations,
            "categories": len(self.class_names),
            "class_names": self.class_names,
            "new_images": self.new_images,
            "new_boxes": self.events.get(Kind.IMPORT, 0),
            "edited_boxes": self.events.get(Kind.EDIT, 0),
            "deleted_boxes": self.events.get(Kind.DELETE, 0),
            "problems": [problem.document() for problem in self.problems],
        }


def take_in(dataset: Dataset, request: Request, track: Track) -> Outcome:
    """Import labels and their images.

    Raises:
        UsageError: labels would be lost; lists every refusal. Nothing was written.
        NotFoundError: `path` or the folder of images is not there.
        RefusedError: an archive is not safe to unpack.
    """
    read = importer(request.format)
    for place in (request.path, request.images):
        if place is not None and not place.exists():
            raise NotFoundError(f"there is no {place}; give the label file, its folder or an archive of it")
    with unpacked(request.path) as path:
        return _take_in(dataset, request, read(path), path, track)


def _take_in(dataset: Dataset, request: Request, found: LabelSet, path: Path, track: Track) -> Outcome:
    definition = load(dataset) if dataset.definition.exists() else None
    held, incoming, text = _examined(dataset, definition, request, found, path, track)
    outcome = Outcome(len(incoming), sum(len(entry.boxes) for entry in incoming), [c.name for c in found.categories], found.problems)
    if request.dry_run:
        return outcome
    with exclusive(dataset.locks / "collect", f"import {dataset.name}"):
        sweep(dataset)
        held = held.renewed(dataset)
        store_all(dataset, _blobs([entry for entry in incoming if entry.picture.sha256 not in held.records], track))
        if definition is None:
            create(dataset, text)
        outcome.new_images = _write_ledger(dataset, incoming, held, request, found)
        outcome.events = _write_journal(dataset, incoming, held, request, found)
    return outcome


def _examined(
    dataset: Dataset, definition: Definition | None, request: Request, found: LabelSet, path: Path, track: Track
) -> tuple[Held, list[Incoming], str]:
    """What the dataset holds, what comes in, and the text of a new dataset.toml ("" where there is one). Writes nothing.

    Raises:
        UsageError: labels would be lost.
    """
    from annotate.new_dataset import check_names, definition_text, number_categories

    check_names(found)
    number_categories(found, request.format) if definition is None else _check_classes(definition, found)
    held = Held.of(dataset, found.release, definition)
    incoming = gather(found, _index(request, path, found), held.find, lambda images: track(images, "checking")) if found.images else []
    if request.split:
        incoming = [replace(entry, split=request.split) for entry in incoming]
    incoming = [replace(entry, licence=_licence(entry, request)) for entry in incoming]
    _check_licences(definition, incoming, held, found)
    refused = any(problem.done is Done.REFUSED for problem in found.problems)
    if not incoming and not refused:
        found.complain(request.path.name, None, "holds no images with labels", Done.REFUSED)
        refused = True
    if refused and not (request.skip_bad and incoming):
        raise LabelsRefusedError(found.problems)
    if definition is not None:
        return held, incoming, ""
    text = definition_text(dataset.name, found.categories, [entry.licence.spdx for entry in incoming if entry.licence])
    parse(dataset.definition, text)
    return held, incoming, text


class LabelsRefusedError(UsageError):
    """An import that would lose labels; lists what stops it, the first of it where that is much, and holds all `problems`."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        refused = [problem for problem in problems if problem.done is Done.REFUSED]
        lines = "\n".join(f"  {problem}" for problem in refused[:_LISTED])
        if len(refused) > _LISTED:
            lines += f"\n  … and {len(refused) - _LISTED:,} more; --json lists them. So many: are the folder and --format right?"
        number = "1 label problem" if len(refused) == 1 else f"{len(refused)} label problems"
        super().__init__(f"{number} cannot be mended, and nothing was imported; mend them or leave them out with --skip-bad:\n{lines}")


def _index(request: Request, path: Path, found: LabelSet) -> ImageIndex:
    """The folders in which images are looked for: `--images`, else the labels' folder and, where that lacks some, the one above."""
    if request.images:
        return ImageIndex([request.images])
    folder = path.parent if path.is_file() else path
    index = ImageIndex([folder])
    above = folder.resolve().parent
    is_ours = path == request.path and above not in {Path("/"), Path.home(), Path(tempfile.gettempdir())}
    if is_ours and any(not index.has(image) for image in found.images):
        index.add(above)
    return index


def _check_classes(definition: Definition, found: LabelSet) -> None:
    """Hold the categories against a definition; names that a class had before become its present one."""
    for category in found.categories:
        if definition.current(category.name) is None:
            near = difflib.get_close_matches(category.name, definition.class_names, n=1, cutoff=0.4)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            word = f"{definition.name} has no such class{hint} (its classes: {', '.join(definition.class_names)})"
            found.complain("dataset.toml", category.name, word, Done.REFUSED)

    found.rename({name: entry.name for name in {c.name for c in found.categories} if (entry := definition.current(name))})


def _licence(entry: Incoming, request: Request) -> Licence:
    if entry.licence:
        return replace(entry.licence, checked_at=now())
    spdx = (spdx_from_name(request.licence) or check_entry(request.licence)) if request.licence else USER_SUPPLIED
    return Licence(spdx, evidence="user", checked_at=now())


def _check_licences(definition: Definition | None, incoming: list[Incoming], held: Held, found: LabelSet) -> None:
    """Say where a dataset's own allow-list will stop its next release; what the dataset has already keeps its licence."""
    if definition is None:
        return
    restated = _restated(incoming, held)
    licences = [
        record.licence if (record := held.records.get(entry.picture.sha256)) and record.sha256 not in restated else entry.licence
        for entry in incoming
    ]
    for spdx in sorted({licence.spdx for licence in licences if licence}):
        if not allows(definition.collect.licenses, spdx):
            word = f"[collect] licenses does not allow '{spdx}', which images of this import have; a release will refuse them until it does"
            found.complain("dataset.toml", spdx, word, Done.NOTED)


def _restated(incoming: list[Incoming], held: Held) -> dict[str, Licence]:
    """Licences by sha256 of images that are held on the word of who imported them, and whose licence is stated now."""
    return {
        entry.picture.sha256: entry.licence
        for entry in incoming
        if entry.licence and entry.licence.spdx != USER_SUPPLIED
        if (record := held.records.get(entry.picture.sha256)) and record.licence.spdx == USER_SUPPLIED
    }


def _blobs(incoming: list[Incoming], track: Track) -> Iterator[Blob]:
    """The images to be stored, each read when its turn comes."""
    for entry in track(incoming, "storing"):
        if entry.path is None:
            continue
        data = entry.path.read_bytes()
        if hashlib.sha256(data).hexdigest() != entry.picture.sha256:
            raise CorruptError(f"{entry.path} changed while it was imported; run this again when nothing writes to it")
        yield Blob(entry.picture.sha256, entry.picture.extension, data)


def _write_ledger(dataset: Dataset, incoming: list[Incoming], held: Held, request: Request, found: LabelSet) -> int:
    for entry in incoming:
        record = held.records.get(entry.picture.sha256)
        if record and entry.split and entry.split not in {record.split, held.splits.get(record.sha256)}:
            was = f"'{record.split}'" if record.split else "free"
            found.complain(entry.label_file, entry.id, f"is in the dataset already; its split stays {was}", Done.NOTED)
    new = [_record(entry, request) for entry in incoming if entry.picture.sha256 not in held.records]
    restated = _restated(incoming, held)
    for spdx, count in Counter(licence.spdx for licence in restated.values()).items():
        images = "1 image that was" if count == 1 else f"{count:,} images that were"
        found.complain("dataset", spdx, f"{images} here without a stated licence, and {'has' if count == 1 else 'have'} it now", Done.NOTED)
    with Ledger(dataset.ledger) as ledger:
        ledger.add_images(new)
        ledger.restate_licences(restated)
    return len(new)


def _record(entry: Incoming, request: Request) -> ImageRecord:
    picture = entry.picture
    return ImageRecord(
        sha256=picture.sha256, extension=picture.extension, width=picture.width, height=picture.height,
        orientation=picture.orientation, phash=picture.phash, num_bytes=picture.num_bytes, state=State.KEPT, reason=Reason.NONE,
        licence=entry.licence or Licence(USER_SUPPLIED), source=f"import:{request.format}", query="", class_name="",
        source_url=entry.source_url, page_url="", domain="", found_at=now(), file_name=entry.file_name, split=entry.split,
        quality=picture.quality, extra={"signature": picture.signature, "sha1": picture.sha1},
    )  # fmt: skip


def _write_journal(dataset: Dataset, incoming: list[Incoming], held: Held, request: Request, found: LabelSet) -> dict[str, int]:
    actor = f"import:{request.format}"
    events: list[Event] = []
    for entry in incoming:
        record = held.records.get(entry.picture.sha256)
        if record and record.state is not State.KEPT:
            word = f"is {record.state} in the dataset ({record.reason}); its labels were left out"
            found.complain(entry.label_file, entry.id, word, Done.SKIPPED)
            continue
        ours = held.labels.get(entry.picture.sha256, ImageLabels())
        events += events_of(entry, ours, held.base, actor, found, unreviewed=request.unreviewed)
    if events:
        with Journal(dataset.labels) as journal:
            journal.append(events, head=held.head[0])
            journal.seal()
    counts: dict[str, int] = {}
    for event in events:
        counts[event.kind] = counts.get(event.kind, 0) + 1
    return counts
