"""Download speed against img2dataset, in images per CPU-second, over plain HTTP and over HTTPS with many host names.

    python tests/benchmarks/bench_download.py [--quick] [--all] [--runs N]

A server in a process of its own serves real files from loopback addresses (127.0.h.1: each a host of its own, named in the
certificate). Both downloaders fetch the same list, politeness off; the CPU of their children counts, the server's does not.
Ours fetches, validates, hashes, scores, deduplicates, stores and keeps a ledger, by aiohttp and, where it is installed, by PycURL;
`disable_all_reencoding=True`, into `files` and into `webdataset`. Over HTTPS both trust the system's authorities and the
server's certificate, by one bundle named in SSL_CERT_FILE.

Every run is a process of its own. A first run of twenty URLs, which is not counted, leaves compiled bytecode for both (some
systems forbid it by PYTHONDONTWRITEBYTECODE); further such runs tell what starting costs, and so what each further image does:
two lines on stderr, and in the JSON up to how many images ours is three times, twice and once as fast. With `--runs` the
contenders take turns, and the medians count.

img2dataset is taken from the virtual environment that BOXWRIGHT_PEERS names, and left out where there is none. Let it be alone there:
beside torch, which it then imports, its start takes more than twice as long. Prints JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import itertools
import json
import multiprocessing
import os
import resource
import ssl
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.collect.certificates import certificate  # noqa: E402

DATA = Path(os.environ.get("BOXWRIGHT_TEST_DATA") or ROOT.parent / "shared" / "data")
NUM_HOSTS = 250

_PEER = """
import sys
from img2dataset import download
if __name__ == "__main__":
    download(url_list=sys.argv[1], input_format="txt", output_folder=sys.argv[2], output_format=sys.argv[3], resize_mode="no",
             disable_all_reencoding=True, processes_count=2, thread_count=32, enable_wandb=False, number_sample_per_shard=1000,
             disallowed_header_directives=[])
"""


def authorities() -> Path:
    """The bundle that every client on this system loads (about 150 authorities)."""
    system = Path(ssl.get_default_verify_paths().openssl_cafile)
    if system.is_file():
        return system
    import certifi

    return Path(certifi.where())


def hosts() -> list[str]:
    return [f"127.0.{number}.1" for number in range(1, NUM_HOSTS + 1)]


def serve(files: list[Path], pem: Path | None, ports: Any) -> None:
    """The server's process: keep-alive HTTP, each file at /n."""
    bodies = [path.read_bytes() for path in files]
    answers = [b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(body) + body for body in bodies]

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(answers[int(head.split(b" ", 2)[1].lstrip(b"/").split(b"?")[0]) % len(answers)])
                await writer.drain()
                if b"connection: close" in head.lower():
                    break
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            pass
        finally:
            writer.close()

    async def main() -> None:
        context = None
        if pem:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(pem)
        server = await asyncio.start_server(connection, "0.0.0.0", 0, ssl=context, backlog=1024)
        ports.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(main())


def ours(urls: list[str], folder: Path, client: str = "aiohttp", profile: bool = False) -> dict[str, Any]:
    """Run in a process of its own, so that its CPU and that of its children can be told."""
    code = "import sys; sys.path.insert(0, sys.argv[1]); from tests.benchmarks.bench_download import run_ours; run_ours(sys.argv[2:])"
    (folder / "urls.txt").write_text("\n".join(urls))
    result = _measured([sys.executable, "-c", code, str(ROOT), str(folder), client, "profile" if profile else ""])
    return result | {"images": sum(result["states"].get(state, 0) for state in ("KEPT", "DUPLICATE"))}


def run_ours(arguments: list[str]) -> None:
    from collect import definition
    from collect.ledger import Ledger
    from collect.net.domains import registrable_domain
    from collect.pipeline import DownloadSettings, Pipeline
    from collect.records import Candidate, Licence
    from collect.workspace import Workspace

    folder = Path(arguments[0])
    dataset = Workspace.at(folder).new_dataset("bench")
    made = definition.create(dataset, definition.template("bench", [(1, "thing")]))
    # Every image is kept, as with the peer: no duplicates by nearness, no limits on quality.
    policy = replace(made.collect, min_side_px=1, max_aspect=0.0, max_blank=1.0, max_dark=1.0, max_blur=1.0, max_watermark=1.0)
    urls = (folder / "urls.txt").read_text().split()
    with Ledger(dataset.ledger) as ledger:
        ledger.add_finds((Candidate(url, "urls", "q", "thing", licence=Licence("CC0-1.0")), registrable_domain(url)) for url in urls)
        with Pipeline(
            dataset, replace(made, collect=policy), ledger, DownloadSettings(("127.0.0.0/8",), polite=False, client=arguments[1])
        ) as pipeline:
            if arguments[2]:
                import cProfile
                import pstats

                profiler = cProfile.Profile()
                profiler.runcall(pipeline.drain)
                pstats.Stats(profiler, stream=sys.stderr).sort_stats("tottime").print_stats(35)
            else:
                pipeline.drain()
        own, workers = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
        split = {"main_cpu_s": own.ru_utime + own.ru_stime, "decoders_cpu_s": workers.ru_utime + workers.ru_stime}
        result = {"states": pipeline.progress.states, "reasons": pipeline.progress.reasons, **split}
        sys.stdout.write(json.dumps(result) + "\n")


def peer_python() -> Path:
    return Path(os.environ.get("BOXWRIGHT_PEERS", "/nonexistent")) / "bin" / "python"


def peer(urls: list[str], folder: Path, output: str) -> dict[str, Any]:
    (folder / "urls.txt").write_text("\n".join(urls))
    (folder / "peer.py").write_text(_PEER)
    result = _measured([str(peer_python()), str(folder / "peer.py"), str(folder / "urls.txt"), str(folder / "out"), output])
    stats = [json.loads(path.read_text()) for path in (folder / "out").glob("*_stats.json")]
    return result | {"images": sum(entry["successes"] for entry in stats)}


def _measured(command: list[str]) -> dict[str, Any]:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if "profile" in command:
        sys.stderr.write(done.stderr[-9000:])
    return {"cpu_s": round(cpu_s, 2), **(json.loads(lines[-1]) if lines else {})}


Contender = Callable[..., dict[str, Any]]


def compare(scheme: str, files: list[Path], num_urls: int, arguments: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        pem = certificate(folder, hosts()) if scheme == "https" else None
        if pem:
            bundle = folder / "bundle.pem"
            bundle.write_bytes(authorities().read_bytes() + pem.read_bytes())
            os.environ["SSL_CERT_FILE"] = str(bundle)
        receive, send = multiprocessing.Pipe(duplex=False)
        server = multiprocessing.get_context("spawn").Process(target=serve, args=(files, pem, send), daemon=True)
        server.start()
        try:
            port = receive.recv()
            urls = [f"{scheme}://{host}:{port}/{number}" for number, host in zip(range(num_urls), itertools.cycle(hosts()), strict=False)]
            if arguments.profile:
                return {name: contender(urls, fresh(folder), profile=True) for name, contender in own_contenders().items()}
            return judged(contenders(), urls, folder, arguments.runs)
        finally:
            server.terminate()
            server.join()


def own_contenders() -> dict[str, Contender]:
    """Ours, by each HTTP client that is installed."""
    found: dict[str, Contender] = {"boxwright": ours}
    if importlib.util.find_spec("pycurl"):
        found["boxwright pycurl"] = partial(ours, client="pycurl")
    return found


def contenders() -> dict[str, Contender]:
    found = own_contenders()
    if peer_python().exists():
        for output in ("files", "webdataset"):
            found[f"img2dataset {output}"] = partial(peer, output=output)
    return found


def started(contender: Contender, urls: list[str], folder: Path, runs: int) -> float:
    """CPU seconds of a run of twenty images, the median of so many; the first, which may compile bytecode, does not count."""
    return statistics.median([contender(urls[:20], fresh(folder))["cpu_s"] for _ in range(runs + 1)][1:])


def judged(contenders: dict[str, Contender], urls: list[str], folder: Path, runs: int) -> dict[str, Any]:
    """For each contender its median run, and how many times its images per CPU-second ours are."""
    starts = {name: started(contender, urls, folder, runs) for name, contender in contenders.items()}
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in contenders}
    for _ in range(runs):
        for name, contender in contenders.items():
            results[name].append(contender(urls, fresh(folder)))
    judged: dict[str, Any] = {}
    for name, measured in results.items():
        cpu_s = statistics.median(result["cpu_s"] for result in measured)
        images = min(result["images"] for result in measured)
        judged[name] = {
            "cpu_s_of_each_run": [result["cpu_s"] for result in measured], "images": images, "images_per_cpu_s": round(images / cpu_s, 1),
            "start_cpu_s": starts[name], "ms_per_further_image": round((cpu_s - starts[name]) / (images - 20) * 1000, 2),
            "last": measured[-1],
        }  # fmt: skip
    own = own_contenders()
    for name in judged.keys() - own.keys():
        judged[name]["against"] = {mine: ratios(judged[mine], judged[name]) for mine in own}
    return judged


def ratios(mine: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """How many times the other's images per CPU-second ours are: as measured, but for the starts, and up to how many images."""
    return {
        "ours_is_faster_by": round(mine["images_per_cpu_s"] / other["images_per_cpu_s"], 2),
        "without_start_by": round(other["ms_per_further_image"] / mine["ms_per_further_image"], 2),
        "images_up_to_which_ours_is_faster_by": {str(times): crossing(mine, other, times) for times in (3, 2, 1)},
    }


def crossing(mine: dict[str, Any], other: dict[str, Any], times: int) -> int | None:
    """Up to how many images ours takes at most a so many-th of the other's CPU, by their starts and further images; None = always."""
    further_s = (times * mine["ms_per_further_image"] - other["ms_per_further_image"]) / 1000
    return max(0, round((other["start_cpu_s"] - times * mine["start_cpu_s"]) / further_s)) if further_s > 0 else None


def spoken(results: dict[str, Any]) -> list[str]:
    """The two lines that tell the ratio at any number of images: what a start costs, and what each further image."""
    starts = ", ".join(f"{name} {result['start_cpu_s']:.2f} CPU-s" for name, result in results.items())
    further = ", ".join(f"{name} {result['ms_per_further_image']:.2f} ms" for name, result in results.items())
    return [f"start-up: {starts}", f"each further image: {further}"]


def fresh(folder: Path) -> Path:
    """An empty folder. What the runs before left stays until the end: ext4 looks for minutes at each inode that was just freed
    before it gives out another, which makes a file after a deletion ten times as dear as one in a collection.
    """
    return Path(tempfile.mkdtemp(dir=folder))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="400 images instead of all")
    parser.add_argument("--all", action="store_true", help="more sets of photos than the two: tells better what a further image costs")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--profile", action="store_true", help="show where our time goes")
    parser.add_argument("--scheme", choices=("http", "https"), action="append")
    arguments = parser.parse_args()
    sets = ("face-crops", "raccoon", *(("facemask-coco", "bccd", "voc20-in-nine-formats") if arguments.all else ()))
    files = sorted(path for name in sets for path in (DATA / name).rglob("*") if path.suffix.lower() in {".jpg", ".png", ".jpeg"})
    num_urls = 400 if arguments.quick else len(files)
    document = {scheme: compare(scheme, files, num_urls, arguments) for scheme in arguments.scheme or ("http", "https")}
    if not arguments.profile:
        for scheme, results in document.items():
            sys.stderr.write("".join(f"{scheme}, {line}\n" for line in spoken(results)))
    sys.stdout.write(json.dumps({"images": num_urls, "hosts": NUM_HOSTS, **document}, indent=1) + "\n")


if __name__ == "__main__":
    main()
