"""A ledger of a million URLs: how long `status --why` takes, how long until a resumed collection fetches, how much memory it needs.

    python tests/benchmarks/bench_ledger.py [--quick]

Half a million URLs are settled (half of these as kept images with their hashes), a thousand are leased by a process that died,
the rest wait. A server in this process notes when the first request of a fresh collector arrives. Prints JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from collect import definition  # noqa: E402
from collect.ledger import Ledger  # noqa: E402
from collect.ledger_rows import Settlement  # noqa: E402
from collect.records import Candidate, ImageRecord, Licence, Reason, State  # noqa: E402
from collect.workspace import Workspace  # noqa: E402
from tests.collect.collecting import jpeg  # noqa: E402
from tests.collect.hostile_server import HostileServer, answer  # noqa: E402

_RESUME = """
import json, resource, sys, time
sys.path.insert(0, sys.argv[1])
from collect import definition
from collect.ledger import Ledger
from collect.pipeline import DownloadSettings, Pipeline
from collect.workspace import Workspace
dataset = Workspace.at(sys.argv[2]).dataset("bench")
opened = time.time()
with Ledger(dataset.ledger) as ledger:
    with Pipeline(dataset, definition.load(dataset), ledger, DownloadSettings(("127.0.0.0/8",), polite=False)) as pipeline:
        pipeline.drain(should_stop=lambda: pipeline.progress.states["KEPT"] >= 50)
print(json.dumps({"opened": opened, "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
"""

_STATUS = """
import json, sys, time
sys.path.insert(0, sys.argv[1])
import boxwright
boxwright.resolve("status")
cpu, wall = time.process_time(), time.monotonic()
assert boxwright.main(["status", "bench", "--why", "--json", "--root", sys.argv[2]]) == 0
print(json.dumps({"cpu_s": round(time.process_time() - cpu, 2), "wall_s": round(time.monotonic() - wall, 2)}))
"""


def child(script: str, root: str) -> tuple[dict[str, Any], float]:
    """What a script in a process of its own printed last, and the CPU-seconds of that process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", script, str(ROOT), root], capture_output=True, text=True, check=True, env=os.environ)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return json.loads(done.stdout.splitlines()[-1]), round(cpu_s, 2)


def fill(ledger: Ledger, base: str, number: int) -> None:
    licence = Licence("CC0-1.0", creator="Somebody", attribution="A picture by Somebody, CC0")
    for start in range(0, number, 50_000):
        ledger.add_finds(
            (
                Candidate(f"{base}/{place}", f"source{place % 4}", f"query {place % 50}", f"class{place % 8}", licence=licence),
                f"site{place % 20000}.test",
            )
            for place in range(start, min(start + 50_000, number))
        )  # fmt: skip
    random = np.random.default_rng(0)
    settled = number // 2
    for start in range(0, settled, 25_000):
        ledger.settle([_settled(place, licence, random) for place in range(start + 1, start + 25_001)])
    ledger.lease(1000)


def _settled(place: int, licence: Licence, random: np.random.Generator) -> Settlement:
    if place % 2:
        return Settlement(place, State.GONE, Reason.HTTP_4XX, "HTTP 404", status=404)
    sha256, hashes = f"{place:064x}", random.bytes(80)
    record = ImageRecord(
        sha256=sha256, extension="jpg", width=640, height=480, orientation=1, phash=hashes[:8].hex(), num_bytes=1, state=State.KEPT,
        reason=Reason.NONE, licence=licence, source="s", query="q", class_name="class1", source_url="http://x.test/", page_url="",
        domain="x.test", found_at="", extra={"signature": "A" * 768, "sha1": f"{place:040x}"},
    )  # fmt: skip
    return Settlement(place, State.KEPT, sha256=sha256, image=record, windows=hashes[8:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="100,000 rows instead of a million")
    number = 100_000 if parser.parse_args().quick else 1_000_000
    first_request: list[float] = []

    async def serve(path: str, _headers: dict[str, str], writer: asyncio.StreamWriter) -> bool:
        first_request.append(time.time())
        writer.write(answer(jpeg(int(path[1:]))))
        await writer.drain()
        return True

    with tempfile.TemporaryDirectory() as root, HostileServer(serve) as server:
        dataset = Workspace.at(root).new_dataset("bench")
        definition.create(dataset, definition.template("bench", [(1, "class1")]))
        with Ledger(dataset.ledger) as ledger:
            started = time.process_time()
            fill(ledger, server.url(""), number)
            filled_s = time.process_time() - started
        with Ledger(dataset.ledger) as ledger:
            cpu, wall = time.process_time(), time.monotonic()
            counts = ledger.counts()
            counted = {"cpu_s": round(time.process_time() - cpu, 3), "wall_s": round(time.monotonic() - wall, 3)}
        status, status_cpu_s = child(_STATUS, root)
        begun = time.time()
        resumed, resumed_cpu_s = child(_RESUME, root)
        document = {
            "rows": number, "megabytes": round(dataset.ledger.stat().st_size / 1e6), "fill_cpu_s": round(filled_s, 1),
            "counts": {**counted, "urls": sum(counts.states.values())},
            "status --why": {"after_imports": status, "whole_process_cpu_s": status_cpu_s},
            "resume": {
                "first_request_after_start_s": round(first_request[0] - begun, 2),
                "first_request_after_imports_s": round(first_request[0] - resumed["opened"], 2),
                "cpu_s_of_50_images": resumed_cpu_s,
                "largest_rss_mb": round(resumed["rss_mb"]),
            },
        }  # fmt: skip
    sys.stdout.write(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
