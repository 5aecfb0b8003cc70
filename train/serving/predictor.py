"""A trained detector in use: images in, detections in pixels of the original image out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from annotate.boxes import xywh_from_xyxy
from annotate.coco import Category, CocoArrays
from collect.errors import NotFoundError
from train.data.augment import GREY
from train.data.cache import Pixels, UnreadableError, decode
from train.detectors.detector import Detections, Detector, RawDetections, open_detector
from train.fitting import checkpoint, config
from train.fitting.device import find_device, free_threads, threads
from train.serving.looks import AS_IT_IS, Look, agreed
from train.serving.tiles import Tiling, in_whole, merge


class Predictor:
    """Runs a detector on images of any size.

    Each image is shrunk or enlarged so that its longest side is the detector's `image_size`, padded with grey at the right
    and the bottom, and looked at in batches of images of one size. Batches do not change what is found in an image.

    Args:
        detector: set to eval mode and moved to the device.
        device: "auto", "cpu", "cuda", "cuda:1", …
        batch_size: images at a time; 0 = 1 on a CPU, 16 on a GPU.
        tiling: also look at tiles, for small objects; None = only at the whole image.
        looks: how each picture is held, once for each; see :mod:`train.serving.looks`.
        num_threads: what a CPU computes with; 0 = as the process does.
    """

    def __init__(
        self,
        detector: Detector,
        device: str = "auto",
        batch_size: int = 0,
        tiling: Tiling | None = None,
        looks: Sequence[Look] = AS_IT_IS,
        num_threads: int = 0,
    ) -> None:
        self.device = find_device(device)
        self.detector = detector.to(self.device).eval()
        self.batch_size = batch_size or (1 if self.device.type == "cpu" else 16)
        self.tiling = tiling
        self.looks = looks
        self.num_threads = num_threads

    @property
    def categories(self) -> tuple[Category, ...]:
        """In the order of the labels."""
        return self.detector.categories

    @classmethod
    def from_run(
        cls, run_path: Path, device: str = "auto", tiling: Tiling | None = None, looks: Sequence[Look] = AS_IT_IS, num_threads: int = 0
    ) -> Predictor:
        """The best detector of a run, else its last. `num_threads` 0 = one for each core that nobody else keeps busy now.

        Raises:
            NotFoundError: no such run, or one that ended before its first checkpoint.
            CorruptError: its checkpoint is not of the detector that its config names.
        """
        detector = load_detector(run_path)
        return cls(detector, device, tiling=tiling, looks=looks, num_threads=num_threads or free_threads(find_device(device)))

    def __call__(self, images: Iterable[Pixels]) -> Iterator[Detections]:
        """Detections of each image, in order. Images: uint8 RGB (H, W, 3), upright; read lazily, a few at a time."""
        source = iter(images)
        while chunk := list(islice(source, max(self.batch_size, 1))):
            yield from self._chunk(chunk)

    def _chunk(self, images: list[Pixels]) -> list[Detections]:
        by_look = [self._held(images, look) for look in self.looks]
        return [agreed(of_one) for of_one in zip(*by_look, strict=True)]

    def _held(self, images: list[Pixels], look: Look) -> list[Detections]:
        found = self._plain([look.at(image) for image in images])
        return [look.back(one, (image.shape[1], image.shape[0])) for one, image in zip(found, images, strict=True)]

    def _plain(self, images: list[Pixels]) -> list[Detections]:
        whole = self._look(images)
        if self.tiling is None:
            return whole
        return [self._tiled(image, found, self.tiling) for image, found in zip(images, whole, strict=True)]

    def _tiled(self, image: Pixels, whole: Detections, tiling: Tiling) -> Detections:
        size = image.shape[1], image.shape[0]
        parts = [whole]
        for window in tiling.windows(size):
            x1, y1, x2, y2 = window
            parts.append(in_whole(self._look([image[y1:y2, x1:x2]])[0], window, size))
        return merge(parts, tiling.merge_iou) if len(parts) > 1 else whole

    @torch.inference_mode()
    def _look(self, images: list[Pixels]) -> list[Detections]:
        prepared = [self._prepare(image) for image in images]
        found: list[Detections | None] = [None] * len(images)
        shapes = {canvas.shape for canvas, _ in prepared}
        for shape in sorted(shapes):
            rows = [row for row, (canvas, _) in enumerate(prepared) if canvas.shape == shape]
            batch = torch.from_numpy(np.stack([prepared[row][0] for row in rows])).permute(0, 3, 1, 2).to(self.device)
            with threads(self.num_threads):
                raws = self.detector.predict(batch)
            for row, raw in zip(rows, raws, strict=True):
                found[row] = _in_original(raw, prepared[row][1], images[row].shape)
        return [one for one in found if one is not None]

    def _prepare(self, image: Pixels) -> tuple[Pixels, tuple[float, float]]:
        """The detector's input, and how many of its pixels a pixel of the original became (x, y)."""
        height, width = image.shape[:2]
        side, stride = self.detector.image_size, self.detector.stride
        scale = side / max(height, width)
        inner_w, inner_h = max(1, round(width * scale)), max(1, round(height * scale))
        if (inner_w, inner_h) != (width, height):
            image = cv2.resize(image, (inner_w, inner_h), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        if self.detector.square:
            outer_w = outer_h = side
        else:
            outer_w, outer_h = -(-inner_w // stride) * stride, -(-inner_h // stride) * stride
        canvas = np.full((outer_h, outer_w, 3), GREY, dtype=np.uint8)
        canvas[:inner_h, :inner_w] = image
        return canvas, (inner_w / width, inner_h / height)


def _in_original(raw: RawDetections, scale_xy: tuple[float, float], shape: tuple[int, ...]) -> Detections:
    boxes = raw.boxes_xyxy_N4.double().cpu().numpy() / np.tile(scale_xy, 2)
    height, width = shape[:2]
    boxes = np.clip(boxes, 0, [width, height, width, height])
    scores, labels = raw.scores_N.double().cpu().numpy(), raw.labels_N.long().cpu().numpy()
    order = np.argsort(-scores, kind="stable")
    order = order[(boxes[order, 2:] > boxes[order, :2]).all(axis=1)]
    return Detections(xywh_from_xyxy(boxes[order]), scores[order], labels[order])


def load_detector(run_path: Path) -> Detector:
    """The detector of a run with its best weights, else its last, on the CPU in eval mode; errors as in `from_run`."""
    settings = config.read(run_path)
    try:
        document = checkpoint.load(checkpoint.path_of(run_path, checkpoint.BEST))
    except NotFoundError:
        document = checkpoint.load(checkpoint.path_of(run_path, checkpoint.LAST))
    detector = open_detector(settings.detector, settings.categories, settings.image_size, "none", document.get("architecture"))
    checkpoint.fill(detector, document["ema"], run_path.name, settings.detector)
    detector.weights_origin = settings.weights_origin
    return detector.eval()


def detect_split(predictor: Predictor, coco: CocoArrays, folder: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """COCO results of a split, and the images that could not be read, as sentences.

    The originals are decoded, not the shrunk copies that training reads: what is judged is what `boxwright detect` does.
    """
    results: list[dict[str, Any]] = []
    failures: list[str] = []
    read: list[int] = []

    def images() -> Iterator[Pixels]:
        for row, name in enumerate(coco.file_names_I):
            try:
                pixels = decode(folder / name)
            except UnreadableError as error:
                failures.append(str(error))
                continue
            read.append(row)
            sizes.append((pixels.shape[1], pixels.shape[0]))
            yield pixels

    sizes: list[tuple[int, int]] = []
    for place, found in enumerate(predictor(images())):
        row = read[place]
        scale = np.tile(coco.sizes_wh_I2[row] / np.array(sizes[place]), 2)
        for box, score, label in zip((found.boxes_xywh_N4 * scale).tolist(), found.scores_N.tolist(), found.labels_N.tolist(), strict=True):
            results.append(
                {
                    "image_id": int(coco.image_ids_I[row]),
                    "category_id": predictor.categories[label].id,
                    "bbox": box,
                    "score": score,
                }
            )
    return results, failures
