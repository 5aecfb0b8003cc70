"""Evaluation against pycocotools, and bootstrap intervals against hotcoco.compare, in the same run.

    python tests/benchmarks/bench_evaluation.py [--quick]

5,000 images, 35,760 boxes of 80 classes, 500,000 detections, as many as COCO's val2017 and a detector with a low threshold;
each side is a process of its own, loading included. Prints one JSON document: CPU-seconds (user and system, all threads),
peak memory, whether the twelve numbers are equal to the last bit, and ratios. The aim, 1 CPU-second, was set where pycocotools took
39.1, so that `times_faster` of 39.1 is it on a machine of any speed.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import orjson

ROOT = Path(__file__).parents[2]
AIM_TIMES_FASTER = 39.1

OURS = """
import sys
from pathlib import Path
from train.judging.evaluate import evaluate_files
result = evaluate_files(Path(sys.argv[1]), Path(sys.argv[2])).stats
"""
PYCOCOTOOLS = """
import contextlib, io, sys
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
with contextlib.redirect_stdout(io.StringIO()):
    gt = COCO(sys.argv[1])
    evaluator = COCOeval(gt, gt.loadRes(sys.argv[2]), "bbox")
    evaluator.evaluate(); evaluator.accumulate(); evaluator.summarize()
result = evaluator.stats.tolist()
"""
HOTCOCO = """
import contextlib, io, sys
import hotcoco
gt = hotcoco.COCO(sys.argv[1])
evaluator = hotcoco.COCOeval(gt, gt.load_res(sys.argv[2]), "bbox")
evaluator.evaluate(); evaluator.accumulate()
with contextlib.redirect_stdout(io.StringIO()):
    evaluator.summarize()
result = list(evaluator.stats)
"""
OUR_INTERVAL = """
import sys
import orjson
from pathlib import Path
from train.judging.intervals import paired
gt, a, b = (orjson.loads(Path(name).read_bytes()) for name in sys.argv[1:4])
result = paired(gt, a, b, resamples=int(sys.argv[4])).to_json()
result.pop("per_category")
"""
HOTCOCO_INTERVAL = """
import sys
import hotcoco
gt = hotcoco.COCO(sys.argv[1])
sides = [hotcoco.COCOeval(gt, gt.load_res(name), "bbox") for name in sys.argv[2:4]]
for side in sides:
    side.evaluate()
told = hotcoco.compare(*sides, n_bootstrap=int(sys.argv[4]))
result = {"delta_ap": {"point": told["deltas"]["AP"], "low": told["ci"]["AP"]["lower"], "high": told["ci"]["AP"]["upper"]}}
"""
TAIL = """
import json, resource
used = resource.getrusage(resource.RUSAGE_SELF)
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps({"result": result, "cpu_s": used.ru_utime + used.ru_stime, "peak_mb": peak / 1024}))
"""


def measured(code: str, *words: object) -> dict[str, Any]:
    """The result, CPU-seconds and peak memory of a process that runs `code`, interpreter start included."""
    command = [sys.executable, "-c", code + TAIL, *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    answer: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return answer


def best_of(times: int, code: str, *words: object) -> dict[str, Any]:
    """The run with the least CPU-seconds: on a machine that others use, the nearest to what the work costs."""
    return min((measured(code, *words) for _ in range(times)), key=lambda run: run["cpu_s"])


def write_set(folder: Path, images: int, boxes: int, detections: int, classes: int = 80, seed: int = 0) -> tuple[Path, Path, Path]:
    """A ground truth and the detections of two detectors, with COCO's proportions of sizes and one crowd in a hundred."""
    rng = np.random.default_rng(seed)
    image, category = rng.integers(0, images, boxes), np.minimum(rng.geometric(0.05, boxes) - 1, classes - 1)
    size = np.exp(rng.uniform(np.log(8), np.log(300), (boxes, 2)))
    box = np.round(np.c_[rng.uniform(0, 1, (boxes, 2)) * np.maximum([640, 480] - size, 1), size], 2)
    truth = {
        "images": [{"id": number + 1, "width": 640, "height": 480, "file_name": f"{number}.jpg"} for number in range(images)],
        "categories": [{"id": number + 1, "name": f"class {number}"} for number in range(classes)],
        "annotations": [
            {
                "id": row + 1,
                "image_id": int(image[row]) + 1,
                "category_id": int(category[row]) + 1,
                "bbox": box[row].tolist(),
                "area": round(float(box[row, 2] * box[row, 3] * 0.7), 2),
                "iscrowd": int(crowd),
            }
            for row, crowd in enumerate(rng.random(boxes) < 0.01)
        ],
    }
    paths = [folder / name for name in ("gt.json", "a.json", "b.json")]
    paths[0].write_bytes(orjson.dumps(truth))
    for path, noise in zip(paths[1:], (0.08, 0.07), strict=True):
        path.write_bytes(orjson.dumps(list(_detections(rng, image, category, box, detections, images, classes, noise))))
    return paths[0], paths[1], paths[2]


def _detections(rng: np.random.Generator, image: Any, category: Any, box: Any, count: int, images: int, classes: int, noise: float) -> Any:
    source, near = rng.integers(0, len(image), count), rng.random(count) < 0.35
    shifted = box[source] + rng.normal(0, noise, (count, 4)) * np.tile(box[source][:, 2:], 2)
    shifted[:, 2:] = np.maximum(shifted[:, 2:], 1)
    elsewhere = np.c_[rng.uniform(0, 500, (count, 2)), np.exp(rng.uniform(2, 5, (count, 2)))]
    found = np.round(np.where(near[:, None], shifted, elsewhere), 2).tolist()
    images_D = np.where(near, image[source], rng.integers(0, images, count)) + 1
    classes_D = np.where(near, category[source], rng.integers(0, classes, count)) + 1
    scores = np.round(np.where(near, rng.beta(3, 2, count), rng.beta(1, 6, count)), 3).tolist()
    for row in range(count):
        yield {"image_id": int(images_D[row]), "category_id": int(classes_D[row]), "bbox": found[row], "score": scores[row]}


def main() -> None:
    quick = "--quick" in sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        images, boxes, detections = (500, 3_576, 50_000) if quick else (5_000, 35_760, 500_000)
        gt, a, _ = write_set(Path(folder), images, boxes, detections)
        ours, peer = best_of(3, OURS, gt, a), measured(PYCOCOTOOLS, gt, a)
        bare = best_of(3, HOTCOCO, gt, a)
        evaluation = {
            "images": images,
            "boxes": boxes,
            "detections": detections,
            "boxwright": {key: round(ours[key], 3) for key in ("cpu_s", "peak_mb")},
            "hotcoco alone": {key: round(bare[key], 3) for key in ("cpu_s", "peak_mb")},
            "pycocotools": {key: round(peer[key], 3) for key in ("cpu_s", "peak_mb")},
            "times_faster": round(peer["cpu_s"] / ours["cpu_s"], 1),
            "aim_times_faster": AIM_TIMES_FASTER,
            "bit_equal": ours["result"] == peer["result"],
            "AP": ours["result"][0],
        }
    with tempfile.TemporaryDirectory() as folder:
        resamples = 100 if quick else 1000
        gt, a, b = write_set(Path(folder), 500, 3_576, 50_000, seed=1)
        ours, peer = measured(OUR_INTERVAL, gt, a, b, resamples), measured(HOTCOCO_INTERVAL, gt, a, b, resamples)
        intervals = {
            "images": 500,
            "resamples": resamples,
            "boxwright": {**{key: round(ours[key], 3) for key in ("cpu_s", "peak_mb")}, "delta_ap": ours["result"]["delta_ap"]},
            "hotcoco.compare": {**{key: round(peer[key], 3) for key in ("cpu_s", "peak_mb")}, **peer["result"]},
            "times_faster": round(peer["cpu_s"] / ours["cpu_s"], 1),
        }
    machine = {"cpus": os.cpu_count(), "load": os.getloadavg()[0], "children_cpu_s": resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime}
    sys.stdout.write(json.dumps({"evaluation": evaluation, "intervals": intervals, "machine": machine}, indent=2) + "\n")


if __name__ == "__main__":
    main()
