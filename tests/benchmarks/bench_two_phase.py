"""The seed talk's two-phase detector: accuracy on crops, mAP on facemask-coco beside a one-stage detector, whole photos.

    python tests/benchmarks/bench_two_phase.py [--quick] [--pictures FOLDER]

The talk: 95.1 % on a random split of its full set, 30 epochs of 700 to 900 s each on a CPU. Here the split crosses no
near-duplicate (64-bit pHash, 12 bits), the frozen part looks at every crop twice (as it is, mirrored) and never again.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402

from annotate.boxes import iou_matrix  # noqa: E402
from annotate.coco import Category  # noqa: E402
from train.data.cache import decode  # noqa: E402
from train.detectors.two_phase import FEATURES, TwoPhase, two_phase  # noqa: E402
from train.fitting.crops import (  # noqa: E402
    HELD_OUT,
    class_folders,
    embed_twice,
    fit_final_layers,
    is_right,
    read_crops,
    reset_final_layers,
    split_groups,
)
from train.judging.evaluate import evaluate  # noqa: E402
from train.serving.predictor import Predictor  # noqa: E402

CATEGORIES = (Category(1, "mask"), Category(2, "nomask"))


#: Splits by the session that first looked at them; nothing was chosen on the last.
SPLITS = {"0-9": range(10), "100-104": range(100, 105), "200-209": range(200, 210)}


def on_crops(data: Path, splits: dict[str, range]) -> tuple[dict, TwoPhase]:
    started, wall = time.process_time(), time.perf_counter()
    crops = read_crops(data / "face-crops", class_folders(data / "face-crops", CATEGORIES))
    detector = two_phase(CATEGORIES, 640, "auto")
    assert isinstance(detector, TwoPhase)
    features = embed_twice(detector, crops)
    embedded = time.process_time() - started
    scores = {}
    for name, seeds in splits.items():
        shares = []
        for seed in seeds:
            train, held = split_groups(crops, HELD_OUT, seed)
            reset_final_layers(detector, seed)
            fit_final_layers(detector, features, crops.labels_N, train, seed=seed)
            shares.append(float(is_right(detector, features, crops.labels_N)[held].mean()))
        scores[name] = {"mean": float(np.mean(shares)), "least": min(shares), "accuracy": shares}
    every = np.ones(len(crops.files), dtype=bool)
    reset_final_layers(detector, 0)
    fit_final_layers(detector, features, crops.labels_N, every)
    return {
        "crops": len(crops.files), "groups": len(set(crops.groups_N.tolist())), "held_out_share": HELD_OUT, "splits": scores,
        "embed_cpu_s": embedded, "all_cpu_s": time.process_time() - started,
        "all_wall_s": time.perf_counter() - wall, "weights": detector.weights_origin,
    }, detector  # fmt: skip


def on_facemask(data: Path, most: int) -> dict:
    """Trained on the set's own train boxes (features once), judged on its val split: the third class is 'worn wrongly'."""
    folder = data / "facemask-coco"
    train, val = (json.loads((folder / f"annotations/custom_{split}.json").read_bytes()) for split in ("train", "val"))
    used = sorted({a["category_id"] for a in train["annotations"]})
    names = {c["id"]: c["name"] for c in train["categories"]}
    detector = two_phase(tuple(Category(n, names[n]) for n in used), 640, "auto")
    assert isinstance(detector, TwoPhase)
    detector.eval()
    started = time.process_time()
    parts, labels = [[], []], []
    for image in train["images"][:most]:
        boxes = [a for a in train["annotations"] if a["image_id"] == image["id"] and min(a["bbox"][2:]) > 4]
        if not boxes:
            continue
        pixels = torch.from_numpy(np.array(decode(folder / "train2017" / image["file_name"]))).permute(2, 0, 1)[None]
        xywh = torch.tensor([a["bbox"] for a in boxes], dtype=torch.float32)
        xyxy = [torch.cat([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], 1)]
        detector.learn_offset(pixels, xyxy)
        looks = detector.looks(pixels, xyxy)
        for place, part in enumerate((looks, looks.flip(-1))):
            parts[place].append(detector.embed(part))
        labels += [used.index(a["category_id"]) for a in boxes]
    features, targets = [torch.cat(part) for part in parts], torch.tensor(labels)
    assert features[0].shape[1] == FEATURES
    fit_final_layers(detector, features, targets, np.ones(len(targets), dtype=bool), epochs=25)
    trained = time.process_time() - started
    images = val["images"][: most // 4]
    kept = {image["id"] for image in images}
    truth = {**val, "images": images, "annotations": [{**a, "id": k} for k, a in enumerate(val["annotations"], 1) if a["image_id"] in kept]}
    judged = {}
    for name, offset in (("boxes as OpenCV's", torch.zeros(4)), ("boxes as the labels'", detector.offset.clone())):
        detector.offset.copy_(offset)
        judged[name] = judge(detector, truth, used, folder)
    return {
        "train_boxes": len(labels), "val_images": len(images), "offset": detector.offset.tolist(),
        "pairs": int(detector.offset_seen[0]), **judged,
        "train_cpu_s": trained, "cpu_s": time.process_time() - started,
    }  # fmt: skip


def judge(detector: TwoPhase, truth: dict, used: list[int], folder: Path) -> dict:
    """mAP; and of the labelled boxes, the share with a face found there (IoU .5), and with one of the right class."""
    results, found_there, right, total = [], 0, 0, 0
    predictor = Predictor(detector, "cpu")
    for image in truth["images"]:
        found = next(iter(predictor([decode(folder / "val2017" / image["file_name"])])))
        for box, score, label in zip(found.boxes_xywh_N4.tolist(), found.scores_N.tolist(), found.labels_N.tolist(), strict=True):
            results.append({"image_id": image["id"], "category_id": used[label], "bbox": box, "score": score})
        own = [a for a in truth["annotations"] if a["image_id"] == image["id"]]
        total += len(own)
        if own and len(found):
            there = iou_matrix(np.array([a["bbox"] for a in own], dtype=np.float64), found.boxes_xywh_N4) >= 0.5
            first = there.argmax(1)  # detections come best first
            found_there += int(there.any(1).sum())
            right += sum(there[k].any() and used[found.labels_N[first[k]]] == a["category_id"] for k, a in enumerate(own))
    stats = evaluate(truth, results).stats
    return {
        "AP": stats[0], "AP50": stats[1], "APsmall": stats[3], "APmedium": stats[4], "APlarge": stats[5], "boxes": total,
        "faces_found": found_there / max(total, 1), "of_those_right_class": right / max(found_there, 1),
    }  # fmt: skip


def pictures(detector: TwoPhase, data: Path, target: Path) -> dict:
    """The talk's photos with what is found; for looking at."""
    target.mkdir(parents=True, exist_ok=True)
    predictor, counts = Predictor(detector.eval(), "cpu"), {}
    for path in sorted((data / "face-photos").iterdir()):
        image = decode(path)
        found = next(iter(predictor([image])))
        canvas = cv2.cvtColor(np.array(image), cv2.COLOR_RGB2BGR)
        kept = [row for row in range(len(found)) if found.scores_N[row] >= 0.4]
        for row in kept:
            x, y, w, h = found.boxes_xywh_N4[row].astype(int).tolist()
            colour = (60, 200, 60) if found.labels_N[row] == 0 else (60, 60, 230)
            cv2.rectangle(canvas, (x, y), (x + w, y + h), colour, 3)
            text = f"{CATEGORIES[found.labels_N[row]].name} {found.scores_N[row]:.2f}"
            cv2.putText(canvas, text, (x, max(14, y - 6)), cv2.FONT_HERSHEY_SIMPLEX, 0.6, colour, 2)
        cv2.imwrite(str(target / f"{path.stem}.jpg"), canvas)
        counts[path.name] = {CATEGORIES[c].name: sum(int(found.labels_N[row]) == c for row in kept) for c in (0, 1)}
    return counts


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--pictures", default="")
    arguments = parser.parse_args()
    data = Path(os.environ.get("BOXWRIGHT_TEST_DATA") or ROOT.parent / "shared" / "data")
    os.environ.setdefault("BOXWRIGHT_FACE_DETECTOR", str(data / "face-detector"))
    on, detector = on_crops(data, {"0-1": range(2)} if arguments.quick else SPLITS)
    document: dict = {"crops": on}
    sys.stderr.write(f"{on}\n")
    if arguments.pictures:
        document["photos"] = pictures(detector, data, Path(arguments.pictures))
        sys.stderr.write(f"{document['photos']}\n")
    document["facemask-coco"] = on_facemask(data, 80 if arguments.quick else 10_000)
    sys.stdout.write(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
