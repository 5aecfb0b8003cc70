"""Reading and writing of every format: CPU-seconds and the largest error in pixels, beside a named peer where one is installed.

`python tests/benchmarks/bench_formats.py [--quick]` prints one JSON document. The peer is LightlyAI's `labelformat` (MIT), run in
the Python that `BOXWRIGHT_PEERS` names (a venv's folder); without it our own figures stand alone.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import orjson

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))

from annotate.formats.format import EXPORTERS, IMPORTERS, Export, exporter, importer  # noqa: E402
from annotate.formats.names import name_images  # noqa: E402
from annotate.upright import frame_of  # noqa: E402
from annotate.validate import normalise  # noqa: E402
from collect.records import Picture  # noqa: E402

PEER = """
import json, resource, sys, time
from pathlib import Path
from labelformat.formats import COCOObjectDetectionInput, YOLOv8ObjectDetectionOutput
start = time.process_time()
labels = COCOObjectDetectionInput(input_file=Path(sys.argv[1]))
YOLOv8ObjectDetectionOutput(output_file=Path(sys.argv[2]) / "data.yaml", output_split="train").save(label_input=labels)
print(json.dumps({"cpu_s": time.process_time() - start}))
"""


def document_of(num_images: int, boxes_per_image: int) -> dict[str, Any]:
    """Images of 640×480 with random boxes, the same for the same numbers."""
    random = np.random.default_rng(0)
    images = [
        {
            "id": n,
            "file_name": f"{n:064x}.jpg",
            "original_name": f"image {n}.jpg",
            "sha256": f"{n:064x}",
            "width": 640,
            "height": 480,
            "split": "train",
        }
        for n in range(1, num_images + 1)
    ]
    annotations = []
    for image in images:
        corner = random.uniform(0, [500, 340], (boxes_per_image, 2))
        size = random.uniform(4, 140, (boxes_per_image, 2))
        for (x, y), (w, h) in zip(corner.tolist(), size.tolist(), strict=True):
            number = len(annotations) + 1
            facts = {"id": number, "image_id": image["id"], "category_id": 1 + number % 5, "bbox": [x, y, w, h]}
            annotations.append({**facts, "area": w * h, "iscrowd": 0, "segmentation": [], "box": f"{number:024x}"})
    categories = [{"id": n, "name": f"class {n}", "supercategory": ""} for n in range(1, 6)]
    return {"info": {}, "licenses": [], "images": name_images(images), "annotations": annotations, "categories": categories}


def round_trip(form: str, document: dict[str, Any], store: Path, out: Path) -> dict[str, float]:
    """CPU-seconds to write and to read, and the largest error of a box's edge in pixels."""
    start = time.process_time()
    exporter(form)(Export(document, store, out, "v001"))
    written = time.process_time()
    result = {"write_cpu_s": round(written - start, 3)}
    if form not in IMPORTERS:
        return result
    found = importer(form)(out)
    result["read_cpu_s"] = round(time.process_time() - written, 3)
    boxes: dict[str, list[Any]] = {}
    for image in found.images:
        frame, _, _ = frame_of((image.width, image.height), Picture("", 0, "", "jpg", 640, 480), relative=image.relative)
        assert frame is not None
        boxes[Path(image.file_name).stem] = [frame.box(box).xywh for box in image.boxes]
    names = {image["id"]: Path(image["name"]).stem for image in document["images"]}
    truth: dict[str, list[Any]] = {name: [] for name in names.values()}
    for annotation in document["annotations"]:
        truth[names[annotation["image_id"]]].append(annotation["bbox"])
    assert boxes.keys() == truth.keys(), form
    result["max_error_px"] = max(float(np.abs(np.array(truth[name]) - np.array(boxes[name])).max()) for name in truth)
    return result


def peer(document: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The peer's COCO to YOLO beside ours, labels only."""
    home = os.environ.get("BOXWRIGHT_PEERS")
    if not home:
        return {"skipped": "set BOXWRIGHT_PEERS to a venv with labelformat"}
    source = folder / "peer.json"
    plain = {**document, "images": [{**image, "file_name": image["name"]} for image in document["images"]]}
    source.write_bytes(orjson.dumps(plain))
    (folder / "peer").mkdir()
    command = [str(Path(home) / "bin" / "python"), "-c", PEER, str(source), str(folder / "peer")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"skipped": done.stderr.strip().splitlines()[-1]}
    theirs = json.loads(done.stdout)["cpu_s"]
    start = time.process_time()
    found = importer("coco")(source)
    read = time.process_time() - start
    assert len(found.images) == len(document["images"])
    return {"name": "labelformat", "coco_to_yolo_cpu_s": round(theirs, 3), "our_coco_read_cpu_s": round(read, 3)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    num_images, boxes = (200, 5) if quick else (2000, 5)
    document = document_of(num_images, boxes)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = folder / "store"
        store.mkdir()
        for image in document["images"]:
            (store / image["file_name"]).write_bytes(b"x")
        formats = {form: round_trip(form, document, store, folder / form) for form in sorted(set(EXPORTERS) - {"fiftyone"})}
        beside = peer(document, folder)
    large = document_of(2000, 5) if quick else document_of(100_000, 5)
    start = time.process_time()
    _, problems = normalise(large, "large.json")
    validation = {"images": len(large["images"]), "boxes": len(large["annotations"]), "cpu_s": round(time.process_time() - start, 2)}
    assert not problems
    ours = formats["yolo"]["write_cpu_s"] + beside.get("our_coco_read_cpu_s", 0.0)
    if "coco_to_yolo_cpu_s" in beside:
        beside["ratio_theirs_to_ours"] = round(beside["coco_to_yolo_cpu_s"] / ours, 2)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    result = {
        "images": num_images,
        "boxes": num_images * boxes,
        "formats": formats,
        "peer": beside,
        "validation": validation,
        "peak_mb": peak_mb,
    }
    sys.stdout.write(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
