"""How often the gate errs: on simulated test sets, and on real detections (coco-fake100) drawn anew.

    python tests/benchmarks/bench_gate.py [--quick]

A gate of non-inferiority can err in three ways, and each has its rate here:
- `let_in_worse`: promotes a challenger that is truly worse by exactly ε (alpha is 2.5 %; wanted: at most 5 %);
- `called_better`: calls an equal challenger "better" (A/A; at most 5 %);
- `blocked_minus_2`: blocks a challenger that is truly 2 AP worse at 1,000 test images (at least 80 %).
Besides `passed_equal`, the share of equal challengers that it lets in: that is the gate's purpose and no error.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from annotate.coco import Category  # noqa: E402
from train.judging.evaluate import evaluate  # noqa: E402
from train.loop.evidence import Candidate, gather  # noqa: E402
from train.loop.gate import Finding, Policy, decide  # noqa: E402

CLASSES = 3
CATEGORIES = [Category(number, f"class{number}") for number in range(1, CLASSES + 1)]
EPSILON = Policy().epsilon


@dataclass(frozen=True)
class World:
    """Draws a test set of N images and, for a loss of quality, champion and challenger on it."""

    draw: Callable[[np.random.Generator, int, float], tuple[dict, list[dict], list[dict]]]
    categories: list[Category]


def simulated(rng: np.random.Generator, num_images: int, loss: float) -> tuple[dict, list[dict], list[dict]]:
    """A test set with 2 to 6 boxes an image; both models share a box's difficulty and have noise of their own."""
    counts = rng.integers(2, 7, num_images)
    image = np.repeat(np.arange(1, num_images + 1), counts)
    total = len(image)
    category = rng.choice(np.arange(1, CLASSES + 1), total, p=[0.6, 0.3, 0.1])
    boxes = np.column_stack([rng.uniform(0, 400, (total, 2)), rng.uniform(20, 120, (total, 2))])
    difficulty = rng.normal(size=total)
    images = [{"id": number, "file_name": f"{number}.jpg", "width": 640, "height": 640} for number in range(1, num_images + 1)]
    annotations = [
        {"id": k + 1, "image_id": int(image[k]), "category_id": int(category[k]), "bbox": boxes[k].tolist(),
         "area": float(boxes[k, 2] * boxes[k, 3]), "iscrowd": 0}
        for k in range(total)
    ]  # fmt: skip
    document = {"images": images, "annotations": annotations, "categories": [{"id": c.id, "name": c.name} for c in CATEGORIES]}
    false = rng.integers(1, num_images + 1, num_images), rng.integers(1, CLASSES + 1, num_images)
    false_boxes = np.column_stack([rng.uniform(0, 400, (num_images, 2)), rng.uniform(20, 120, (num_images, 2))])

    def model(extra_loss: float) -> list[dict]:
        skill = -0.7 * difficulty + 0.7 * rng.normal(size=total)
        found = rng.random(total) > 0.15 + extra_loss
        jitter = np.exp(rng.normal(-2.6 - 0.35 * skill, 0.3, total))
        moved = boxes + rng.normal(size=(total, 4)) * jitter[:, None] * boxes[:, [2, 3, 2, 3]] * 0.7
        moved[:, 2:] = moved[:, 2:].clip(2)
        score = 1 / (1 + np.exp(-(1.5 * skill + 1 + rng.normal(size=total))))
        wrong = 1 / (1 + np.exp(-rng.normal(-1.2, 1.2, num_images)))
        rows = [(image[k], category[k], moved[k], score[k]) for k in np.flatnonzero(found)]
        rows += [(false[0][k], false[1][k], false_boxes[k], wrong[k]) for k in range(num_images)]
        return [{"image_id": int(i), "category_id": int(c), "bbox": b.tolist(), "score": float(s)} for i, c, b, s in rows]

    return document, model(0.0), model(loss)


def real_world(folder: Path) -> World:
    """COCO's own fake detections on 100 real images: images are drawn with replacement, both models get noise of their own."""
    truth = json.loads((folder / "ground_truth.json").read_bytes())
    results = json.loads((folder / "detections_bbox.json").read_bytes())
    there = {entry["image_id"] for entry in results}
    ids = [entry["id"] for entry in truth["images"] if entry["id"] in there]
    size = {entry["id"]: entry for entry in truth["images"]}
    of_truth = {number: [a for a in truth["annotations"] if a["image_id"] == number] for number in ids}
    of_results = {number: [a for a in results if a["image_id"] == number] for number in ids}

    def draw(rng: np.random.Generator, num_images: int, loss: float) -> tuple[dict, list[dict], list[dict]]:
        chosen = rng.choice(ids, num_images)
        images, annotations, models = [], [], ([], [])
        for number, source in enumerate(chosen.tolist(), 1):
            images.append({**size[source], "id": number})
            annotations += [{**a, "image_id": number, "id": len(annotations) + k} for k, a in enumerate(of_truth[source], 1)]
            for entry in of_results[source]:
                for place, share in ((0, 0.04), (1, 0.04 + loss)):
                    if rng.random() >= share:
                        box = np.array(entry["bbox"]) + rng.normal(size=4) * 0.02 * np.array(entry["bbox"])[[2, 3, 2, 3]]
                        score = entry["score"] + rng.normal() * 0.05
                        models[place].append({**entry, "image_id": number, "bbox": box.tolist(), "score": float(score)})
        return {**truth, "images": images, "annotations": annotations}, *models

    return World(draw, [Category(c["id"], c["name"]) for c in truth["categories"]])


def loss_for(world: World, wanted: float, images: int) -> float:
    """The share of extra misses that costs `wanted` AP. Without a loss Δ is 0 by symmetry, so one large loss gives the slope."""
    large = 0.15
    document, champion, challenger = world.draw(np.random.default_rng(12345), images, large)
    fall = evaluate(document, champion).stats[0] - evaluate(document, challenger).stats[0]
    return large * wanted / fall


def rates(world: World, num_images: int, loss: float, trials: int, policy: Policy, resamples: int) -> dict[str, float]:
    promoted = better = worse = told = 0
    widths = []
    for trial in range(trials):
        document, champion, challenger = world.draw(np.random.default_rng([num_images, trial, round(loss * 1e6)]), num_images, loss)
        evidence = gather(document, Candidate(world.categories, champion), Candidate(world.categories, challenger), {}, resamples, trial)
        verdict = decide(evidence, policy)
        promoted += verdict.promoted
        better += verdict.finding == Finding.BETTER
        worse += verdict.finding in {Finding.WORSE, Finding.CLASS_FELL}
        told += verdict.interval[0] <= 0 <= verdict.interval[1]
        widths.append(verdict.interval[1] - verdict.interval[0])
    return {
        "trials": trials,
        "promoted": promoted / trials,
        "called_better": better / trials,
        "called_worse": worse / trials,
        "interval_holds_zero": told / trials,
        "mean_width_ap": 100 * float(np.mean(widths)),
    }


def speed() -> dict[str, float]:
    """CPU-seconds of 1,000 resamples of 500 images, both models, matching included."""
    document, champion, challenger = simulated(np.random.default_rng(0), 500, 0.01)
    started = time.process_time()
    gather(document, Candidate(CATEGORIES, champion), Candidate(CATEGORIES, challenger), {}, 1000)
    return {"resamples": 1000, "images": 500, "cpu_s": time.process_time() - started}


def study(name: str, world: World, sizes: tuple[int, ...], trials: int, large: int, resamples: int) -> dict[str, object]:
    policy = Policy(epsilon=EPSILON)
    loss_epsilon, loss_two = loss_for(world, EPSILON, large), loss_for(world, 0.02, large)
    rows = []
    for size in sizes:
        equal = rates(world, size, 0.0, trials, policy, resamples)
        margin = rates(world, size, loss_epsilon, trials, policy, resamples)
        two = rates(world, size, loss_two, trials, policy, resamples)
        rows.append(
            {
                "images": size,
                "called_better": equal["called_better"],
                "passed_equal": equal["promoted"],
                "let_in_worse": margin["promoted"],
                "blocked_minus_2": 1 - two["promoted"],
                "called_worse_minus_2": two["called_worse"],
                "interval_holds_zero": equal["interval_holds_zero"],
                "mean_width_ap": equal["mean_width_ap"],
            }
        )
        sys.stderr.write(f"{name} {rows[-1]}\n")
    return {"world": name, "trials": trials, "resamples": resamples, "epsilon": EPSILON, "alpha": policy.alpha, "by_size": rows}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    trials, large, resamples = (30, 4000, 200) if quick else (100, 10000, 400)
    document: dict[str, object] = {"speed": speed()}
    studies = [study("simulated", World(simulated, CATEGORIES), (1000,) if quick else (300, 1000), trials, large, resamples)]
    data = Path(os.environ.get("BOXWRIGHT_TEST_DATA") or ROOT.parent / "shared" / "data") / "evaluation" / "coco-fake100"
    if data.is_dir():
        studies.append(study("coco-fake100", real_world(data), (1000,), max(20, trials // 3), 2000, resamples))
    document["studies"] = studies
    sys.stdout.write(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
