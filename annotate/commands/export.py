"""`boxwright export`: write a release in another format."""

from __future__ import annotations

import json
import shutil
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from annotate import manifest
from annotate.coco import read_document
from annotate.formats.format import EXPORTERS, Export, exporter
from annotate.formats.names import name_images
from collect.console import Console
from collect.errors import UsageError
from collect.files import write_atomic

#: Notes what an export wrote, so that the next one into the same folder can take its place.
MARKER = ".boxwright-export.json"


class ExportRelease:
    """Writes a release's labels and images the way another tool wants them."""

    def arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", help="the dataset")
        parser.add_argument("release", metavar="V", help="the release, such as v001")
        parser.add_argument("--format", required=True, metavar="F", help=", ".join(sorted(EXPORTERS)))
        parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="a folder that is new, empty or an earlier export")
        parser.add_argument("--copy", action="store_true", help="copy the images (default: hard links where the disk has them)")
        parser.add_argument("--upright", action="store_true", help="re-encode images that have an EXIF orientation, for tools blind to it")

    def run(self, arguments: Namespace, console: Console) -> dict[str, Any]:
        dataset = console.workspace.dataset(arguments.name)
        write = exporter(arguments.format)
        folder, out = dataset.release_path(arguments.release), arguments.out.resolve()
        document = read_document(manifest.labels(folder))
        document = {**document, "images": name_images(document["images"])}
        export = Export(document, dataset.images, out, arguments.release, arguments.copy, arguments.upright)
        turned = sum(image.get("orientation", 1) != 1 for image in document["images"])
        if turned and not arguments.upright:
            console.say(f"{turned} images are turned by EXIF, the boxes are of the upright image; --upright turns the pixels too")
        if console.dry_run:
            check_folder(out)
            console.out(f"would write {len(document['images'])} images and their labels to {out}")
            return {"files": []}
        clear(out)
        files = write(export)
        credits_file = folder / "ATTRIBUTION.md"
        if credits_file.is_file():
            shutil.copyfile(credits_file, out / credits_file.name)
            files.append(out / credits_file.name)
        names = [path.relative_to(out).as_posix() for path in files]
        write_atomic(out / MARKER, json.dumps({"dataset": dataset.name, "release": arguments.release, "files": names}))
        console.out(f"wrote {arguments.release} of {dataset.name} as {arguments.format} to {out}: {len(files)} files")
        return {"format": arguments.format, "release": arguments.release, "out": str(out), "files": [str(path) for path in files]}


def check_folder(out: Path) -> None:
    """Hold a folder to be new, empty or an earlier export.

    Raises:
        UsageError: it holds something else.
    """
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / MARKER).is_file())):
        raise UsageError(f"{out} holds other files; choose a folder that is new or empty")


def clear(out: Path) -> None:
    """Make room for an export: what an earlier one wrote goes, and nothing else."""
    check_folder(out)
    if (out / MARKER).is_file():
        for name in json.loads((out / MARKER).read_text())["files"]:
            path = out / name
            if path.resolve().is_relative_to(out):
                path.unlink(missing_ok=True)
    write_atomic(out / MARKER, json.dumps({"files": []}))


EXPORT = ExportRelease()
