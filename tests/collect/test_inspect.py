"""Pictures told from their bytes: the odd files, the limits, and the workers that hostile files may hang or kill."""

from __future__ import annotations

import io
import math
import os
import signal
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from collect.images.inspect import inspect, inspect_all
from collect.images.limits import InspectLimits, Refusal
from collect.images.quality import blank, blurred, dark, placeholder
from collect.images.workers import InspectWorkers
from collect.records import Picture, Reason
from tests.collect.collecting import encoded, jpeg, picture

#: What is not kept of the odd files, and why. OpenCV 4.14 reads the truncated JPEGs too (grey where bytes are missing).
REFUSED = {
    "broken.png": Reason.BROKEN,
    "truncated.gif": Reason.BROKEN,
    "truncated.jpg": Reason.BROKEN,
    "truncated_image.png": Reason.BROKEN,
    "truncated_jpeg.jpg": Reason.BROKEN,
    "unknown_compression_method.png": Reason.BROKEN,
    "syntax_num_frames_zero.png": Reason.BROKEN,
    "broken_data_stream.png": Reason.BROKEN,
    "chunk_no_fctl.png": Reason.BROKEN,
    "truncated_end_chunk.png": Reason.BROKEN,
    "not_enough_data.jp2": Reason.FORMAT,
    "cross_scan_line.tga": Reason.NOT_AN_IMAGE,
    "10ct_32bit_128.tiff": Reason.FORMAT,
    "16_bit_binary.pgm": Reason.FORMAT,
    "1bit.tif": Reason.FORMAT,
    "balloon_eciRGBv2_aware.jp2": Reason.FORMAT,
    "hopper.heif": Reason.FORMAT,
    "hopper.ico": Reason.FORMAT,
    "hopper.qoi": Reason.FORMAT,
    "hopper_16bit.pgm": Reason.FORMAT,
    "hopper_1bit.pbm": Reason.FORMAT,
    "invisible.ico": Reason.FORMAT,
    "logo.svg": Reason.FORMAT,
    "ojpeg-strip.tif": Reason.FORMAT,
    "rgb_trns_ycbc.jp2": Reason.FORMAT,
    "tiff_16bit_RGB.tiff": Reason.FORMAT,
    "tiff_16bit_RGBa.tiff": Reason.FORMAT,
    "multipage.tiff": Reason.FORMAT,
    "drawing.wmf": Reason.NOT_AN_IMAGE,
    "dummy.container": Reason.NOT_AN_IMAGE,
    "duplicate_xref_entry.pdf": Reason.NOT_AN_IMAGE,
    "hdf5.h5": Reason.NOT_AN_IMAGE,
    "hopper.tar": Reason.NOT_AN_IMAGE,
    "test-ole-file.doc": Reason.NOT_AN_IMAGE,
}


def test_every_odd_file_is_kept_or_refused_for_a_stated_reason(real_data: Path) -> None:
    files = [path for path in sorted((real_data / "odd-images").rglob("*")) if path.is_file()]
    verdicts = {path.name: inspect(path.read_bytes()) for path in files}
    refused = {name: verdict.reason for name, verdict in verdicts.items() if isinstance(verdict, Refusal)}
    assert refused == REFUSED
    assert len(verdicts) - len(refused) > 120


def test_kept_odd_files_have_the_upright_size_that_pillow_sees(real_data: Path) -> None:
    for path in sorted((real_data / "odd-images").rglob("*")):
        verdict = inspect(path.read_bytes()) if path.is_file() else None
        if isinstance(verdict, Picture):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                image = Image.open(io.BytesIO(path.read_bytes()))
                assert ImageOps.exif_transpose(image).size == (verdict.width, verdict.height), path.name


def test_orientation_is_recorded_and_the_hash_is_that_of_the_upright_picture() -> None:
    upright = picture(1, (160, 96))
    plain = inspect(encoded(upright, "JPEG", quality=95))
    assert isinstance(plain, Picture)
    for tag, turned in enumerate(_as_stored(upright), 1):
        exif = Image.Exif()
        exif[0x0112] = tag
        seen = inspect(encoded(turned, "JPEG", quality=95, exif=exif))
        assert isinstance(seen, Picture)
        assert (seen.width, seen.height, seen.orientation) == (160, 96, tag)
        assert (int(seen.phash, 16) ^ int(plain.phash, 16)).bit_count() <= 4


def _as_stored(upright: Image.Image) -> list[Image.Image]:
    """The picture as a camera would store it under each EXIF orientation, 1 to 8."""
    turn = Image.Transpose
    inverse = [None, turn.FLIP_LEFT_RIGHT, turn.ROTATE_180, turn.FLIP_TOP_BOTTOM, turn.TRANSPOSE, turn.ROTATE_90, turn.TRANSVERSE]
    return [upright if step is None else upright.transpose(step) for step in [*inverse, turn.ROTATE_270]]


@pytest.mark.parametrize(
    ("data", "limits", "reason"),
    [
        (b"", InspectLimits(), Reason.EMPTY),
        (b"x" * 101, InspectLimits(max_bytes=100), Reason.TOO_MANY_BYTES),
        (jpeg(1), InspectLimits(max_pixels=100), Reason.TOO_MANY_PIXELS),
        (jpeg(1), InspectLimits(min_side_px=121), Reason.TOO_SMALL),
        (jpeg(1, (400, 70)), InspectLimits(max_aspect=5), Reason.ASPECT),
        (jpeg(1)[:-300], InspectLimits(), Reason.BROKEN),
        (b"<!-- x --><html><body>", InspectLimits(), Reason.HTML),
        (b"<?xml version='1.0'?><svg>", InspectLimits(), Reason.FORMAT),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), InspectLimits(), Reason.BROKEN),
        (bytes(range(256)), InspectLimits(), Reason.NOT_AN_IMAGE),
    ],
)
def test_refusals_name_their_reason(data: bytes, limits: InspectLimits, reason: Reason) -> None:
    verdict = inspect(data, limits)
    assert isinstance(verdict, Refusal)
    assert verdict.reason == reason
    assert verdict.detail


def test_an_animation_of_too_many_frames_is_refused() -> None:
    frames = [picture(number, (16, 16)) for number in range(5)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert isinstance(inspect(data, InspectLimits(max_frames=5)), Picture)
    verdict = inspect(data, InspectLimits(max_frames=4))
    assert isinstance(verdict, Refusal)
    assert verdict.reason == Reason.TOO_MANY_FRAMES


def test_scores_tell_the_useless_from_the_useful(real_data: Path) -> None:
    assert _scores(Image.new("RGB", (200, 150), (250, 250, 250)))["blank"] > 0.95
    assert _scores(picture(1).point([level // 12 for level in range(256)] * 3))["dark"] > 0.95
    assert _scores(picture(1, (400, 300)).filter(ImageFilter.GaussianBlur(60)))["blurred"] > 0.95
    card = Image.new("RGB", (300, 200), (230, 230, 230))
    ImageDraw.Draw(card).text((60, 90), "image not available", fill=(120, 120, 120))
    assert _scores(card)["placeholder"] > 0.95
    banner = picture(2, (400, 300))
    banner.paste(Image.new("RGB", (400, 30)), (0, 270))
    ImageDraw.Draw(banner).text((20, 280), "an agency's photo   www.agency.example   an agency's photo", fill="white")
    assert _scores(banner)["watermark"] > 0.95
    seen = [inspect(path.read_bytes()) for path in sorted((real_data / "raccoon").rglob("*.jpg"))]
    photos = [verdict for verdict in seen if isinstance(verdict, Picture)]
    for name, limit in (("blank", 0.9), ("dark", 0.9), ("blurred", 0.95), ("placeholder", 0.95)):
        assert not [photo for photo in photos if photo.quality[name] > limit], name
    assert not [photo for photo in photos if photo.quality["watermark"] > 0.95]


def test_histogram_scores_of_many_pictures_are_those_of_each_by_the_plain_formulas(real_data: Path) -> None:
    drawing = Image.new("L", (90, 70), 240)
    ImageDraw.Draw(drawing).text((20, 30), "no image", fill=30)
    greys = [Image.new("L", (9, 9)), drawing, *(Image.open(path).convert("L") for path in sorted(real_data.glob("raccoon/**/*.jpg"))[:40])]
    histograms = np.array([grey.histogram() for grey in greys], dtype=np.int64)
    for grey, *scores in zip(greys, blank(histograms), dark(histograms), placeholder(histograms), strict=True):
        values = np.asarray(grey, np.float64)
        shares = np.sort(np.bincount(np.asarray(grey).ravel() // 4, minlength=64) / values.size)
        drawn = min(max((shares[-2:].sum() - 0.6) / 0.35, 0), 1) * min(max((24 - (shares > 0.002).sum()) / 12, 0), 1)
        assert scores == pytest.approx([max(0, 1 - values.std() / 20), (values < 24).mean(), drawn], abs=1e-9)
    assert placeholder(histograms)[1] > 0.9


@pytest.mark.parametrize("radius", [0, 0.4, 0.6, 0.8, 1.2, 2, 5])
def test_blurred_is_the_level_that_a_hundredth_of_the_steps_reach(radius: float) -> None:
    grey = np.asarray(picture(4, (120, 90)).filter(ImageFilter.GaussianBlur(radius)).convert("L"))
    rows = grey[::2].astype(int)
    steps = np.sort(np.abs(2 * rows[:, 1:-1] - rows[:, :-2] - rows[:, 2:]), axis=None)
    sharp = int(steps[-math.ceil(steps.size * 0.01)])
    assert blurred(grey) == min(1.0, max(0.0, 1 - (sharp - 2) / 20))


def test_a_frame_or_a_letterbox_bar_is_no_banner() -> None:
    framed = Image.new("L", (240, 180), 255)
    framed.paste(picture(3, (220, 150)).convert("L"), (10, 10))
    framed.paste(90, (12, 160, 232, 164))  # a shadow below the picture
    assert _scores(framed)["watermark"] == 0
    boxed = Image.new("L", (240, 180), 0)
    boxed.paste(picture(3, (240, 120)).convert("L"), (0, 30))
    assert _scores(boxed)["watermark"] == 0


def _scores(image: Image.Image) -> dict[str, float]:
    verdict = inspect(encoded(image, "PNG"))
    assert isinstance(verdict, Picture)
    return verdict.quality


def _slow_file() -> bytes:
    """A small file whose decoding takes more than a second: 80 million pixels of lossless WebP."""
    return encoded(Image.fromarray(np.zeros((8000, 10000, 3), np.uint8)), "WEBP", lossless=True, method=0)


def test_a_file_that_hangs_the_decoder_costs_one_process_and_nothing_else() -> None:
    with InspectWorkers(InspectLimits(), num_workers=1, deadline_s=0.03) as workers:
        verdict = workers.inspect(_slow_file())
        assert isinstance(verdict, Refusal)
        assert verdict.reason == Reason.DECODER_TIMEOUT
    with InspectWorkers(InspectLimits(), num_workers=1, deadline_s=10) as workers:
        assert isinstance(workers.inspect(jpeg(1)), Picture)


def test_a_decoder_that_dies_is_replaced() -> None:
    with InspectWorkers(InspectLimits(), num_workers=1, deadline_s=30) as workers:
        assert isinstance(workers.inspect(jpeg(1)), Picture)
        (first,) = workers.process_ids()
        slow, verdicts = _slow_file(), []
        thread = threading.Thread(target=lambda: verdicts.append(workers.inspect(slow)))
        thread.start()
        time.sleep(0.05)
        os.kill(first, signal.SIGSEGV)
        thread.join(30)
        assert [verdict.reason for verdict in verdicts] == [Reason.DECODER_CRASH]
        assert isinstance(workers.inspect(jpeg(1)), Picture)
        (second,) = workers.process_ids()
        assert first != second


def test_of_many_files_only_the_one_that_hangs_is_refused() -> None:
    with InspectWorkers(InspectLimits(), num_workers=1, deadline_s=0.4) as workers:
        verdicts = workers.inspect_all([b"", jpeg(1), _slow_file(), b"no image", jpeg(2)])
        kinds = [verdict.reason if isinstance(verdict, Refusal) else "" for verdict in verdicts]
        assert kinds == [Reason.EMPTY, "", Reason.DECODER_TIMEOUT, Reason.NOT_AN_IMAGE, ""]
        assert verdicts[1] == inspect(jpeg(1)) and verdicts[4] == inspect(jpeg(2))
        assert workers.inspect_all([]) == []


def test_files_together_are_what_each_is_alone(real_data: Path) -> None:
    """Refused ones, animations, and one so long that it is done with before the next, in whatever batches."""
    files = [encoded(Image.linear_gradient("L").resize((300_000, 4)), "PNG")]
    for folder, step in (("odd-images", 1), ("raccoon", 3), ("face-crops", 10)):
        files += [path.read_bytes() for path in sorted((real_data / folder).rglob("*.*"))[::step] if path.stat().st_size < 1_000_000]
    alone = [inspect(data) for data in files]
    for size in (16, len(files)):
        batches = [files[begin : begin + size] for begin in range(0, len(files), size)]
        assert [answer for batch in batches for answer in inspect_all(batch, InspectLimits())] == alone
