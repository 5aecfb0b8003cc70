"""`boxwright onnx`: a run's detector as an ONNX file, checked in onnxruntime on real images."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from annotate import coco
from collect.console import Console
from collect.errors import UsageError
from train.data.cache import Pixels, UnreadableError, decode
from train.fitting import config


class Onnx:
    """Exports, compares, and refuses a file that finds other boxes."""

    def arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("run", nargs="?", help="a run: its name, NAME/RUN, NAME/champion or its folder")
        parser.add_argument("--out", type=Path, metavar="FILE", help="default: model.onnx, or model-no-nms.onnx, in the run's folder")
        parser.add_argument("--no-nms", action="store_true", help="stop before suppression: the form that OpenCV's DNN module reads")
        parser.add_argument("--lookalikes", action="store_true", help="instead of a run: the network for [collect] lookalike_model")
        parser.add_argument("--images", type=int, default=8, metavar="N", help="real images to compare on (default: %(default)s)")

    def run(self, arguments: Namespace, console: Console) -> dict[str, Any]:
        if arguments.lookalikes:
            return _lookalikes(arguments, console)
        if arguments.run is None:
            raise UsageError("name a run, or give --lookalikes for the network that proposes look-alikes")
        run_path = console.workspace.run_path(arguments.run)
        settings = config.read(run_path)
        dataset = console.workspace.dataset(settings.dataset)
        read = coco.read(dataset.release_path(settings.release) / "annotations.json")
        judged = [name for name, split in zip(read.file_names_I, read.split_I, strict=True) if split != "train"] or list(read.file_names_I)
        images = list(islice(_readable(dataset.images, judged, console), max(1, arguments.images)))
        if not images:
            raise UsageError(f"{settings.release} has no images to compare on that can be read")
        out = arguments.out or run_path / ("model-no-nms.onnx" if arguments.no_nms else "model.onnx")
        if console.dry_run:
            console.out(f"would write {out} and compare it on {len(images)} images")
            return {"path": str(out)}
        from train.detectors.detector import Detector  # with torch: after what can be refused without
        from train.serving.onnx_export import SAME_IOU, SAME_SCORE, UNREAD, export
        from train.serving.predictor import load_detector

        detector = load_detector(run_path)
        done = export(detector, out, images, suppressed=not arguments.no_nms)
        other = type(detector).places is not Detector.places and done.opencv == UNREAD and not arguments.no_nms
        console.out(
            f"wrote {done.path} ({done.path.stat().st_size / 1e6:.1f} MB, exporter '{done.exporter}'): on {done.images} real images"
            f" onnxruntime finds the same {done.boxes} boxes (IoU ≥ {SAME_IOU}, scores within {SAME_SCORE});"
            f" OpenCV's DNN module {done.opencv}{'; `--no-nms` writes the form that it reads' if other else ''}"
        )
        return {**vars(done), "path": str(done.path)}


def _readable(folder: Path, names: Iterable[str], console: Console) -> Iterator[Pixels]:
    """The images that can be decoded; the others are named."""
    for name in names:
        try:
            yield decode(folder / name)
        except UnreadableError as error:
            console.say(f"not compared on, since it cannot be read: {error}")


def _lookalikes(arguments: Namespace, console: Console) -> dict[str, Any]:
    if arguments.run is not None or arguments.no_nms:
        raise UsageError("--lookalikes takes no run and no --no-nms: it is one network for all data sets")
    out = arguments.out or console.workspace.root / "lookalikes.onnx"
    if console.dry_run:
        console.out(f"would write {out}")
        return {"path": str(out)}
    from train.serving.lookalike_export import export_lookalike_model

    cosine = export_lookalike_model(out)
    console.out(
        f"wrote {out} ({out.stat().st_size / 1e6:.1f} MB): OpenCV's vector and torch's have a cosine of {cosine:.5f}."
        f' Name it in dataset.toml: [collect] lookalike_model = "{out}"'
    )
    return {"path": str(out), "cosine": cosine}


ONNX = Onnx()
