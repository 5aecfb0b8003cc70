"""What the tests of the pipeline share: pictures made here, a dataset with a definition, and what became of each URL."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from collect import definition
from collect.definition import Definition
from collect.ledger import Ledger
from collect.ledger_rows import Settlement
from collect.net.domains import registrable_domain
from collect.records import Candidate, Licence
from collect.workspace import Dataset, Workspace

FREE = Licence("CC0-1.0")


def picture(seed: int, size_wh: tuple[int, int] = (160, 120)) -> Image.Image:
    """A picture unlike every other: coloured blobs of several sizes."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize(size_wh, Image.Resampling.BICUBIC)
    fine = Image.fromarray(random.integers(0, 256, (size_wh[1] // 4, size_wh[0] // 4, 3), dtype=np.uint8)).resize(size_wh)
    return Image.blend(coarse, fine.filter(ImageFilter.SMOOTH), 0.25)


def jpeg(seed: int, size_wh: tuple[int, int] = (160, 120), **options: Any) -> bytes:
    return encoded(picture(seed, size_wh), "JPEG", quality=85, **options)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def new_dataset(workspace: Workspace, name: str = "things", **policy: Any) -> tuple[Dataset, Definition]:
    dataset = workspace.new_dataset(name)
    made = definition.create(dataset, definition.template(name, [(1, "thing")]))
    return dataset, replace(made, collect=replace(made.collect, **policy))


def find(ledger: Ledger, urls: Iterable[str], licence: Licence = FREE, source: str = "urls") -> None:
    ledger.add_finds((Candidate(url, source, "query", "thing", licence=licence), registrable_domain(url)) for url in urls)


def became(ledger: Ledger, url: str) -> Settlement:
    return ledger.settlement(url)


def words(ledger: Ledger, url: str) -> str:
    """`STATE(reason)` of a URL."""
    settlement = ledger.settlement(url)
    return f"{settlement.state}({settlement.reason})" if settlement.reason else str(settlement.state)
