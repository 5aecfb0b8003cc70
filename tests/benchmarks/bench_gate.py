"""How often the gate errs: on simulated test sets, and on real detections (coco-fake100) drawn anew.

    python tests/benchmarks/bench_gate.py [--quick] [--trials N]

Champion and challenger are drawn from the same distribution (A/A), or the challenger misses more boxes, or fewer, by as much
as costs a stated AP. Every pair is judged twice: with ε = 0, the default, and with ε = .5 AP, as one may declare it.

- `promoted_equal`: A/A, promoted (wanted: at most 5 %); with ε > 0 that is what one asks for, and no error;
- `class_fell_equal`: A/A, a class "fell significantly" (at most 5 %), with 3, 20 and 80 classes;
- `blocked_minus_2`: a true loss of 2 AP blocked (at least 80 % at 1,000 images); `promoted_plus_2`: a true gain of 2 AP let in;
- `promoted_minus_epsilon`: a true loss of .5 AP let in (2.5 % by design where ε = .5 AP);
- `shown_at_needed_size`: a true gain of 2 AP, judged at the size that the gate says it takes (80 % by design).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from annotate.coco import Category  # noqa: E402
from train.judging.evaluate import evaluate  # noqa: E402
from train.loop.evidence import Candidate, gather  # noqa: E402
from train.loop.gate import Policy, Verdict, decide  # noqa: E402

EPSILON = 0.005
POLICIES = {"epsilon_0": Policy(), "epsilon_half_ap": Policy(epsilon=EPSILON)}
TWO = 0.02


@dataclass(frozen=True)
class World:
    """Draws a test set of N images and, for a loss of quality, champion and challenger on it."""

    draw: Callable[[np.random.Generator, int, float], tuple[dict, list[dict], list[dict]]]
    categories: list[Category]


def simulated(num_classes: int) -> World:
    """Test sets with 2 to 6 boxes an image, classes ever rarer; both models share a box's difficulty, with noise of their own."""
    categories = [Category(number, f"class{number}") for number in range(1, num_classes + 1)]
    shares = 0.8 ** np.arange(num_classes)
    return World(lambda rng, images, loss: _simulated(rng, images, loss, categories, shares / shares.sum()), categories)


def _simulated(
    rng: np.random.Generator, num_images: int, loss: float, categories: list[Category], shares_C: np.ndarray
) -> tuple[dict, list[dict], list[dict]]:
    counts = rng.integers(2, 7, num_images)
    image = np.repeat(np.arange(1, num_images + 1), counts)
    total = len(image)
    category = rng.choice(np.arange(1, len(categories) + 1), total, p=shares_C)
    boxes = np.column_stack([rng.uniform(0, 400, (total, 2)), rng.uniform(20, 120, (total, 2))])
    difficulty = rng.normal(size=total)
    images = [{"id": number, "file_name": f"{number}.jpg", "width": 640, "height": 640} for number in range(1, num_images + 1)]
    annotations = [
        {"id": k + 1, "image_id": int(image[k]), "category_id": int(category[k]), "bbox": boxes[k].tolist(),
         "area": float(boxes[k, 2] * boxes[k, 3]), "iscrowd": 0}
        for k in range(total)
    ]  # fmt: skip
    document = {"images": images, "annotations": annotations, "categories": [{"id": c.id, "name": c.name} for c in categories]}
    false = rng.integers(1, num_images + 1, num_images), rng.choice(np.arange(1, len(categories) + 1), num_images, p=shares_C)
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
                for place, missed in ((0, 0.1), (1, 0.1 + loss)):
                    if rng.random() >= missed:
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


def judged(world: World, images: int, loss: float, trials: int, resamples: int) -> list[dict[str, Verdict]]:
    """Each trial's verdict under each policy."""
    rows = []
    for trial in range(trials):
        document, champion, challenger = world.draw(np.random.default_rng([images, trial, round((loss + 1) * 1e6)]), images, loss)
        evidence = gather(document, Candidate(world.categories, champion), Candidate(world.categories, challenger), {}, resamples, trial)
        rows.append({name: decide(evidence, policy) for name, policy in POLICIES.items()})
    return rows


def share(rows: list[dict[str, Verdict]], policy: str, holds: Callable[[Verdict], bool]) -> float:
    return sum(holds(row[policy]) for row in rows) / len(rows)


def rates(world: World, images: int, trials: int, others: int, large: int, resamples: int) -> dict[str, object]:
    """The rates at one size: `trials` of A/A, `others` of each true difference (none where 0)."""
    equal = judged(world, images, 0.0, trials, resamples)
    row: dict[str, object] = {
        "images": images,
        "trials_equal": trials,
        "trials_other": others,
        "class_fell_equal": share(equal, "epsilon_0", lambda v: bool(v.fallen)),
        "interval_holds_zero": share(equal, "epsilon_0", lambda v: v.interval[0] <= 0 <= v.interval[1]),
        "mean_width_ap": 100 * float(np.mean([r["epsilon_0"].interval[1] - r["epsilon_0"].interval[0] for r in equal])),
        **{name: {"promoted_equal": share(equal, name, lambda v: v.promoted)} for name in POLICIES},
    }
    if others:
        slope = loss_for(world, TWO, large)
        worse, better, little = (judged(world, images, slope * step, others, resamples) for step in (1.0, -1.0, EPSILON / TWO))
        for name in POLICIES:
            row[name] = {
                "promoted_equal": share(equal, name, lambda v: v.promoted),
                "blocked_minus_2": share(worse, name, lambda v: not v.promoted),
                "promoted_plus_2": share(better, name, lambda v: v.promoted),
                "promoted_minus_epsilon": share(little, name, lambda v: v.promoted),
            }
    sys.stderr.write(f"{json.dumps(row)}\n")
    return row


def at_needed_size(world: World, small: int, trials: int, large: int, resamples: int) -> dict[str, float]:
    """How often a true gain of 2 AP is shown at the size that the gate would name for it, from the spread on a small test set."""
    slope = loss_for(world, TWO, large)
    spreads = []
    for trial in range(10):
        document, champion, challenger = world.draw(np.random.default_rng([small, trial]), small, -slope)
        told = gather(document, Candidate(world.categories, champion), Candidate(world.categories, challenger), {}, resamples, trial)
        seen = replace(told, overall=replace(told.overall, champion=0.5, challenger=0.5 + TWO, samples_R=_around(told.overall.samples_R)))
        spreads.append(decide(seen).needed_images or small)
    needed = int(np.median(spreads))
    rows = judged(world, needed, -slope, trials, resamples)
    return {"from_images": small, "needed_images": needed, "shown_at_needed_size": share(rows, "epsilon_0", lambda v: v.promoted)}


def _around(samples_R: np.ndarray) -> np.ndarray:
    """The same spread about a Δ of 2 AP."""
    return samples_R - np.nanmean(samples_R) + TWO


def speed() -> dict[str, float]:
    """CPU-seconds of 1,000 resamples of 500 images, both models, matching included."""
    world = simulated(3)
    document, champion, challenger = world.draw(np.random.default_rng(0), 500, 0.01)
    started = time.process_time()
    gather(document, Candidate(world.categories, champion), Candidate(world.categories, challenger), {}, 1000)
    return {"resamples": 1000, "images": 500, "cpu_s": time.process_time() - started}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--trials", type=int, default=120, help="A/A trials per row (default: %(default)s)")
    arguments = parser.parse_args()
    trials, large, resamples = (30, 2000, 200) if arguments.quick else (arguments.trials, 4000, 400)
    others = trials // 3
    document: dict[str, object] = {"speed": speed(), "resamples": resamples, "alpha": Policy().alpha}
    three, twenty = simulated(3), simulated(20)
    rows = {"simulated, 3 classes": [rates(three, size, trials, others, large, resamples) for size in (300, 1000)]}
    rows["simulated, 20 classes"] = [rates(twenty, 1000, trials, 0, large, resamples)]
    data = Path(os.environ.get("BOXWRIGHT_TEST_DATA") or ROOT.parent / "shared" / "data") / "evaluation" / "coco-fake100"
    if data.is_dir():
        rows["coco-fake100 drawn anew, 80 classes"] = [rates(real_world(data), 1000, trials, others, large, resamples)]
    document |= {"rates": rows, "needed": at_needed_size(three, 100, others, large, resamples)}
    sys.stdout.write(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
