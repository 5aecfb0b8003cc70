"""Near-duplicate detection beside imagededup's pHash, on its own recipe; and a million hashes joined with themselves.

    python tests/benchmarks/bench_duplicates.py [--quick]
    python tests/benchmarks/bench_duplicates.py --model FILE [--sets NAME,…] [--photos N]

Real photos are put through the transforms that imagededup's benchmark names (resize with another aspect, random crop to 7/8
of each side, flips, rotation by 25 degrees) and colour, format and noise. Each transformed image is asked for against all
originals. Recall: how often its original is found. Precision: the share of found pairs that are true; originals that are
near-duplicates of one another (found by both tests at a stricter mark) count as neither.

With `--model` (`boxwright onnx --lookalikes` writes one) stronger transforms are asked for too, by hashes alone and with
`[collect] lookalike_model`; originals that are the same picture to it (look at them: `alike`) count as neither. No self-join then.

imagededup runs from the virtual environment that BOXWRIGHT_PEERS names, at its default distance of 10. Prints JSON.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFont, ImageOps

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from collect import blobs  # noqa: E402
from collect.images.duplicates import NearIndex, near_pairs  # noqa: E402
from collect.images.hashing import look  # noqa: E402
from collect.images.inspect import inspect  # noqa: E402
from collect.images.limits import InspectLimits  # noqa: E402
from collect.images.similarity import confirmed  # noqa: E402
from collect.images.workers import InspectWorkers  # noqa: E402
from collect.ledger import Ledger  # noqa: E402
from collect.lookalikes import Lookalikes  # noqa: E402
from collect.records import Picture  # noqa: E402
from collect.workspace import Workspace  # noqa: E402

DATA = Path(os.environ.get("BOXWRIGHT_TEST_DATA") or ROOT.parent / "shared" / "data")
_PEER = """
import json, sys
from imagededup.methods import PHash
method = PHash(verbose=False)
codes = method.encode_images(image_dir=sys.argv[1], num_enc_workers=0)
found = method.find_duplicates(encoding_map=codes, max_distance_threshold=10, num_dist_workers=0)
print("RESULT" + json.dumps(found))
"""


def jpeg(image: Image.Image, quality: int = 90) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def webp(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=60)
    return buffer.getvalue()


def crop(image: Image.Image) -> Image.Image:
    width, height = image.width * 7 // 8, image.height * 7 // 8
    left, top = random.randint(0, image.width - width), random.randint(0, image.height - height)
    return image.crop((left, top, left + width, top + height))


def colour(image: Image.Image) -> Image.Image:
    image = ImageEnhance.Brightness(image).enhance(random.uniform(0.7, 1.3))
    image = ImageEnhance.Contrast(image).enhance(random.uniform(0.7, 1.3))
    return ImageEnhance.Color(image).enhance(random.uniform(0, 1.6))


def noise(image: Image.Image) -> Image.Image:
    pixels = np.asarray(image, np.float32)
    return Image.fromarray((pixels + np.random.default_rng(0).normal(0, 12, pixels.shape)).clip(0, 255).astype(np.uint8))


TRANSFORMS: dict[str, Callable[[Image.Image], bytes]] = {
    "resize": lambda image: jpeg(image.resize((max(image.size),) * 2)),
    "crop": lambda image: jpeg(crop(image)),
    "colour": lambda image: jpeg(colour(image)),
    "format": webp,
    "noise": lambda image: jpeg(noise(image)),
    "flip": lambda image: jpeg(ImageOps.mirror(image)),
    "flip_vertical": lambda image: jpeg(ImageOps.flip(image)),
    "rotate_25": lambda image: jpeg(image.rotate(25, expand=True)),
}
MAIN = ("resize", "crop", "colour", "format", "noise")


def part(image: Image.Image, share: float) -> Image.Image:
    width, height = round(image.width * share), round(image.height * share)
    left, top = random.randint(0, image.width - width), random.randint(0, image.height - height)
    return image.crop((left, top, left + width, top + height))


def square(image: Image.Image) -> Image.Image:
    side = min(image.size)
    left, top = random.randint(0, image.width - side), random.randint(0, image.height - side)
    return image.crop((left, top, left + side, top + side))


def caption(image: Image.Image) -> Image.Image:
    band = image.height // 5
    framed = ImageOps.expand(image, (0, 0, 0, band), "white")
    ImageDraw.Draw(framed).text((8, image.height + 4), "When the boss says hello", "black", ImageFont.load_default(max(10, band // 3)))
    return framed


def logo(image: Image.Image) -> Image.Image:
    image, width, height = image.copy(), image.width // 4, image.height // 4
    left, top = random.randint(0, image.width - width), random.randint(0, image.height - height)
    ImageDraw.Draw(image).rectangle((left, top, left + width, top + height), "navy", "yellow", max(2, width // 8))
    return image


STRONG: dict[str, Callable[[Image.Image], bytes]] = {
    "crop_3/4": lambda image: jpeg(part(image, 3 / 4)),
    "crop_2/3": lambda image: jpeg(part(image, 2 / 3)),
    "crop_1/2": lambda image: jpeg(part(image, 1 / 2)),
    "square": lambda image: jpeg(square(image)),
    "border": lambda image: jpeg(ImageOps.expand(image, round(0.12 * min(image.size)), "black")),
    "letterbox": lambda image: jpeg(ImageOps.expand(image, (0, round(0.18 * image.height)), "black")),
    "caption": lambda image: jpeg(caption(image)),
    "logo": lambda image: jpeg(logo(image)),
    "rotate_5": lambda image: jpeg(image.rotate(5, Image.Resampling.BICUBIC, expand=True)),
}
SETS: dict[str, Callable[[], list[Path]]] = {
    "raccoon": lambda: sorted((DATA / "raccoon").rglob("*.jpg")),
    "facemask-coco": lambda: sorted((DATA / "facemask-coco").rglob("*.[jp]*g"))[:250],
    "face-crops": lambda: sorted((DATA / "face-crops").rglob("*.*g"))[::6],
    "bccd": lambda: sorted((DATA / "bccd").rglob("*.jpg"))[:60],
}


def originals(number: int, sets: Sequence[str] = tuple(SETS)) -> list[Image.Image]:
    """Real photos, no two of the same bytes."""
    bodies = list(dict.fromkeys(path.read_bytes() for name in sets for path in SETS[name]()))
    random.Random(0).shuffle(bodies)
    images = [ImageOps.exif_transpose(Image.open(io.BytesIO(body))).convert("RGB") for body in bodies[:number]]
    for image in images:
        image.thumbnail((1000, 1000))
    return images


def write(folder: Path, images: list[Image.Image], transforms: Mapping[str, Callable[[Image.Image], bytes]] = TRANSFORMS) -> None:
    for number, image in enumerate(images):
        (folder / f"{number:04d}-original.jpg").write_bytes(jpeg(image, 95))
        for name, transform in transforms.items():
            (folder / f"{number:04d}-{name.replace('/', ':')}.jpg").write_bytes(transform(image))


def ours(folder: Path) -> tuple[dict[str, set[str]], float]:
    """For each transformed file the originals found."""
    started = time.process_time()
    seen: dict[str, Picture] = {}
    for path in sorted(folder.iterdir()):
        verdict = inspect(path.read_bytes())
        assert isinstance(verdict, Picture), path
        seen[path.name] = verdict
    index = NearIndex(10)
    names = {picture.sha256: name for name, picture in seen.items() if name.endswith("-original.jpg")}
    held = [seen[name] for name in names.values()]
    index.extend(list(names), [p.phash for p in held], [look(p.phash, p.signature).windows for p in held])
    found: dict[str, set[str]] = {}
    for name, picture in seen.items():
        suspects = [names[sha256] for sha256, _bits in index.suspects([look(picture.phash, picture.signature)])[0]]
        found[name] = {other for other in suspects if other != name and confirmed(picture.signature, seen[other].signature)}
    return found, time.process_time() - started


def with_model(folder: Path, model: Path, by_hashes: dict[str, set[str]]) -> tuple[dict[str, set[str]], float]:
    """As :func:`ours`, by look-alikes where no hash finds anything; CPU of it alone."""
    before = os.times()
    found = dict(by_hashes)
    with tempfile.TemporaryDirectory() as place:
        dataset = Workspace.at(place).new_dataset("bench")
        lookalikes = Lookalikes(dataset, model)
        with Ledger(dataset.ledger) as ledger, InspectWorkers(InspectLimits(), 1, network=model) as workers:
            lookalikes.catch_up(ledger, workers)
            names: dict[str, str] = {}
            for path in sorted(folder.iterdir(), key=lambda path: ("original" not in path.name, path.name)):
                data = path.read_bytes()
                vector = lookalikes.vector(data)
                same = None if found[path.name] else lookalikes.same(data, vector)
                if same:
                    found[path.name] = {names[same[0]]}
                if path.name.endswith("-original.jpg"):
                    sha256 = hashlib.sha256(data).hexdigest()
                    names[sha256] = path.name
                    blobs.store_all(dataset, [blobs.Blob(sha256, "jpg", data)], durable=False)
                    lookalikes.add(sha256, vector)
    after = os.times()
    return found, sum(after[:4]) - sum(before[:4])


def strong(arguments: argparse.Namespace) -> dict[str, Any]:
    """The report with `--model`."""
    transforms = {name: TRANSFORMS[name] for name in ("crop", "colour", "flip_vertical", "rotate_25")} | STRONG
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        images = originals(arguments.photos, arguments.sets.split(","))
        write(folder, images, transforms)
        hashes, hashes_cpu_s = ours(folder)
        both, model_cpu_s = with_model(folder, arguments.model, hashes)
    alike = {frozenset((name[:4], other[:4])) for name, others in both.items() if "original" in name for other in others}
    reports = {"hashes": judge(hashes, hashes_cpu_s, alike, transforms), "with a model": judge(both, model_cpu_s, alike, transforms)}
    return {"photos": len(images), "files": len(both), "alike": sorted(map(sorted, alike)), **reports}


def peer(folder: Path) -> tuple[dict[str, set[str]], float] | None:
    python = Path(os.environ.get("BOXWRIGHT_PEERS", "/nonexistent")) / "bin" / "python"
    if not python.exists():
        return None
    before = os.times()
    done = subprocess.run([str(python), "-c", _PEER, str(folder)], capture_output=True, text=True, check=False)
    after = os.times()
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    document = json.loads(done.stdout.split("RESULT")[1])
    found = {name: {other for other in others if other.endswith("-original.jpg")} for name, others in document.items()}
    return found, after.children_user + after.children_system - before.children_user - before.children_system


def judge(found: dict[str, set[str]], cpu_s: float, same: set[frozenset[str]], transforms: Collection[str] = MAIN) -> dict[str, Any]:
    """Recall by transform, over those named, and precision over all pairs found for them."""
    recall, true, false = {}, 0, 0
    for name in TRANSFORMS | STRONG:
        hits = [(entry[:4], others) for entry, others in found.items() if entry.endswith(f"-{name.replace('/', ':')}.jpg")]
        if not hits:
            continue
        recall[name] = round(sum(f"{number}-original.jpg" in others for number, others in hits) / len(hits), 3)
        if name in transforms:
            for number, others in hits:
                true += sum(other[:4] == number for other in others)
                false += sum(other[:4] != number and frozenset((number, other[:4])) not in same for other in others)
    return {
        "recall": recall,
        "mean_recall": round(sum(recall[name] for name in transforms) / len(transforms), 3),
        "precision": round(true / max(1, true + false), 4),
        "false_pairs": false,
        "cpu_s": round(cpu_s, 1),
    }


def self_join(number: int) -> dict[str, Any]:
    """Random hashes with planted near pairs, joined with themselves within ten bits."""
    source = np.random.default_rng(0)
    hashes = source.integers(0, 2**64, number, dtype=np.uint64)
    planted = number // 100
    for _ in range(10):
        hashes[:planted] ^= np.uint64(1) << source.integers(0, 64, planted, dtype=np.uint64)
    hashes[planted : 2 * planted] = hashes[:planted]
    for _ in range(8):
        hashes[planted : 2 * planted] ^= np.uint64(1) << source.integers(0, 64, planted, dtype=np.uint64)
    cpu, wall = time.process_time(), time.monotonic()
    pairs: set[tuple[int, int]] = set()
    for first, second in near_pairs(hashes, None, 10):
        pairs.update(zip(np.minimum(first, second).tolist(), np.maximum(first, second).tolist(), strict=True))
    found = sum((place, place + planted) in pairs for place in range(planted))
    return {
        "hashes": number, "cpu_s": round(time.process_time() - cpu, 1), "wall_s": round(time.monotonic() - wall, 1), "pairs": len(pairs),
        "planted": planted, "planted_found": found,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="100 photos and 100,000 hashes")
    parser.add_argument("--model", type=Path, help="an ONNX file for [collect] lookalike_model: the strong transforms instead")
    parser.add_argument("--sets", default=",".join(SETS), help="with --model: which photos (default: %(default)s)")
    parser.add_argument("--photos", type=int, default=100, help="with --model: how many (default: %(default)s)")
    arguments = parser.parse_args()
    random.seed(0)
    if arguments.model:
        sys.stdout.write(json.dumps(strong(arguments), indent=1) + "\n")
        return
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        images = originals(100 if arguments.quick else 500)
        write(folder, images)
        found, cpu_s = ours(folder)
        beside = peer(folder)
    # Originals that both agree upon are near-duplicates in truth: photos taken in a row, or one with a caption added.
    same = {frozenset((name[:4], other[:4])) for name, others in found.items() if "original" in name for other in others}
    document = {"photos": len(images), "truly_alike_originals": len(same), "boxwright": judge(found, cpu_s, same)}
    if beside:
        document["imagededup PHash, distance 10"] = judge(*beside, same)
    document["self_join"] = self_join(100_000 if arguments.quick else 1_000_000)
    sys.stdout.write(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
