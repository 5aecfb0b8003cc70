"""Journal, release, diff and reading at size: CPU-seconds, peak memory, and pycocotools beside our reader.

    python tests/benchmarks/bench_releases.py [--quick]

Prints one JSON document. Each part runs in a process of its own, so that peak memory is its own.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from annotate import coco
from annotate.diff import diff
from annotate.journal import Journal, Kind, Status, box_event, verdict_event
from annotate.release import make_release
from annotate.state import current
from collect import definition
from collect.ledger import Ledger
from collect.records import ImageRecord, Licence, Reason, State
from collect.workspace import Workspace


def measured(work: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
    """Run in a fresh process; returns CPU-seconds, peak MB and what the work returned."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_measure, work, arguments).result()


def _measure(work: Callable[..., Any], arguments: tuple[Any, ...]) -> dict[str, Any]:
    started = time.process_time()
    told = work(*arguments)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"cpu_s": round(time.process_time() - started, 2), "peak_mb": round(peak_mb), "told": told}


def sha(number: int) -> str:
    return f"{number * 0x9E3779B97F4A7C15 % 2**64:016x}" * 4


def build(root: Path, num_images: int, boxes_per_image: int) -> None:
    """A dataset with rows, empty files and labels: what `release` reads, without pictures."""
    dataset = Workspace.at(root).new_dataset("big")
    definition.create(dataset, definition.template("big", [(n, f"class {n}") for n in range(1, 21)]))
    rng = np.random.default_rng(0)
    with Ledger(dataset.ledger) as ledger:
        ledger.add_images(
            ImageRecord(
                sha256=sha(n), extension="jpg", width=640, height=480, orientation=1, phash=f"{rng.integers(2**63):016x}", num_bytes=0,
                state=State.KEPT, reason=Reason.NONE, licence=Licence("CC-BY-4.0", creator=f"author {n % 5000}"), source="bench", query="q",
                class_name="class 1", source_url=f"https://example.org/{n}.jpg", page_url=f"https://example.org/{n // 2}",
                domain="example.org", found_at="2026-01-01T00:00:00.000Z",
            )
            for n in range(num_images)
        )  # fmt: skip
    for n in range(num_images):
        path = dataset.image_path(sha(n), "jpg")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    geometry = rng.uniform(5, 200, (num_images * boxes_per_image, 4))
    with Journal(dataset.labels) as journal:
        for start in range(0, num_images, 10_000):
            events = []
            for n in range(start, min(start + 10_000, num_images)):
                rows = range(n * boxes_per_image, (n + 1) * boxes_per_image)
                events += [
                    box_event(
                        Kind.IMPORT, "import:coco", sha(n), f"{row:024x}", Status.PRESENT, f"class {1 + row % 20}", tuple(geometry[row])
                    )
                    for row in rows
                ]
                events.append(verdict_event("import:coco", sha(n), "accepted"))
            journal.append(events)


def edit(root: Path, every: int) -> None:
    dataset = Workspace.at(root).dataset("big")
    with Journal(dataset.labels) as journal:
        events = [event for event in journal.events() if event.box and event.seq % every == 0]
        journal.append(
            box_event(Kind.EDIT, "reviewer:anna", e.image, e.box, Status.PRESENT, "class 7", (e.x + 1, e.y, e.w, e.h)) for e in events
        )


def release(root: Path) -> int:
    dataset = Workspace.at(root).dataset("big")
    return make_release(dataset, definition.load(dataset)).num_boxes


def compare(root: Path) -> dict[str, int]:
    dataset = Workspace.at(root).dataset("big")
    old, new = (coco.CocoFile.open(dataset.releases / version / "annotations.json") for version in ("v001", "v002"))
    return diff(old, new).counts()


def fold(path: Path) -> int:
    with Journal(path) as journal:
        return len(current(journal))


def many_events(path: Path, number: int) -> int:
    with Journal(path) as journal:
        for start in range(0, number, 100_000):
            journal.append(
                box_event(Kind.EDIT, "reviewer:a", sha(n // 8), f"{n // 2:024x}", Status.PRESENT, "cat", (1.5, 2.5, 3.0, 4.0 + n % 7))
                for n in range(start, min(start + 100_000, number))
            )
        return journal.head()[0]


def read_ours(path: Path) -> int:
    return len(coco.read(path).boxes_xywh_A4)


def read_pycocotools(path: Path) -> int:
    from pycocotools.coco import COCO

    return len(COCO(str(path)).anns)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the size")
    share = 10 if parser.parse_args().quick else 1
    root = Path(tempfile.mkdtemp(prefix="bench-releases-"))
    try:
        results: dict[str, Any] = {"images": 100_000 // share, "boxes": 500_000 // share, "events": 2_000_000 // share}
        results["build"] = measured(build, root, 100_000 // share, 5)
        results["release"] = measured(release, root)
        measured(edit, root, 20)
        results["second release"] = measured(release, root)
        results["diff"] = measured(compare, root)
        annotations = root / "datasets" / "big" / "releases" / "v001" / "annotations.json"
        results["read into arrays"] = measured(read_ours, annotations)
        results["pycocotools.COCO"] = measured(read_pycocotools, annotations)
        results["read ratio"] = round(results["pycocotools.COCO"]["cpu_s"] / results["read into arrays"]["cpu_s"], 2)
        results["append"] = measured(many_events, root / "labels.sqlite", 2_000_000 // share)
        results["fold"] = measured(fold, root / "labels.sqlite")
        sys.stdout.write(json.dumps(results, indent=2) + "\n")
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
