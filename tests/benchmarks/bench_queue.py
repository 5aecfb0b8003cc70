"""How many boxes a reviewer must draw for 95 % of the full mAP: our order against a random one.

    python tests/benchmarks/bench_queue.py [--quick] [--seeds 0,1,2,3,4] [--sets bccd,scenes,uneven-scenes] [--keep FOLDER]

A simulated reviewer draws all boxes of the images it is shown, batch after batch; after each, a detector is trained on all that
is drawn (`surrogate.py`: frozen MobileNetV2 and a small head, a second a training) but for every fifth image, which is held out as a
release holds out its val split, and its COCO mAP at IoU .5 taken on images that are never in the queue. Ours lets `train.loop.rank` order
the waiting images by what the detector of that moment sees in them, as `boxwright queue` does, its scores turned into chances by that val
split (`train.loop.chances`); what waits has no boxes, so what they cost is not known beforehand. Both orders begin
with the same random images and the same initial weights (the seeds are paired). Pools:

    bccd            its train part: blood cells, three classes, 85 : 8 : 7
    scenes          of `boxwright demo`, three classes, about 5 : 3 : 2, spread evenly
    uneven-scenes   the same with most of the rarer classes' images left out of the queue

A weak detector's mAP varies by .02 from training to training, which near 95 % of the full mAP is much: many seeds are needed.
`bench_queue_classes.py` asks the same where trainings have no luck.

`saved` = 1 − mean boxes of ours / mean boxes of random, over the seeds; its 95 % interval is a bootstrap's over the seeds. (The mean
of the seeds' own ratios would mostly tell the luck of the random orders, which lie a factor of two apart.)
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from surrogate import Boxes, Head, Maps, as_results, detect, learn, look  # noqa: E402

from collect.demo.scenes import make_scenes  # noqa: E402
from train.judging import inputs  # noqa: E402
from train.judging.evaluate import evaluate  # noqa: E402
from train.loop.chances import learned  # noqa: E402
from train.loop.glances import LEAST  # noqa: E402
from train.loop.rank import Glance, Known, Weights, order  # noqa: E402
from train.loop.threshold import UNTOLD  # noqa: E402

GOAL = 0.95
JUDGED = 150
#: Shares of all boxes after which a detector is trained.
SHARES = (0.05, 0.07, 0.1, 0.14, 0.2, 0.28, 0.38, 0.5, 0.65, 0.8, 1.0)
#: Chance that a scene with this class stays in the uneven queue.
LEFT_IN = {"motorcycle": 0.12, "cup": 0.4}


@dataclass(frozen=True)
class Scene:
    """A set: maps and boxes of all images, which of them wait in the queue and which the mAP is taken on."""

    names: tuple[str, ...]
    maps: Maps
    boxes: Boxes
    pool: tuple[int, ...]
    judged: tuple[int, ...]

    def truth(self, rows: Sequence[int]) -> dict:
        """COCO's document of some images, such as those that are judged."""
        images = [{"id": row + 1, "file_name": str(row), "width": 1000, "height": 1000} for row in rows]
        annotations = [
            {"image_id": row + 1, "category_id": int(label) + 1, "bbox": box.tolist(), "area": float(box[2] * box[3]), "iscrowd": 0}
            for row in rows
            for box, label in zip(self.boxes.xywh[row], self.boxes.labels[row], strict=True)
        ]
        categories = [{"id": number, "name": name} for number, name in enumerate(self.names, 1)]
        numbered = [{**a, "id": number} for number, a in enumerate(annotations, 1)]
        return {"images": images, "annotations": numbered, "categories": categories}


Listed = list[tuple[Path, list[tuple[str, list[float]]]]]


def bccd(data: Path, _: Path) -> tuple[Listed, Listed]:
    folder, listed = data / "bccd/BCCD", []
    for path in sorted((folder / "Annotations").glob("*.xml")):
        boxes = []
        for node in ET.parse(path).getroot().iter("object"):
            x1, y1, x2, y2 = (float(node.findtext(f"bndbox/{key}") or 0) for key in ("xmin", "ymin", "xmax", "ymax"))
            boxes.append((node.findtext("name") or "", [x1 - 1, y1 - 1, x2 - x1 + 1, y2 - y1 + 1]))
        listed.append((folder / "JPEGImages" / f"{path.stem}.jpg", boxes))
    listed = shuffled(listed)
    pool = round(0.56 * len(listed))
    return listed[:pool], listed[pool:]


def scenes(_: Path, place: Path) -> tuple[Listed, Listed]:
    listed = []
    (place / "scenes").mkdir(parents=True, exist_ok=True)
    for scene in make_scenes(400, 0):
        path = place / "scenes" / f"{scene.index}.jpg"
        path.write_bytes(scene.jpeg)
        listed.append((path, [(name, list(xywh)) for name, xywh in scene.boxes]))
    listed = shuffled(listed)
    return listed[:240], listed[240:]


def uneven_scenes(data: Path, place: Path) -> tuple[Listed, Listed]:
    pool, judged = scenes(data, place)
    luck = np.random.default_rng(1).random(len(pool))
    chances = [min([LEFT_IN.get(kind, 1.0) for kind, _ in boxes], default=1.0) for _, boxes in pool]
    return [entry for entry, chance, drawn in zip(pool, chances, luck, strict=True) if drawn < chance], judged


def shuffled(listed: Listed) -> Listed:
    return [listed[row] for row in np.random.default_rng(0).permutation(len(listed))]


SETS = {"bccd": bccd, "scenes": scenes, "uneven-scenes": uneven_scenes}
SIDE_PX = 320


def load(name: str, data: Path, keep: Path) -> Scene:
    """The images in the queue and at most JUDGED outside of it, the same for all seeds."""
    pool, judged = SETS[name](data, keep)
    listed = [(path, [(kind, box) for kind, box in boxes if min(box[2:]) > 4]) for path, boxes in [*pool, *judged[:JUDGED]]]
    names = tuple(sorted({kind for _, boxes in listed for kind, _ in boxes}))
    kept = keep / f"maps-{name}-{SIDE_PX}-{len(listed)}.pt"
    if not kept.is_file():
        maps = look([path for path, _ in listed], SIDE_PX)
        torch.save({"seen": maps.seen_ISD, "scale": torch.tensor(maps.scale_I), "looks": torch.tensor(maps.looks_IE)}, kept)
    told = torch.load(kept, weights_only=True)
    boxes = Boxes(
        tuple(np.array([box for _, box in of], dtype=np.float64).reshape(-1, 4) for _, of in listed),
        tuple(np.array([names.index(kind) for kind, _ in of], dtype=np.int64) for _, of in listed),
    )
    maps = Maps(told["seen"], told["scale"].numpy(), told["looks"].numpy())
    return Scene(names, maps, boxes, tuple(range(len(pool))), tuple(range(len(pool), len(listed))))


def mean_ap50(scene: Scene, truth: dict, head: Head) -> float:
    """mAP at IoU .5 on the judged images."""
    found = detect(head, scene.maps, scene.judged)
    return evaluate(truth, as_results(found, [row + 1 for row in scene.judged])).stats[1]


def held_out(chosen: list[int]) -> tuple[list[int], list[int]]:
    """Train and val of the drawn images."""
    return [row for place, row in enumerate(chosen) if place % 5], chosen[::5]


def ranked(scene: Scene, head: Head, chosen: list[int], waiting: list[int], weights: Weights) -> list[int]:
    """The waiting images in the order of `boxwright queue`."""
    _, val = held_out(chosen)
    truth = inputs.truth(scene.truth(val))
    found = as_results(detect(head, scene.maps, val), [row + 1 for row in val])
    chances = learned(truth, inputs.detections(found, truth)) or (lambda scores_D: np.asarray(scores_D >= UNTOLD, dtype=np.float64))
    labels = np.concatenate([scene.boxes.labels[row] for row in chosen])
    known = Known(np.bincount(labels, minlength=len(scene.names)), scene.names, scene.maps.looks_IE[chosen])
    glances = []
    for row, (_, labels_D, scores_D) in zip(waiting, detect(head, scene.maps, waiting), strict=True):
        chances_D = chances(scores_D)
        kept_D = chances_D >= LEAST
        glances.append(Glance(str(row), chances_D[kept_D], labels_D[kept_D], scene.maps.looks_IE[row]))
    return [int(entry.image) for entry in order(glances, known, weights)]


def curve(scene: Scene, truth: dict, seed: int, goal: float, weights: Weights | None) -> list[tuple[int, float]]:
    """(boxes drawn, mAP) after every batch until the goal is reached twice running; `weights` None = a random order."""
    images = np.random.default_rng(seed).permutation(scene.pool).tolist()
    start = max(8, round(0.04 * len(images)))
    chosen, waiting = images[:start], images[start:]
    total = scene.boxes.count(images)
    points: list[tuple[int, float]] = []
    head: Head | None = None
    for share in (0.0, *SHARES):
        if head is not None and weights is not None and waiting:
            waiting = ranked(scene, head, chosen, waiting, weights)
        while waiting and (share == 1.0 or scene.boxes.count(chosen) < share * total):
            chosen.append(waiting.pop(0))
        head = learn(scene.maps, scene.boxes, held_out(chosen)[0], len(scene.names), seed)
        points.append((scene.boxes.count(chosen), mean_ap50(scene, truth, head)))
        if len(points) > 1 and min(ap for _, ap in points[-2:]) >= goal:
            break
    return points


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
    parser.add_argument("--quick", action="store_true", help="two seeds on bccd")
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--weights", default="{}", help="JSON of train.loop.rank.Weights, for tuning")
    parser.add_argument("--keep", default="", help="keep the features here")
    arguments = parser.parse_args()
    data = Path(os.environ.get("BOXWRIGHT_TEST_DATA") or ROOT.parent / "shared" / "data")
    seeds, sets = ([0, 1], ["bccd"]) if arguments.quick else (list(map(int, arguments.seeds.split(","))), arguments.sets.split(","))
    weights = Weights(**json.loads(arguments.weights))
    document: dict = {"goal": GOAL, "sets": {}}
    with tempfile.TemporaryDirectory() as temporary:
        for name in sets:
            started = time.process_time()
            row = study(load(name, data, Path(arguments.keep or temporary)), seeds, weights)
            document["sets"][name] = {**row, "cpu_s": time.process_time() - started}
            sys.stderr.write(f"{name} {json.dumps(document['sets'][name])}\n")
    sys.stdout.write(json.dumps(document, indent=2) + "\n")


def study(scene: Scene, seeds: list[int], weights: Weights) -> dict:
    truth = scene.truth(scene.judged)
    orders = [np.random.default_rng(900 + k).permutation(scene.pool).tolist() for k in range(3)]
    whole = [learn(scene.maps, scene.boxes, held_out(of)[0], len(scene.names), 900 + k) for k, of in enumerate(orders)]
    full = float(np.mean([mean_ap50(scene, truth, head) for head in whole]))
    pairs = []
    for seed in seeds:
        ours, random = (curve(scene, truth, seed, GOAL * full, chosen) for chosen in (weights, None))
        needed = {"ours": boxes_needed(ours, GOAL * full), "random": boxes_needed(random, GOAL * full)}
        pairs.append({"seed": seed, **needed})
        sys.stderr.write(f"{pairs[-1]} {[(n, round(ap, 3)) for n, ap in ours]} {[(n, round(ap, 3)) for n, ap in random]}\n")
    labels = np.concatenate([scene.boxes.labels[row] for row in scene.pool])
    return {
        "classes": dict(zip(scene.names, np.bincount(labels, minlength=len(scene.names)).tolist(), strict=True)), "images": len(scene.pool),
        "full_map50": full, "pairs": pairs, "saved": saved(pairs),
    }  # fmt: skip


if __name__ == "__main__":
    main()
