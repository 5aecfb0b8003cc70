"""What a card makes of training: bf16 against fp32, waiting for data, peak memory, and two peers on the same images in the same run.

    python tests/benchmarks/bench_gpu.py [--device cuda] [--parts precision,faster_rcnn,transformer] [--tiny] [--quick] [--seeds N]

Faster R-CNN stands against a loop after torchvision's `references/detection/engine.py` (SGD, v2 transforms; fp32 and its
`--amp`), RT-DETRv2 against transformers' `Trainer` (bf16 where we use it), each from scratch, at the same side, batch and
number of loader processes. `fp32` is torch's default, so convolutions may use TF32. Each side is a process of its own and
its first steps are not counted. Real photographs: facemask-coco (`BOXWRIGHT_TEST_DATA`, else ../shared/data).
`--parts` takes them one by one, for machines that are lent for minutes. Where there is no bf16 in hardware, its sides compute in
fp32: emulated it takes minutes a step. `--tiny --device cpu` runs all of it on a few small images, to see that it works; its figures
say nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import torch

from collect.workspace import Workspace
from train.data.release import Release, open_release
from train.fitting.device import find_device, has_bf16
from train.serving.machine import peak_mb

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("BOXWRIGHT_TEST_DATA", ROOT.parent / "shared" / "data"))


@dataclass(frozen=True)
class Job:
    """One side of a comparison, run in a process of its own."""

    what: str
    root: str
    device: str
    detector: str = ""
    precision: str = "fp32"
    side_px: int = 640
    batch: int = 8
    warm_up: int = 5
    steps: int = 200
    epochs: int = 0
    workers: int = 8
    seed: int = 0


def run_job(job: Job) -> dict[str, Any]:
    """What one side gave, by a new process; a peer that is not installed gives the reason."""
    ended = subprocess.run([sys.executable, __file__, "--job", json.dumps(asdict(job))], capture_output=True, text=True, check=False)
    if ended.returncode:
        return {"failed": (ended.stderr.strip().splitlines() or ["no message"])[-1]}
    answer: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return answer


def ours(job: Job, release: Release) -> dict[str, Any]:
    """Our own loop, all of it: loader, average of the weights, clipping, checkpoints; validated only at the end."""
    from train.fitting.run import train_run

    per_epoch = -(-release.size_of("train") // job.batch)
    epochs = job.epochs or max(2, -(-(job.steps + job.warm_up) // per_epoch))
    options = {
        "detector": job.detector, "device": job.device, "precision": job.precision, "image_size": job.side_px, "batch_size": job.batch,
        "epochs": epochs, "workers": job.workers, "seed": job.seed, "eval_every": epochs, "weights": "auto" if job.epochs else "none",
    }  # fmt: skip
    result = train_run(Workspace.at(job.root), release.dataset, options)
    rows = list(_rows(Path(result["path"]) / "metrics.csv"))[1:]
    found: dict[str, Any] = {
        "images_per_s": mean(row["images_per_s"] for row in rows),
        "wait_share": mean(row["wait_share"] for row in rows),
        "AP": result["metrics"]["val"]["AP"],
    }
    return found


def _rows(path: Path) -> Iterator[dict[str, float]]:
    import csv

    with path.open() as file:
        yield from ({key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file))


class Photographs(torch.utils.data.Dataset):
    """The train split as both peers read it: PIL image, boxes xyxy, labels from 0."""

    def __init__(self, release: Release, change: Callable[[Any, np.ndarray, np.ndarray], Any]) -> None:
        split = release.splits["train"]
        self.files = [release.images / name for name in split.file_names_I]
        boxes = split.boxes_xywh_A4.copy()
        boxes[:, 2:] += boxes[:, :2]
        labels = split.labels_A()
        self.targets = [(boxes[rows], labels[rows]) for rows in split.annotations_of()]
        self.change = change

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, row: int) -> Any:
        from PIL import Image

        with Image.open(self.files[row]) as opened:
            return self.change(opened.convert("RGB"), *self.targets[row])


def torchvision_sample(image: Any, boxes: np.ndarray, labels: np.ndarray) -> tuple[Any, dict[str, Any]]:
    """As torchvision's reference has it in `hflip` with the v2 backend."""
    from torchvision import tv_tensors
    from torchvision.transforms import v2

    steps = v2.Compose([v2.ToImage(), v2.RandomHorizontalFlip(0.5), v2.ToDtype(torch.float32, scale=True), v2.SanitizeBoundingBoxes()])
    boxes_ = tv_tensors.BoundingBoxes(torch.from_numpy(boxes), format="XYXY", canvas_size=(image.height, image.width))
    pixels, target = steps(image, {"boxes": boxes_, "labels": torch.from_numpy(labels) + 1})
    return pixels.as_subclass(torch.Tensor), {"boxes": target["boxes"].as_subclass(torch.Tensor).float(), "labels": target["labels"]}


def pairs(items: list[Any]) -> tuple[Any, ...]:
    return tuple(zip(*items, strict=True))


def torchvision_reference(job: Job, release: Release) -> dict[str, Any]:
    """Faster R-CNN by torchvision's own loop; `precision` "amp" = its fp16 with a gradient scaler."""
    from torchvision.models.detection import fasterrcnn_resnet50_fpn_v2

    device, amp = torch.device(job.device), job.precision == "amp"
    model = fasterrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None, num_classes=len(release.categories) + 1)
    model.transform.fixed_size = (job.side_px, job.side_px)
    model = model.to(device).train()
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, weight_decay=1e-4)
    scaler = torch.amp.GradScaler(device.type, enabled=amp and device.type == "cuda")
    loader = torch.utils.data.DataLoader(
        Photographs(release, torchvision_sample), job.batch, shuffle=True, drop_last=True, num_workers=job.workers, collate_fn=pairs
    )
    clock, step = _Clock(device, job), 0
    while not clock.ended:
        for images, targets in loader:
            with torch.autocast(device.type, torch.float16 if device.type == "cuda" else torch.bfloat16, enabled=amp):
                losses = model([image.to(device) for image in images], [{k: v.to(device) for k, v in each.items()} for each in targets])
                total = sum(losses.values())
            total.item()  # the reference reduces and looks at the loss in every step
            optimiser.zero_grad()
            scaler.scale(total).backward()
            scaler.step(optimiser)
            scaler.update()
            step += 1
            if clock.after(step):
                break
    return {"images_per_s": clock.images_per_s}


def trainer(job: Job, release: Release) -> dict[str, Any]:
    """RT-DETRv2 by transformers' `Trainer`, with its image processor, as its object-detection example does."""
    from train.detectors import transformers_family  # noqa: F401 - found while our root can still be seen
    from train.detectors.detector import open_detector

    # Our root holds a folder `datasets`, which transformers takes for Hugging Face's package of that name.
    sys.path[:] = [place for place in sys.path if not (Path(place or ".") / "datasets").is_dir()]
    from transformers import RTDetrImageProcessor, Trainer, TrainerCallback, TrainingArguments

    model = open_detector(job.detector, release.categories, job.side_px, "none").model
    processor = RTDetrImageProcessor(size={"height": job.side_px, "width": job.side_px})

    def sample(image: Any, boxes: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
        xywh = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)
        boxes_ = [
            {"bbox": box, "category_id": int(label), "area": box[2] * box[3], "iscrowd": 0, "image_id": 0}
            for box, label in zip(xywh.tolist(), labels, strict=True)
        ]
        told = processor(images=image, annotations={"image_id": 0, "annotations": boxes_}, return_tensors="pt")
        return {"pixel_values": told["pixel_values"][0], "labels": told["labels"][0]}

    def collate(items: list[dict[str, Any]]) -> dict[str, Any]:
        return {"pixel_values": torch.stack([item["pixel_values"] for item in items]), "labels": [dict(item["labels"]) for item in items]}

    clock = _Clock(torch.device(job.device), job)

    class Timed(TrainerCallback):
        def on_step_end(self, arguments: Any, state: Any, control: Any, **_more: Any) -> None:
            clock.after(state.global_step)

    with tempfile.TemporaryDirectory() as place:
        arguments = TrainingArguments(
            place, per_device_train_batch_size=job.batch, max_steps=job.steps + job.warm_up, bf16=job.precision == "bf16", report_to="none",
            dataloader_num_workers=job.workers, remove_unused_columns=False, save_strategy="no", logging_steps=50, learning_rate=1e-4,
            max_grad_norm=0.1, use_cpu=job.device == "cpu", disable_tqdm=True,
        )  # fmt: skip
        data = Photographs(release, sample)
        Trainer(model, arguments, train_dataset=data, data_collator=collate, callbacks=[Timed()]).train()
    return {"images_per_s": clock.images_per_s}


class _Clock:
    """Images per second from the step after the warm-up to the last, once the device has finished them."""

    def __init__(self, device: torch.device, job: Job) -> None:
        self.device, self.job, self.begun, self.images_per_s = device, job, 0.0, 0.0

    @property
    def ended(self) -> bool:
        return self.images_per_s > 0

    def after(self, step: int) -> bool:
        if step in {self.job.warm_up, self.job.warm_up + self.job.steps}:
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            if step == self.job.warm_up:
                self.begun = time.perf_counter()
            else:
                self.images_per_s = self.job.steps * self.job.batch / (time.perf_counter() - self.begun)
        return self.ended


PARTS = ("precision", "faster_rcnn", "transformer")
SIDES = {"ours": ours, "torchvision": torchvision_reference, "trainer": trainer}


def one(job: Job) -> dict[str, Any]:
    """This process's side, with its peak memory."""
    device = find_device(job.device)
    workspace = Workspace.at(job.root)
    (name,) = [path.name for path in workspace.datasets.iterdir()]
    found = SIDES[job.what](job, open_release(workspace.dataset(name)))
    return {**found, "peak_mb": round(peak_mb(device), 1)}


def report(plain: Job, seeds: int, parts: set[str]) -> dict[str, Any]:
    """The comparisons: the figures that the project wants of a card."""
    hardware = has_bf16(find_device(plain.device))
    bf16, amp = "bf16" if hardware else "fp32", "amp" if hardware or plain.device != "cpu" else "fp32"
    light = replace(plain, what="ours", detector="fcos_mobilenet_v2", epochs=plain.epochs or 12)
    heavy = replace(plain, what="ours", epochs=0, detector="fasterrcnn_resnet50_fpn_v2")
    transformer = replace(heavy, detector="rtdetr_v2_r18", precision=bf16)
    found: dict[str, Any] = {"bf16_in_hardware": hardware}
    if "precision" in parts:
        kinds = {"fp32": "fp32", "bf16": bf16}
        found["precision"] = _precision(
            {kind: [run_job(replace(light, precision=real, seed=seed)) for seed in range(seeds)] for kind, real in kinds.items()}
        )
    if "faster_rcnn" in parts:
        found["faster_rcnn"] = {
            "ours_fp32": run_job(heavy),
            "ours_bf16": run_job(replace(heavy, precision=bf16)),
            "torchvision_fp32": run_job(replace(heavy, what="torchvision")),
            "torchvision_amp": run_job(replace(heavy, what="torchvision", precision=amp)),
        }
    if "transformer" in parts:
        found["transformer"] = {"ours": run_job(transformer), "trainer": run_job(replace(transformer, what="trainer"))}
    return {**found, "ratios": _ratios(found)}


def _precision(runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    if any("failed" in run for each in runs.values() for run in each):
        return {**runs}
    told = {kind: {key: mean(run[key] for run in each) for key in each[0]} for kind, each in runs.items()}
    return {
        **told,
        "times_faster": round(told["bf16"]["images_per_s"] / told["fp32"]["images_per_s"], 2),
        "delta_AP_points": round(100 * (told["bf16"]["AP"] - told["fp32"]["AP"]), 2),
        "seeds": len(runs["fp32"]),
    }


def _ratios(found: dict[str, Any]) -> dict[str, float]:
    wanted = {
        "faster_rcnn_bf16_to_fp32": ("faster_rcnn", "ours_bf16", "ours_fp32"),
        "faster_rcnn_fp32_to_torchvision": ("faster_rcnn", "ours_fp32", "torchvision_fp32"),
        "faster_rcnn_bf16_to_torchvision_amp": ("faster_rcnn", "ours_bf16", "torchvision_amp"),
        "rtdetr_to_trainer": ("transformer", "ours", "trainer"),
    }
    return {
        name: round(found[group][one]["images_per_s"] / found[group][other]["images_per_s"], 2)
        for name, (group, one, other) in wanted.items()
        if group in found and "failed" not in found[group][one] and "failed" not in found[group][other]
    }


def prepare(root: Path, tiny: bool) -> None:
    """A release of real photographs, made by the commands that a user types."""
    name, form = ("raccoon", "voc") if tiny else ("facemask-coco", "coco")
    for words in (["import", "photos", str(DATA / name), "--format", form], ["release", "photos"]):
        subprocess.run([sys.executable, "-m", "boxwright", *words, "--root", str(root), "--quiet"], check=True, cwd=ROOT, stdout=sys.stderr)
    if tiny:
        _shorten(root)


def _shorten(root: Path) -> None:
    release = open_release(Workspace.at(str(root)).dataset("photos"))
    folder = Workspace.at(str(root)).dataset("photos").release_path(release.version)
    for split, source in (("train", "train"), ("val", "test"), ("test", "test")):
        document = dict(release.documents[source])
        document["images"] = document["images"][: 4 if split == "train" else 2]
        kept = {image["id"] for image in document["images"]}
        document["annotations"] = [each for each in document["annotations"] if each["image_id"] in kept]
        (folder / f"{split}.json").write_text(json.dumps(document))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--parts", default=",".join(PARTS), help="which of them, with commas between")
    parser.add_argument("--tiny", action="store_true", help="a few steps on few small images")
    parser.add_argument("--quick", action="store_true", help="fewer steps and one seed")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each precision, whose APs are averaged")
    parser.add_argument("--job", help="one side, as JSON: what this script asks of itself")
    arguments = parser.parse_args()
    if arguments.job:
        sys.stdout.write(json.dumps(one(Job(**json.loads(arguments.job)))) + "\n")
        return
    parts = set(arguments.parts.split(","))
    if parts - set(PARTS):
        parser.error(f"--parts {arguments.parts}: choose among {', '.join(PARTS)}")
    reason = "" if arguments.device == "cpu" or torch.cuda.is_available() else "no CUDA card here; --tiny --device cpu shows that it works"
    if not (DATA / ("raccoon" if arguments.tiny else "facemask-coco")).is_dir():
        reason = f"no photographs at {DATA}; set BOXWRIGHT_TEST_DATA"
    if reason:
        sys.stdout.write(json.dumps({"skipped": reason}) + "\n")
        return
    with tempfile.TemporaryDirectory() as place:
        prepare(Path(place), arguments.tiny)
        plain = Job("ours", place, arguments.device)
        if arguments.tiny:
            plain = replace(plain, side_px=128, batch=2, warm_up=1, steps=1, epochs=2, workers=0)
        elif arguments.quick:
            plain = replace(plain, steps=40, epochs=4)
        seeds = 1 if arguments.tiny or arguments.quick else arguments.seeds
        card = torch.cuda.get_device_name(0) if arguments.device != "cpu" else "CPU"
        sys.stdout.write(json.dumps({"device": card, "torch": torch.__version__, **report(plain, seeds, parts)}, indent=2) + "\n")


if __name__ == "__main__":
    main()
