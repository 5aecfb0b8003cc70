"""Warm start: steps to a cold start's mAP, and what is lost on old classes when a class is added.

    python tests/benchmarks/bench_retrain.py [--quick]

bccd with its own split: the first release holds half of the train images and two classes (WBC, RBC), the second all of
them and Platelets too. A champion is trained on the first. On the second one challenger starts cold (ImageNet weights),
one warm; AP on the set's own test images is taken along the way. All old data is replayed, as `boxwright retrain` does.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from annotate import coco  # noqa: E402
from collect import definition  # noqa: E402
from train.data.release import Release  # noqa: E402
from train.fitting.config import TrainConfig  # noqa: E402
from train.fitting.fit import Fit, fit  # noqa: E402
from train.fitting.progress import Progress  # noqa: E402
from train.fitting.ranks import joined  # noqa: E402
from train.judging.evaluate import evaluate  # noqa: E402
from train.loop.warm_start import warm_start  # noqa: E402
from train.serving.predictor import Predictor, detect_split, load_detector  # noqa: E402

OLD, NEW = ("WBC", "RBC"), ("WBC", "RBC", "Platelets")


def document(folder: Path, split: str, names: tuple[str, ...], most: int) -> dict:
    stems = (folder / "ImageSets/Main" / f"{split}.txt").read_text().split()[:most]
    images, annotations = [], []
    for number, stem in enumerate(stems, 1):
        root = ET.parse(folder / "Annotations" / f"{stem}.xml").getroot()
        size = [int(root.findtext(f"size/{key}") or 0) for key in ("width", "height")]
        images.append({"id": number, "file_name": f"JPEGImages/{stem}.jpg", "width": size[0], "height": size[1], "sha256": ""})
        for node in root.iter("object"):
            x1, y1, x2, y2 = (float(node.findtext(f"bndbox/{key}") or 0) for key in ("xmin", "ymin", "xmax", "ymax"))
            name = node.findtext("name") or ""
            if name in names and min(x2 - x1, y2 - y1) > 2:
                box = [x1 - 1, y1 - 1, x2 - x1 + 1, y2 - y1 + 1]
                entry = {"image_id": number, "category_id": names.index(name) + 1, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
                annotations.append({"id": len(annotations) + 1, **entry})
    return {"images": images, "annotations": annotations, "categories": [{"id": k, "name": n} for k, n in enumerate(names, 1)]}


def release(folder: Path, names: tuple[str, ...], images: int, tests: int, cache: Path) -> Release:
    parts = {
        "train": document(folder, "train", names, images),
        "val": document(folder, "val", names, 0),
        "test": document(folder, "test", names, tests),
    }
    return Release("bccd", f"{len(names)}", parts, {split: coco.arrays(part) for split, part in parts.items()}, folder, cache)


def train(of: Release, path: Path, epochs: int, prepare=None, every: int = 0) -> list[tuple[int, float, dict[str, float]]]:
    """(epoch, AP, AP per class) on the test images along the way; the last one with the best weights."""
    curve: list[tuple[int, float, dict[str, float]]] = []

    def judge(detector) -> tuple[float, float]:
        results, _ = detect_split(Predictor(detector, "cpu"), of.splits["test"], of.images)
        judged = evaluate(of.documents["test"], results)
        curve.append((len(curve) + 1, judged.stats[0], {row["name"]: row["ap"] for row in judged.per_category}))
        return judged.stats[0], judged.stats[1]

    options = {"image_size": 192, "epochs": epochs, "device": "cpu", "eval_every": every or epochs, "workers": 0}
    config = TrainConfig("bccd", of.version, of.categories).with_options(options)
    path.mkdir(parents=True)
    with joined("cpu") as ranks:
        fit(config, of, path, ranks, Fit(prepare=prepare, validate=judge, progress=Progress(None)))
    return curve


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    data = Path(os.environ.get("BOXWRIGHT_TEST_DATA") or ROOT.parent / "shared" / "data") / "bccd" / "BCCD"
    images, tests, epochs = (100, 40, 20) if quick else (205, 72, 60)
    started = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        first, second = release(data, OLD, images // 2, tests, place / "c"), release(data, NEW, images, tests, place / "c")
        champion = train(first, place / "champion", epochs + epochs // 2)[-1]
        cold = train(second, place / "cold", epochs)[-1]
        recipe = definition.parse(place / "dataset.toml", definition.template("bccd", list(enumerate(NEW, 1))))
        recipe = replace(recipe, name="bccd")
        told: list[str] = []

        def prepare(detector) -> str:
            told.append(warm_start(detector, load_detector(place / "champion"), "champion", recipe).sentence())
            return told[-1]

        half = train(second, place / "warm", epochs // 2, prepare, every=1)
        torch.manual_seed(0)
    reached = next((epoch for epoch, ap, _ in half if ap >= cold[1]), None)
    json.dump(
        {
            "champion_ap": champion[2], "cold": {"epochs": epochs, "ap": cold[1], "per_class": cold[2]},
            "warm": {"epochs": epochs // 2, "ap": [row[1] for row in half], "per_class": half[-1][2], "started": told[0]},
            "share_of_steps_to_cold_ap": reached / epochs if reached else None,
            "old_classes_lost_ap": {name: 100 * (champion[2][name] - half[-1][2][name]) for name in OLD},
            "cpu_s": time.process_time() - started,
        },
        sys.stdout, indent=2,
    )  # fmt: skip
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
