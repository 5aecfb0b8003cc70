"""The review's speed: from the command to an open grid, and from a verdict's key to the next image.

    python tests/benchmarks/bench_review_app.py [--quick] [--sizes 10000,50000] [--keys 20] [--no-peer]

For each size a dataset of that many small pictures with three boxes each is made, `boxwright review` started as a person starts
it, and a real Chromium opened on it. Peer for the building: FiftyOne's own way, `Dataset.add_samples` of full Sample objects
with the same boxes, in a process of its own. Memory is the peak of the resident set, CPU-seconds those of each process.

A key's time is taken in the page: from the trusted keydown to the first frame that shows the next image with its boxes
(`shown`), and to the one in which the App itself is ready to edit it (`ready`).
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import psutil  # noqa: E402
from PIL import Image  # noqa: E402

from annotate.journal import Journal, Kind, Status, box_event, new_box_id  # noqa: E402
from collect import blobs  # noqa: E402
from collect import definition as definitions  # noqa: E402
from collect.ledger import Ledger  # noqa: E402
from collect.records import ImageRecord, Licence, Reason, State  # noqa: E402
from collect.workspace import Dataset, Workspace  # noqa: E402
from tests.browser.app import App, Server, chromium, wait  # noqa: E402

NAME, SIZE = "many", (320, 240)
PROBE = """
window.bwTimes = [];
const bwShown = () => {
  const picture = document.querySelector('[data-cy="lighter-sample-image"]');
  return picture && picture.complete && picture.naturalWidth ? decodeURIComponent(picture.src).split('/').pop().slice(0, 24) : '';
};
window.addEventListener('keydown', (event) => {
  const from = bwShown();
  if (!event.isTrusted || event.key !== 'a' || !from) return;
  const times = { shown: 0, ready: 0 };
  window.bwTimes.push(times);
  const mark = (name) => requestAnimationFrame(() => (times[name] = times[name] || performance.now() - event.timeStamp));
  const look = () => {
    const now = bwShown(), ready = now && now !== from && now === new URL(location.href).searchParams.get('id');
    if (ready || document.getElementById('bw-veil')) mark('shown');
    if (ready) mark('ready');
    else if (performance.now() - event.timeStamp < 20000) setTimeout(look, 2);
  };
  look();
}, true);
"""
PEER = """
import json, resource, sys, time
from pathlib import Path
from annotate.review import mongod
from annotate.review.dataset import connect, disconnect
rows = json.loads(Path(sys.argv[1]).read_text())
with mongod.running(Path(sys.argv[2])) as database:
    fo = connect(Path(sys.argv[2]), database.uri, "peer")
    started, cpu = time.perf_counter(), time.process_time()
    dataset = fo.Dataset("peer", persistent=True)
    samples = [
        fo.Sample(filepath=path, review="pending", licence="CC0-1.0",
                  boxes=fo.Detections(detections=[fo.Detection(label=label, bounding_box=box) for label, box in boxes]))
        for path, boxes in rows
    ]
    dataset.add_samples(samples)
    told = {"wall_s": time.perf_counter() - started, "cpu_s": time.process_time() - cpu}
    print(json.dumps({**told, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
    disconnect()
"""


def make(root: Path, count: int) -> tuple[Dataset, list[tuple[str, list[Any]]]]:
    """A dataset of `count` pictures with three boxes each, and the same as plain rows for the peer."""
    dataset = Workspace.at(root).new_dataset(NAME)
    definitions.create(dataset, definitions.template(NAME, [(1, "gull"), (2, "crab"), (3, "buoy")]))
    rng = np.random.default_rng(0)
    pictures = []
    for _ in range(50):
        buffer = io.BytesIO()
        pixels = rng.integers(60, 200, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize(SIZE, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=60)
        pictures.append(buffer.getvalue())
    records, events, rows = [], [], []
    for number in range(count):
        data = pictures[number % len(pictures)] + number.to_bytes(8, "big")  # behind the end mark: another file, the same picture
        sha = hashlib.sha256(data).hexdigest()
        blobs.store(dataset, sha, "jpg", data, durable=False)
        records.append(
            ImageRecord(
                sha, "jpg", *SIZE, 1, f"{rng.integers(2**63):016x}", len(data), State.KEPT, Reason.NONE, Licence(spdx="CC0-1.0"),
                "folder", "", "gull", f"http://127.0.0.1/{number}", "", "", "2026-01-01",
            )
        )  # fmt: skip
        boxes = [("gull", (20.0, 30.0, 80.0, 90.0)), ("crab", (120.0, 40.0, 60.0, 60.0)), ("buoy", (200.0, 100.0, 90.0, 100.0))]
        events += [box_event(Kind.PROPOSE, "model:m", sha, new_box_id(), Status.PROPOSED, name, xywh, 0.9) for name, xywh in boxes]
        relative = [(name, [x / SIZE[0], y / SIZE[1], w / SIZE[0], h / SIZE[1]]) for name, (x, y, w, h) in boxes]
        rows.append((str(dataset.image_path(sha, "jpg")), relative))
    with Ledger(dataset.ledger) as ledger:
        ledger.add_images(records)
    with Journal(dataset.labels) as journal:
        journal.append(events)
    return dataset, rows


def used(pid: int) -> dict[str, float]:
    """CPU-seconds and peak memory of a running process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    peak_kb = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    return {"cpu_s": round(sum(psutil.Process(pid).cpu_times()[:2]), 1), "peak_mb": round(peak_kb / 1024)}


def open_grid(root: Path, folder: Path, keys: int) -> dict[str, Any]:
    started = time.perf_counter()
    server = Server(root, NAME, "--reviewer", "ann")
    try:
        told: dict[str, Any] = {"address_s": round(time.perf_counter() - started, 1)}
        with chromium(folder) as driver:
            driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": PROBE})
            app = App(driver, server.url)
            app.open()
            app.find("looker")
            told["grid_s"] = round(time.perf_counter() - started, 1)
            mongod_pid = int((root / ".boxwright" / "mongo" / "mongod.pid").read_text().split()[0])
            told |= {"review": used(server.process.pid), "mongod": used(mongod_pid), "load": os.getloadavg()[0]}
            told["keys"] = press(app, keys)
        return told
    finally:
        server.stop()


def press(app: App, count: int) -> dict[str, Any]:
    """Accept `count` images, one after the other, each when the App is ready; medians in milliseconds."""
    app.keys("\ue007")
    app.find("detection-mode")
    time.sleep(3)
    for number in range(count):
        app.keys("a")
        ready = "return window.bwTimes.length > arguments[0] && window.bwTimes[arguments[0]].ready"
        wait(lambda: app.driver.execute_script(ready, number), "the next image")  # noqa: B023 - waited for at once
        time.sleep(0.8)
    times = app.driver.execute_script("return window.bwTimes")
    return {name: round(statistics.median(row[name] for row in times)) for name in ("shown", "ready")} | {"n": len(times)}


def peer(rows: list[tuple[str, list[Any]]], folder: Path) -> dict[str, float]:
    path = folder / "rows.json"
    path.write_text(json.dumps(rows))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", PEER, str(path), str(folder / "peer")]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=environment)
    return {name: round(value, 1) for name, value in json.loads(done.stdout.splitlines()[-1]).items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="1,000 images")
    parser.add_argument("--sizes", default="10000,50000")
    parser.add_argument("--keys", type=int, default=20)
    parser.add_argument("--no-peer", action="store_true")
    arguments = parser.parse_args()
    results = {}
    for size in [1000] if arguments.quick else map(int, arguments.sizes.split(",")):
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            _, rows = make(folder / "root", size)
            results[size] = {"ours": open_grid(folder / "root", folder / "profile", arguments.keys)}
            if not arguments.no_peer:
                results[size]["add_samples"] = peer(rows, folder)
        sys.stderr.write(f"{size}: {json.dumps(results[size])}\n")
    sys.stdout.write(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
