"""A run's folder as `boxwright train` leaves it, around images and boxes that a test chooses."""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

COLOURS = ((214, 64, 48), (40, 110, 220), (30, 160, 90))
NAMES = ("ball", "box", "cone")


def lay(root: Path, scenes: Sequence[tuple[bytes, list[dict[str, Any]]]], categories: Sequence[str], split: str = "test") -> Path:
    """Blobs, a release and a run with the history of ten epochs, without detections; the path of the run."""
    dataset, run = root / "datasets" / "toys", root / "runs" / "toys" / "v001-try"
    document: dict[str, list[dict[str, Any]]] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": place, "name": name} for place, name in enumerate(categories, 3)],
    }
    for number, (data, boxes) in enumerate(scenes, 1):
        sha256 = hashlib.sha256(data).hexdigest()
        name = f"{sha256[:2]}/{sha256[2:4]}/{sha256}.jpg"
        path = dataset / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        with Image.open(path) as image:
            width, height = image.size
        source = "openverse" if number % 3 else "wikimedia"
        document["images"].append(
            {"id": number, "file_name": name, "sha256": sha256, "width": width, "height": height, "split": split, "source": source}
        )
        for box in boxes:
            x, y, w, h = box["bbox"]
            count = len(document["annotations"]) + 1
            document["annotations"].append(
                {"id": count, "image_id": number, "category_id": 3 + box["label"], "bbox": [x, y, w, h], "area": w * h, "iscrowd": 0}
            )
    release = dataset / "releases" / "v001"
    release.mkdir(parents=True)
    (dataset / "dataset.toml").write_text('name = "toys"\n')
    for each in ("train", "val", "test"):
        cut = document if each == split else {**document, "images": [], "annotations": []}
        (release / f"{each}.json").write_text(json.dumps(cut))
    (release / "manifest.json").write_text("{}")
    run.mkdir(parents=True)
    config = {
        "dataset": "toys",
        "release": "v001",
        "detector": "fcos_mobilenet_v2",
        "image_size": 320,
        "seed": 0,
        "weights_origin": "ImageNet",
    }
    (run / "config.json").write_text(json.dumps({**config, "categories": document["categories"]}))
    rows = ["epoch,wall_s,loss,loss_box,AP,AP50"]
    for epoch in range(1, 11):
        scores = f"{0.6 * (1 - math.exp(-epoch / 4)):.4f},{0.9 * (1 - math.exp(-epoch / 3)):.4f}" if epoch % 2 == 0 else ","
        rows.append(f"{epoch},{epoch * 4.5},{2 * math.exp(-epoch / 5):.4f},{math.exp(-epoch / 4):.4f},{scores}")
    (run / "metrics.csv").write_text("\n".join(rows) + "\n")
    (run / "metrics.json").write_text(json.dumps({"seconds": 45.0, "machine": {"cpu": "two cores", "torch": "2"}}))
    return run


def drawn_scenes(count: int, seed: int = 0) -> list[tuple[bytes, list[dict[str, Any]]]]:
    """Shapes on noise; every fifth image is empty."""
    rng = np.random.default_rng(seed)
    scenes = []
    for number in range(count):
        picture = Image.fromarray(rng.integers(90, 170, (20, 26, 3), dtype=np.uint8)).resize((260, 200), Image.Resampling.BICUBIC)
        pen, boxes = ImageDraw.Draw(picture), []
        for _ in range(0 if number % 5 == 4 else int(rng.integers(1, 6))):
            label, side = int(rng.integers(3)), float(rng.integers(14, 110))
            x, y = float(rng.integers(0, 260 - int(side))), float(rng.integers(0, 200 - int(min(side, 190))))
            height = min(side, 190.0)
            (pen.ellipse if label == 0 else pen.rectangle)((x, y, x + side, y + height), fill=COLOURS[label])
            boxes.append({"label": label, "bbox": [x, y, side, height]})
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=85)
        scenes.append((buffer.getvalue(), boxes))
    return scenes


def noisy_detections(run: Path, seed: int = 1, split: str = "test") -> list[dict[str, Any]]:
    """A detector of middling quality: misses, shifts, confuses, repeats and invents; written into the run."""
    rng = np.random.default_rng(seed)
    root = run.parents[2]
    document = json.loads((root / "datasets" / "toys" / "releases" / "v001" / f"{split}.json").read_text())
    ids = [category["id"] for category in document["categories"]]
    found: list[dict[str, Any]] = []

    def add(image: int, category: int, box: Any, score: float) -> None:
        found.append(
            {
                "image_id": image,
                "category_id": category,
                "bbox": [float(v) for v in box],
                "score": round(float(np.clip(score, 0.01, 0.99)), 4),
            }
        )

    for entry in document["annotations"]:
        box = np.array(entry["bbox"])
        shift = rng.normal(0, rng.choice([0.03, 0.12, 0.3], p=[0.6, 0.3, 0.1]), 4) * np.array([box[2], box[3], box[2], box[3]])
        moved = np.r_[(box + shift)[:2], np.maximum((box + shift)[2:], 2)]
        if rng.random() < 0.88:
            category = entry["category_id"] if rng.random() < 0.9 else int(rng.choice(ids))
            add(entry["image_id"], category, moved, rng.beta(5, 2))
            if rng.random() < 0.1:
                add(entry["image_id"], category, moved + rng.normal(0, 1, 4).clip(-1, 1), rng.beta(2, 4))
    for image in document["images"]:
        for _ in range(int(rng.poisson(0.6))):
            side = rng.uniform(0.1, 0.4) * min(image["width"], image["height"])
            corner = rng.uniform(0, 0.6, 2) * (image["width"], image["height"])
            add(image["id"], int(rng.choice(ids)), [*corner, side, side], rng.beta(1.5, 6))
    (run / f"detections-{split}.json").write_text(json.dumps(found))
    return found
