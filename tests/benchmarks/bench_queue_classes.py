"""How many boxes a reviewer must label for 95 % of the full score where only the class is to be learned.

    python tests/benchmarks/bench_queue_classes.py [--quick] [--seeds N] [--keep FOLDER]

The part of `bench_queue.py` that can be told apart from the luck of a training: boxes are given, a linear head on frozen
MobileNetV2 features of the crops learns their classes (a convex problem, so that a point of the curve has no luck of its own),
on facemask-coco (three classes, 79 : 18 : 3). The score is the mean over the classes of the average precision on the crops of
the other half of the images (the set's val split has 18 boxes of the rare class, too few to tell anything). It is no detector's
mAP. Both orders begin with the same random 3 % of the images; ours then ranks the rest (`train.loop.rank`) after every batch by
what the head of that moment sees.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from bench_queue import saved  # noqa: E402
from torch.nn.functional import cross_entropy  # noqa: E402
from torchvision.models import mobilenet_v2  # noqa: E402

from train.data.cache import decode  # noqa: E402
from train.fitting import weights  # noqa: E402
from train.loop.rank import Glance, Known, Weights, order  # noqa: E402

SIDE = 96


@dataclass(frozen=True)
class Crops:
    """Features (N, D) of all boxes, labels (N,), the image of each (N,)."""

    features: torch.Tensor
    labels: torch.Tensor
    images: np.ndarray


def embed(data: Path, split: str, keep: Path) -> Crops:
    document = json.loads((data / f"facemask-coco/annotations/custom_{split}.json").read_bytes())
    path = keep / f"crops-{split}-{hashlib.sha256(str(len(document['annotations'])).encode()).hexdigest()[:8]}.pt"
    if path.is_file():
        kept = torch.load(path, weights_only=True)
        return Crops(kept["features"], kept["labels"], kept["images"].numpy())
    network = mobilenet_v2().features.eval()
    found = weights.imagenet_mobilenet_v2()
    assert found is not None, "the ImageNet weights cannot be had"
    weights.load_by_order(network, found)
    mean, std = torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1), torch.tensor([58.395, 57.12, 57.375]).view(3, 1, 1)
    boxes = defaultdict(list)
    for annotation in document["annotations"]:
        if min(annotation["bbox"][2:]) > 4:
            boxes[annotation["image_id"]].append(annotation)
    used = sorted({a["category_id"] for a in document["annotations"]})
    crops, labels, images = [], [], []
    for image in document["images"]:
        pixels = decode(data / f"facemask-coco/{split}2017" / image["file_name"])
        for annotation in boxes[image["id"]]:
            x, y, w, h = annotation["bbox"]
            part = pixels[max(0, int(y - 0.1 * h)) : int(y + 1.1 * h) + 1, max(0, int(x - 0.1 * w)) : int(x + 1.1 * w) + 1]
            crops.append(torch.from_numpy(cv2.resize(part, (SIDE, SIDE))).permute(2, 0, 1))
            labels.append(used.index(annotation["category_id"]))
            images.append(image["id"])
    with torch.inference_mode():
        parts = [network((torch.stack(crops[k : k + 64]).float() - mean) / std).mean(dim=(2, 3)) for k in range(0, len(crops), 64)]
    features = torch.cat(parts).clone()
    keep.mkdir(parents=True, exist_ok=True)
    torch.save({"features": features, "labels": torch.tensor(labels), "images": torch.tensor(images)}, path)
    return Crops(features, torch.tensor(labels), np.array(images))


def halves(data: Path, keep: Path) -> tuple[Crops, Crops]:
    """All boxes of the set, cut into two halves by image; features standardised."""
    parts = [embed(data, split, keep) for split in ("train", "val")]
    features = torch.cat([part.features for part in parts])
    features = (features - features.mean(0)) / (features.std(0) + 1e-6) / features.shape[1] ** 0.5
    labels = torch.cat([part.labels for part in parts])
    images = np.concatenate([parts[0].images, parts[1].images + 100_000])
    every = np.random.default_rng(0).permutation(np.unique(images))
    first = np.isin(images, every[: len(every) // 2])
    return tuple(Crops(features[rows], labels[rows], images[rows]) for rows in (~first, first))


def head(pool: Crops, rows: np.ndarray, classes: int) -> torch.nn.Linear:
    layer = torch.nn.Linear(pool.features.shape[1], classes)
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    features, labels = pool.features[rows], pool.labels[rows]
    counts = torch.bincount(labels, minlength=classes).clamp(min=1).float()
    weight = (counts.sum() / counts / classes).sqrt()
    optimiser = torch.optim.LBFGS(layer.parameters(), max_iter=50, line_search_fn="strong_wolfe")

    def closure():
        optimiser.zero_grad()
        loss = cross_entropy(layer(features), labels, weight=weight) + 1e-4 * layer.weight.square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    return layer


@torch.no_grad()
def mean_ap(layer: torch.nn.Linear, val: Crops, classes: int) -> float:
    scores = layer(val.features).softmax(1).numpy()
    aps = []
    for label in range(classes):
        right = (val.labels.numpy() == label)[np.argsort(-scores[:, label], kind="stable")]
        hits = np.cumsum(right)
        aps.append(float((hits / np.arange(1, len(right) + 1))[right].mean()))
    return float(np.mean(aps))


def curve(pool: Crops, val: Crops, classes: int, seed: int, ours: bool, batch_boxes: int, weights_of: Weights) -> list[tuple[int, float]]:
    """(boxes labelled, mAP) after every batch until all is labelled."""
    rng = np.random.default_rng(seed)
    images = rng.permutation(np.unique(pool.images))
    rows_of = {int(image): np.flatnonzero(pool.images == image) for image in images}
    looks = {image: _unit(pool.features[rows].mean(0).numpy()) for image, rows in rows_of.items()}
    start = max(8, round(0.03 * len(images)))
    chosen, waiting = [int(i) for i in images[:start]], [int(i) for i in images[start:]]
    points: list[tuple[int, float]] = []
    while True:
        rows = np.concatenate([rows_of[image] for image in chosen])
        layer = head(pool, rows, classes)
        points.append((len(rows), mean_ap(layer, val, classes)))
        if not waiting:
            return points
        if ours:
            waiting = ranked(pool, layer, chosen, waiting, rows_of, looks, classes, weights_of)
        taken = 0
        while waiting and taken < batch_boxes:
            image = waiting.pop(0)
            chosen.append(image)
            taken += len(rows_of[image])


def ranked(pool, layer, chosen, waiting, rows_of, looks, classes, weights_of) -> list[int]:
    with torch.no_grad():
        chances = layer(pool.features).softmax(1).numpy().astype(np.float64)
    counts = np.bincount(pool.labels.numpy()[np.concatenate([rows_of[image] for image in chosen])], minlength=classes)
    known = Known(counts, tuple(map(str, range(classes))), np.array([looks[image] for image in chosen]))
    glances = []
    for image in waiting:
        row = chances[rows_of[image]]
        scores, labels = row.ravel(), np.tile(np.arange(classes), len(row))
        kept = scores > 0.1
        glances.append(Glance(str(image), scores[kept], labels[kept], looks[image]))
    return [int(entry.image) for entry in order(glances, known, weights_of)]


def _unit(vector: np.ndarray) -> np.ndarray:
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-9), dtype=np.float64)


def boxes_needed(points: list[tuple[int, float]], goal: float) -> float:
    """Boxes at which the curve, smoothed by the median of five points, first reaches the goal."""
    values = [float(np.median([value for _, value in points[max(0, k - 2) : k + 3]])) for k in range(len(points))]
    return float(next((boxes for (boxes, _), value in zip(points, values, strict=True) if value >= goal), points[-1][0]))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="two seeds")
    parser.add_argument("--seeds", type=int, default=10, help="of each half")
    parser.add_argument("--keep", default="", help="keep the features here")
    arguments = parser.parse_args()
    data = Path(os.environ.get("BOXWRIGHT_TEST_DATA") or ROOT.parent / "shared" / "data")
    started = time.process_time()
    with tempfile.TemporaryDirectory() as temporary:
        one, other = halves(data, Path(arguments.keep or temporary))
    studies = [study(pool, judged, 2 if arguments.quick else arguments.seeds) for pool, judged in ((one, other), (other, one))]
    every = [row for of in studies for row in of["seeds"]]
    document = {"halves": studies, "saved": saved(every), "cpu_s": time.process_time() - started}
    sys.stdout.write(json.dumps(document, indent=2) + "\n")


def study(pool: Crops, judged: Crops, seeds: int) -> dict:
    classes = int(pool.labels.max()) + 1
    full = mean_ap(head(pool, np.arange(len(pool.labels)), classes), judged, classes)
    rows = []
    for seed in range(seeds):
        needed = {
            name: boxes_needed(curve(pool, judged, classes, seed, ours, 60, Weights()), 0.95 * full)
            for name, ours in (("ours", True), ("random", False))
        }
        rows.append({"seed": seed, **needed})
        sys.stderr.write(f"{rows[-1]}\n")
    counts = np.bincount(pool.labels.numpy()).tolist()
    return {"boxes": len(pool.labels), "classes": counts, "full_map": full, "seeds": rows, "saved": saved(rows)}


if __name__ == "__main__":
    main()
