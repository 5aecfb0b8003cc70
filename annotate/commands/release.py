"""`boxwright release`: write an immutable COCO release."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from annotate.release import Options, make_release
from collect import definition
from collect.console import Console


class ReleaseVerb:
    """Folds the journal into `releases/vNNN/`."""

    def arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", help="a dataset")
        parser.add_argument("--allow-unreviewed", action="store_true", help="take in pending images that have boxes or proposals")

    def run(self, arguments: Namespace, console: Console) -> dict[str, Any]:
        dataset = console.workspace.dataset(arguments.name)
        options = Options(unreviewed=arguments.allow_unreviewed, dry_run=console.dry_run)
        release = make_release(dataset, definition.load(dataset), options)
        counts, images, boxes = release.images, release.num_images, release.num_boxes
        if release.changed:
            verb = "would write" if console.dry_run else "wrote"
            console.out(f"{verb} {release.version}: {images} images, {boxes} boxes ({', '.join(f'{s} {n}' for s, n in counts.items())})")
        else:
            console.out(f"nothing changed since {release.version}; no new release")
        for note in release.notes:
            console.say(f"  {note}")
        return {
            "release": release.version,
            "path": str(release.path),
            "changed": release.changed,
            "images": images,
            "annotations": boxes,
            "splits": counts,
            "left_out": release.left_out,
            "notes": release.notes,
        }


RELEASE = ReleaseVerb()
