"""Arrivals settled together: nothing may depend on which of them came in one batch."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from PIL import Image, ImageOps

from collect.admission import Admission, Arrival, RetryPolicy
from collect.images.inspect import inspect
from collect.images.limits import Refusal
from collect.ledger import Ledger
from collect.net.fetch import Lost
from collect.records import Picture, Reason, State
from collect.workspace import Workspace
from tests.collect.collecting import encoded, find, jpeg, new_dataset, picture

Row = tuple[State, Reason, str, str, bytes]


@cache
def looked_at() -> list[tuple[bytes, Picture | Refusal]]:
    """Forty pictures, of some a crop, a mirror image, a smaller copy, the same bytes again; blank ones, and what is no picture."""
    found = []
    for seed in range(40):
        whole = picture(seed, (320, 240))
        found.append(jpeg(seed, (320, 240)))
        copies = [whole.crop((16, 12, 304, 228)), ImageOps.mirror(whole), whole.resize((160, 120))][: seed % 4]
        found += [encoded(copy, "JPEG", quality=90) for copy in copies]
    found += [found[0], found[7], found[7], encoded(Image.new("RGB", (90, 90), "white"), "PNG"), b"<html>", b""]
    random.Random(0).shuffle(found)
    return [(data, inspect(data)) for data in found]


def settled(place: Path, size: int) -> list[Row]:
    files = looked_at()
    dataset, definition = new_dataset(Workspace.at(place), min_side_px=1, max_per_author=0, max_per_domain=30)
    with Ledger(dataset.ledger) as ledger:
        find(ledger, [f"http://{number % 3}.example.org/{number}" for number in range(len(files))])
        admission = Admission(dataset, definition, ledger, RetryPolicy())
        leases = sorted(ledger.lease(len(files)), key=lambda lease: lease.url_id)
        arrivals = [Arrival(lease, data, verdict) for lease, (data, verdict) in zip(leases, files, strict=True)]
        arrivals[4] = replace(arrivals[4], data=b"", verdict=None, lost=Lost(State.GONE, Reason.HTTP_4XX, "404"))
        rows = [s for begin in range(0, len(files), size) for s in admission.admit(arrivals[begin : begin + size])]
        assert all(dataset.image_path(s.image.sha256, s.image.extension).is_file() for s in rows if s.image)
        return [(s.state, s.reason, s.detail, s.duplicate_of, s.windows) for s in rows]


@pytest.mark.parametrize("size", [16, 200])
def test_what_is_settled_together_is_what_it_is_one_by_one(tmp_path: Path, size: int) -> None:
    alone = settled(tmp_path / "alone", 1)
    assert settled(tmp_path / "together", size) == alone
    kinds = Counter(f"{state}({reason})" for state, reason, *_rest in alone)
    invalid = {"INVALID(blank)", "INVALID(html)", "INVALID(empty)"}
    assert set(kinds) == {"KEPT()", "DUPLICATE(near)", "DUPLICATE(exact)", "DENIED(cap)", "GONE(http_4xx)", *invalid}
    assert kinds["DUPLICATE(near)"] > 20
