"""How many boxes a reviewer must draw for 95 % of the full mAP: our order against a random one.

    python tests/benchmarks/bench_queue.py [--quick] [--seeds 0,1,2,3,4] [--sets uneven-scenes,scenes,bccd] [--keep FOLDER]
        [--detector fcos|weak] [--cold STEPS] [--told]

A simulated reviewer draws all boxes of the images it is shown, batch after batch; after each, a detector is trained on all that
is drawn but for every fifth image, which is held out as a release holds out its val split, and its COCO mAP taken on images that are
never in the queue. `weak` is `surrogate.py` (frozen MobileNetV2 and a small head, a second a training), `fcos` the product's own
`fcos_mobilenet_v2`, warm-started from batch to batch (`queue_learners.py`). Ours lets `train.loop.rank` order
the waiting images by what the detector of that moment sees in them, as `boxwright queue` does, its scores turned into chances by that val
split (`train.loop.chances`); what waits has no boxes, so what they cost is not known beforehand. Both orders begin
with the same random images and the same initial weights (the seeds are paired). Pools:

    bccd            its train part: blood cells, three classes, 85 : 8 : 7
    scenes          of `boxwright demo`, three classes, about 5 : 3 : 2, spread evenly
    uneven-scenes   the same with most of the rarer classes' images left out of the queue
    facemask-coco   its train part: faces, three classes, 79 : 18 : 3, most of them small

The full mAP is the mean of the random orders' ends, where ours ends too. A weak detector's mAP varies by .02 from training to training,
which near 95 % of the full mAP is much: many seeds are needed. `bench_queue_classes.py` asks the same where trainings have no luck.

`saved` = 1 − mean boxes of ours / mean boxes of random, over the seeds, by mAP at IoU .5 and by COCO's mAP; its 95 % interval is a
bootstrap's over the seeds. (The mean of the seeds' own ratios would mostly tell the luck of the random orders, which lie a factor of two
apart.)

What is drawn early is also trained on for longer, for each training goes on from the one before, and where the set is hard the chain may
end before it has learned what the boxes hold: on facemask-coco 400 steps from ImageNet weights on a random quarter of the boxes gave, in
the mean of two seeds, no less than the chain on all of them (LOG.md, eighth session). With `--cold STEPS` every training is one of that
many steps from ImageNet weights.

`--told` asks what better foresight could bring: our order is told the true boxes of what waits, in place of what the detector sees there.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

import numpy as np  # noqa: E402
from queue_learners import Learner, Shipped, Weak  # noqa: E402
from queue_pools import SETS, Scene, load  # noqa: E402
from surrogate import as_results  # noqa: E402

from train.judging import inputs  # noqa: E402
from train.judging.evaluate import evaluate  # noqa: E402
from train.loop.chances import learned  # noqa: E402
from train.loop.glances import LEAST  # noqa: E402
from train.loop.rank import Glance, Known, Weights, order  # noqa: E402
from train.loop.threshold import UNTOLD  # noqa: E402

GOAL = 0.95
#: What the goal is a share of, the first one before the second.
MEASURES = ("map50", "map")
#: From scene, learner, model, chosen and waiting rows to what is known of each waiting image.
Glancing = Callable[[Scene, Learner, Any, list[int], list[int]], list[Glance]]


class Point(NamedTuple):
    """Where a reviewer stands after a batch: boxes drawn, of which classes, the mAP, also at IoU .5 and by class there."""

    boxes: int
    drawn: list[int]
    map50: float
    map: float
    class_ap50: list[float]


def judged(scene: Scene, learner: Learner, model: Any, chosen: Sequence[int]) -> Point:
    rows = scene.judged
    judgement = evaluate(scene.truth(rows), as_results(learner.detect(model, rows), range(1, len(rows) + 1)))
    labels = np.concatenate([scene.boxes.labels[row] for row in chosen])
    drawn = np.bincount(labels, minlength=len(scene.names)).tolist()
    return Point(len(labels), drawn, judgement.stats[1], judgement.stats[0], [row["ap50"] for row in judgement.per_category])


def held_out(chosen: list[int]) -> tuple[list[int], list[int]]:
    """Train and val of the drawn images."""
    return [row for place, row in enumerate(chosen) if place % 5], chosen[::5]


def told_all(scene: Scene, learner: Learner, _model: Any, _chosen: list[int], waiting: list[int]) -> list[Glance]:
    """The true boxes of the waiting images, as if a model were sure of each."""
    labels = scene.boxes.labels
    return [Glance(str(row), np.ones(len(labels[row])), labels[row], learner.looks_IE[row]) for row in waiting]


def glanced(scene: Scene, learner: Learner, model: Any, chosen: list[int], waiting: list[int]) -> list[Glance]:
    """What the model sees in the waiting images, as `boxwright queue` takes it."""
    _, val = held_out(chosen)
    truth = inputs.truth(scene.truth(val))
    found = as_results(learner.detect(model, val), range(1, len(val) + 1))
    chances = learned(truth, inputs.detections(found, truth)) or (lambda scores_D: np.asarray(scores_D >= UNTOLD, dtype=np.float64))
    glances = []
    for row, (_, labels_D, scores_D) in zip(waiting, learner.detect(model, waiting), strict=True):
        chances_D = chances(scores_D)
        kept_D = chances_D >= LEAST
        glances.append(Glance(str(row), chances_D[kept_D], labels_D[kept_D], learner.looks_IE[row]))
    return glances


class Ours(NamedTuple):
    """Our order: its weights, and where it has what it knows of the waiting images from."""

    weights: Weights = Weights()
    glance: Glancing = glanced


def ranked(scene: Scene, learner: Learner, model: Any, chosen: list[int], waiting: list[int], ours: Ours) -> list[int]:
    """The waiting images in the order of `boxwright queue`."""
    labels = np.concatenate([scene.boxes.labels[row] for row in chosen])
    known = Known(np.bincount(labels, minlength=len(scene.names)), scene.names, learner.looks_IE[chosen])
    return [int(entry.image) for entry in order(ours.glance(scene, learner, model, chosen, waiting), known, ours.weights)]


def curve(scene: Scene, learner: Learner, seed: int, ours: Ours | None, end: Point | None = None) -> list[Point]:
    """After every batch; `ours` None = a random order. `end` = what all the boxes gave to the other order, which ends alike."""
    images = np.random.default_rng(seed).permutation(scene.pool).tolist()
    start = max(8, round(0.04 * len(images)))
    chosen, waiting = images[:start], images[start:]
    total = scene.boxes.count(images)
    points: list[Point] = []
    model: Any = None
    for share in (0.0, *(learner.shares[:-1] if end else learner.shares)):
        if model is not None and ours is not None:
            waiting = ranked(scene, learner, model, chosen, waiting, ours)
        while waiting and (share == 1.0 or scene.boxes.count(chosen) < share * total):
            chosen.append(waiting.pop(0))
        model = learner.learn(held_out(chosen)[0], seed, model)
        points.append(judged(scene, learner, model, chosen))
        tell(seed, ours is not None, points[-1])
    return [*points, end] if end else points


def tell(seed: int, ours: bool, point: Point) -> None:
    sys.stderr.write(json.dumps({"seed": seed, "ours": ours, **point._asdict()}) + "\n")


def reached(points: Sequence[Point], measure: str, goal: float) -> bool:
    """Twice running, at the end of these points."""
    return len(points) > 1 and min(getattr(point, measure) for point in points[-2:]) >= goal


def needed(points: Sequence[Point], measure: str, goal: float) -> float:
    """Boxes for the goal, by the points up to where it is reached twice running."""
    end = next((k for k in range(1, len(points) + 1) if reached(points[:k], measure, goal)), len(points))
    return boxes_needed([(point.boxes, getattr(point, measure)) for point in points[:end]], goal)


def boxes_needed(points: list[tuple[int, float]], goal: float) -> float:
    """Boxes at which the rising curve that fits the points best (isotonic regression) reaches the goal; all, where it never does.

    >>> boxes_needed([(100, 0.4), (200, 0.7), (300, 0.5), (400, 0.8)], 0.5)
    150.0
    """
    blocks: list[tuple[float, list[int]]] = []
    for boxes, value in points:
        blocks.append((value, [boxes]))
        while len(blocks) > 1 and blocks[-2][0] >= blocks[-1][0]:
            (low, after), (high, before) = blocks.pop(), blocks.pop()
            mean = (high * len(before) + low * len(after)) / (len(before) + len(after))
            blocks.append((mean, [*before, *after]))
    counts = [count for _, of in blocks for count in of]
    values = [value for value, of in blocks for _ in of]
    if values[-1] < goal:
        return float(counts[-1])
    place = int(np.argmax(np.array(values) >= goal))
    return float(np.interp(goal, values[max(place - 1, 0) : place + 1], counts[max(place - 1, 0) : place + 1]))


def saved(pairs: list[dict]) -> list[float]:
    """1 − mean boxes of ours / mean boxes of random, and its 95 % bootstrap interval over the seeds."""
    ours, random = (np.array([pair[name] for pair in pairs]) for name in ("ours", "random"))
    draws = np.random.default_rng(0).integers(len(pairs), size=(10_000, len(pairs)))
    return [float(1 - ours.mean() / random.mean()), *np.quantile(1 - ours[draws].mean(1) / random[draws].mean(1), [0.025, 0.975]).tolist()]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="two seeds of the weak detector on bccd")
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--sets", default="uneven-scenes", help=f"of {', '.join(SETS)}")
    parser.add_argument("--detector", default="fcos", choices=("fcos", "weak"))
    parser.add_argument("--sizes", default="256,160", help="fcos's --image-size and --crop")
    parser.add_argument("--weights", default="{}", help="JSON of train.loop.rank.Weights, for tuning")
    parser.add_argument("--cold", type=int, default=0, metavar="STEPS", help="fcos: every training from ImageNet weights, so long")
    parser.add_argument("--told", action="store_true", help="ours is told the true boxes of what waits")
    parser.add_argument("--keep", default="", help="keep features and runs here, and go on with those that are")
    arguments = parser.parse_args()
    data = Path(os.environ.get("BOXWRIGHT_TEST_DATA") or ROOT.parent / "shared" / "data")
    if arguments.quick:
        arguments.seeds, arguments.sets, arguments.detector = "0,1", "bccd", "weak"
    seeds, sets = list(map(int, arguments.seeds.split(","))), arguments.sets.split(",")
    sizes = tuple(map(int, arguments.sizes.split(",")))
    asked = Ours(Weights(**json.loads(arguments.weights)), told_all if arguments.told else glanced)
    document: dict = {"goal": GOAL, "detector": arguments.detector, "sets": {}}
    with tempfile.TemporaryDirectory() as temporary:
        keep = Path(arguments.keep or temporary)
        keep.mkdir(parents=True, exist_ok=True)
        for name in sets:
            started = time.process_time()
            scene = load(name, data, keep)
            learner: Learner = Weak(scene, keep) if arguments.detector == "weak" else Shipped(scene, keep, *sizes, arguments.cold)
            document["sets"][name] = {**study(scene, learner, seeds, asked), "cpu_s": time.process_time() - started}
            sys.stderr.write(f"{name} {json.dumps(document['sets'][name])}\n")
    sys.stdout.write(json.dumps(document, indent=2) + "\n")


def study(scene: Scene, learner: Learner, seeds: list[int], asked: Ours) -> dict:
    random, ours = {}, {}
    for seed in seeds:
        random[seed] = curve(scene, learner, seed, None)
        ours[seed] = curve(scene, learner, seed, asked, random[seed][-1])
    goals = {measure: GOAL * float(np.mean([getattr(points[-1], measure) for points in random.values()])) for measure in MEASURES}
    pairs = {
        measure: [{"seed": s, "ours": needed(ours[s], measure, goal), "random": needed(random[s], measure, goal)} for s in seeds]
        for measure, goal in goals.items()
    }
    labels = np.concatenate([scene.boxes.labels[row] for row in scene.pool])
    return {
        "classes": dict(zip(scene.names, np.bincount(labels, minlength=len(scene.names)).tolist(), strict=True)), "images": len(scene.pool),
        "goals": goals, "pairs": pairs, "saved": {measure: saved(rows) for measure, rows in pairs.items()},
    }  # fmt: skip


if __name__ == "__main__":
    main()
