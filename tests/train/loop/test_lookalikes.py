"""Pairs that look alike: what the blocks find is what a look at every pair finds; and cut photographs, end to end."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import boxwright
from annotate.journal import Journal
from annotate.review import queue
from annotate.review.lookalikes import path_of
from collect.ledger import Ledger
from collect.pipeline import Pipeline
from collect.records import Candidate
from collect.workspace import Workspace
from tests.collect.collecting import FREE, new_dataset
from train.loop import lookalikes
from train.loop.embedding import Embedder


@pytest.mark.parametrize("most", [3, 10_000])
def test_closest__as_one_by_one(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(lookalikes, "_BLOCK", 7)
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(40, 3))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[[5, 20]] = np.nan
    groups = rng.integers(0, 20, 40)
    pairs = [(float(vectors[i] @ vectors[j]), i, j) for i in range(40) for j in range(i + 1, 40) if groups[i] != groups[j]]
    wanted = sorted((entry for entry in pairs if entry[0] >= 0.8), reverse=True)[:most]
    rows, columns, cosines = lookalikes.closest(vectors, groups, 0.8, most)
    assert list(zip(rows.tolist(), columns.tolist(), strict=True)) == [(i, j) for _, i, j in wanted]
    assert cosines == pytest.approx([cosine for cosine, _, _ in wanted], abs=1e-6)
    assert len(lookalikes.closest(vectors[:0], groups[:0], 0.8, most)[0]) == 0


def cut(path: Path, share: float) -> bytes:
    """The middle of a photograph, `share` of each side, as JPEG."""
    with Image.open(path) as picture:
        width, height = picture.size
        edges = (round(width * (1 - share) / 2), round(height * (1 - share) / 2))
        part = picture.convert("RGB").crop((*edges, width - edges[0], height - edges[1]))
    buffer = io.BytesIO()
    part.save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


def test_audit_lookalikes__cut_photographs_stand_beside_their_originals(
    workspace: Workspace, real_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Photographs of raccoons, cut to 7/8 and 3/4: the collection drops some, the others are kept, paired, and wait for a person."""
    if Embedder(None).name != "mobilenet_v2":
        pytest.skip("MobileNetV2's weights cannot be had here")
    dataset, made = new_dataset(workspace)
    photos = [real_data / "raccoon" / "images" / f"raccoon-{number}.jpg" for number in (10, 100, 112, 113, 142, 145, 147, 20, 30, 40)]
    pictures = [(share, path.stem, cut(path, share)) for share in (1, 7 / 8, 3 / 4) for path in photos]
    with Ledger(dataset.ledger) as ledger:
        with Pipeline(dataset, made, ledger) as pipeline:
            for share, name, data in pictures:
                pipeline.take_bytes(data, Candidate(f"file:///{name}-{share:.3f}.jpg", "folder", "", "thing", licence=FREE))
        kept = {record.sha256: record.source_url.rpartition("/")[2].rpartition("-") for record in ledger.images()}
    assert sum(ending == "1.000.jpg" for _, _, ending in kept.values()) == len(photos)

    words = ["audit", dataset.name, "--lookalikes", "--root", str(workspace.root), "--json"]
    assert boxwright.main([*words, "--cosine", "1.5"]) == 2
    capsys.readouterr()
    assert boxwright.main(words) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["pairs"] == json.loads(path_of(dataset).read_text())
    assert len(result["pairs"]) >= 6
    assert 0.9 <= min(pair["cosine"] for pair in result["pairs"]) < 0.95, "the default asks from .90 on"
    assert all(kept[pair["image"]][0] == kept[pair["like"]][0] for pair in result["pairs"]), "each pair is one photograph"
    with Ledger(dataset.ledger) as ledger, Journal(dataset.labels) as journal:
        assert ledger.num_images() == len(kept), "nothing is removed"
        cards = queue.cards(workspace, dataset, made, journal, "ann")
    place = {card.record.sha256: number for number, card in enumerate(cards)}
    closest = result["pairs"][0]
    assert {place[closest["image"]], place[closest["like"]]} == {0, 1}
    assert cards[0].duplicates == cards[1].duplicates != ""
    assert cards[0].reason == f"looks like {cards[1].record.sha256[:12]} ({closest['cosine']:.2f})".replace("(0.", "(.")

    assert boxwright.main([*words, "--top", "1"]) == 0
    assert len(json.loads(path_of(dataset).read_text())) == 1


def test_audit_lookalikes__without_a_network_that_knows(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, _ = new_dataset(workspace)
    monkeypatch.setattr(Embedder, "name", "histogram")
    assert boxwright.main(["audit", dataset.name, "--lookalikes", "--root", str(workspace.root)]) == 5
    assert not path_of(dataset).exists()
