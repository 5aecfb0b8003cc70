"""Training input per second and core: decode, augment, collate at 640, ours against torchvision v2's, in one run.

    python tests/benchmarks/bench_loader.py [--quick]

Photographs of 640×480 and 2000×1500 are made from the real ones in scikit-image (enlarged and cut, JPEG quality 90).
Ours is measured twice: from the files, and from the store of shrunk images as from the second epoch on. One thread each;
CPU-seconds of this process, so that other work on the machine changes little.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).parents[2]))

import cv2
import numpy as np
import torch

from annotate.coco import Category, CocoArrays
from train.data import loader
from train.data.cache import ImageCache
from train.data.loader import Augmentation, SplitImages
from train.data.sampler import Plan

SIDE, BATCH = 640, 8
WANTED = {"640x480": 250, "2000x1500": 100}


def photographs(folder: Path, size_wh: tuple[int, int], count: int) -> list[Path]:
    """Real photographs of one size."""
    from skimage import data

    sources = [image[..., :3] for image in (data.astronaut(), data.chelsea(), data.coffee(), data.rocket())]
    rng = np.random.default_rng(0)
    paths = []
    for place in range(count):
        source = sources[place % len(sources)]
        scale = max(size_wh[0] / source.shape[1], size_wh[1] / source.shape[0]) * rng.uniform(1.0, 1.3)
        large = cv2.resize(source, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        x, y = (int(rng.integers(0, have - want + 1)) for have, want in zip(large.shape[1::-1], size_wh, strict=True))
        path = folder / f"{place}.jpg"
        cv2.imwrite(str(path), large[y : y + size_wh[1], x : x + size_wh[0], ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
        paths.append(path)
    return paths


def coco_of(paths: list[Path], size_wh: tuple[int, int]) -> CocoArrays:
    """Five boxes in each image."""
    rng = np.random.default_rng(1)
    count = len(paths)
    low = rng.uniform(0, 0.7, (count * 5, 2)) * size_wh
    boxes = np.concatenate([low, rng.uniform(0.05, 0.3, (count * 5, 2)) * size_wh], 1)
    return CocoArrays(
        categories=(Category(1, "thing"),),
        image_ids_I=np.arange(1, count + 1),
        file_names_I=tuple(path.name for path in paths),
        sizes_wh_I2=np.tile(np.array(size_wh), (count, 1)),
        sha256_I=tuple(hashlib.sha256(path.read_bytes()).hexdigest() for path in paths),
        split_I=("train",) * count,
        annotation_ids_A=np.arange(1, count * 5 + 1),
        annotation_image_A=np.repeat(np.arange(count), 5),
        category_ids_A=np.ones(count * 5, dtype=np.int64),
        boxes_xywh_A4=boxes,
        areas_A=boxes[:, 2] * boxes[:, 3],
        iscrowd_A=np.zeros(count * 5, dtype=bool),
    )


def ours(coco: CocoArrays, folder: Path, store: Path | None, epochs: int) -> Callable[[], int]:
    """Our loader over some epochs; returns how many images it gave."""

    def run() -> int:
        dataset = SplitImages(coco, folder, ImageCache(store, 960), Augmentation(), 0)
        plan = Plan(np.ones(len(coco.image_ids_I)), BATCH, 0, (SIDE,))
        return sum(len(batch) for batch in loader.batches(dataset, plan.from_position(0, 0, epochs), 0))

    return run


def torchvision_v2(coco: CocoArrays, folder: Path, epochs: int) -> Callable[[], int]:
    """The same work in torchvision's reference style: v2 transforms on images and tv_tensors boxes, uint8 until the end."""
    from PIL import Image
    from torchvision import tv_tensors
    from torchvision.transforms import v2

    transforms = v2.Compose(
        [
            v2.ToImage(),
            v2.RandomPhotometricDistort(p=0.5),
            v2.RandomZoomOut(fill=114, side_range=(1.0, 1.6), p=0.5),
            v2.RandomIoUCrop(),
            v2.RandomHorizontalFlip(0.5),
            v2.Resize((SIDE, SIDE), antialias=True),
            v2.SanitizeBoundingBoxes(),
        ]
    )
    of_image = coco.annotations_of()

    def sample(row: int) -> tuple[torch.Tensor, dict]:
        with Image.open(folder / coco.file_names_I[row]) as opened:
            image = opened.convert("RGB")
        canvas = (image.height, image.width)
        boxes = tv_tensors.BoundingBoxes(torch.from_numpy(coco.boxes_xywh_A4[of_image[row]]), format="XYWH", canvas_size=canvas)
        boxes = v2.functional.convert_bounding_box_format(boxes, new_format="XYXY")
        return transforms(image, {"boxes": boxes, "labels": torch.zeros(len(boxes), dtype=torch.int64)})

    def run() -> int:
        torch.manual_seed(0)
        seen = 0
        for _ in range(epochs):
            for start in range(0, len(coco.image_ids_I), BATCH):
                items = [sample(row) for row in range(start, min(start + BATCH, len(coco.image_ids_I)))]
                seen += len(torch.stack([image for image, _ in items]))
        return seen

    return run


def rate(run: Callable[[], int], repeats: int) -> float:
    """Images per CPU-second, the best of some repeats (the others were disturbed)."""
    best = 0.0
    for _ in range(repeats):
        begun = time.process_time()
        seen = run()
        best = max(best, seen / (time.process_time() - begun))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer images and repeats")
    quick = parser.parse_args().quick
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    count, repeats = (16, 2) if quick else (64, 3)
    result: dict[str, object] = {"unit": "images per CPU-second, decode to collated batch at 640", "images": count}
    for size_wh in ((640, 480), (2000, 1500)):
        name = f"{size_wh[0]}x{size_wh[1]}"
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            coco = coco_of(photographs(folder, size_wh, count), size_wh)
            store = folder / "store"
            ours(coco, folder, store, 1)()
            rates = {
                "ours_from_files": rate(ours(coco, folder, None, 2), repeats),
                "ours_from_store": rate(ours(coco, folder, store, 2), repeats),
                "torchvision_v2": rate(torchvision_v2(coco, folder, 1), max(1, repeats - 1)),
            }
        ratio = rates["ours_from_store"] / rates["torchvision_v2"]
        result[name] = {**{key: round(value, 1) for key, value in rates.items()}, "ratio": round(ratio, 2), "wanted": WANTED[name]}
    sys.stdout.write(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
