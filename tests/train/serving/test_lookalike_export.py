"""The network for `[collect] lookalike_model`: written, read by `collect`, and of use on real photographs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import boxwright
from collect.ledger import Ledger
from collect.pipeline import Pipeline
from collect.records import Candidate, Reason, State
from collect.workspace import Workspace
from tests.collect.collecting import FREE, encoded, new_dataset
from train.loop.embedding import Embedder
from train.serving import lookalike_export

pytest.importorskip("onnx")
pytest.importorskip("usearch")


@pytest.fixture
def model(workspace: Workspace) -> Path:
    if Embedder(None).name != "mobilenet_v2":
        pytest.skip("MobileNetV2's weights cannot be had here")
    path = workspace.root / "lookalikes.onnx"
    assert boxwright.main(["onnx", "--lookalikes", "--root", str(workspace.root), "--quiet"]) == 0
    assert path.is_file()
    return path


def test_onnx_lookalikes__finds_two_thirds_of_a_photograph(model: Path, workspace: Workspace, real_data: Path) -> None:
    dataset, made = new_dataset(workspace)
    photos = sorted((real_data / "raccoon" / "images").glob("*.jpg"))[:12]
    given = replace(made, collect=replace(made.collect, lookalike_model=str(model)))
    source = np.random.default_rng(0)
    with Ledger(dataset.ledger) as ledger, Pipeline(dataset, given, ledger) as pipeline:

        def take(name: str, data: bytes):
            return pipeline.take_bytes(data, Candidate(f"file:///{name}", "folder", name, "thing", licence=FREE))

        held = {path.name: take(path.name, path.read_bytes()) for path in photos}
        kept = {name: taken.sha256 for name, taken in held.items() if taken.state == State.KEPT}
        assert len(kept) >= 11  # two raccoons of the set are the same photograph
        found = 0
        for path in photos:
            with Image.open(path) as photo:
                width, height = photo.width * 2 // 3, photo.height * 2 // 3
                left, top = int(source.integers(photo.width - width)), int(source.integers(photo.height - height))
                crop = photo.convert("RGB").crop((left, top, left + width, top + height))
            taken = take(f"part of {path.name}", encoded(crop, "JPEG", quality=88))
            if taken.state == State.DUPLICATE:
                assert taken.reason == Reason.NEAR
                found += taken.duplicate_of == kept.get(path.name, taken.duplicate_of)
    assert found >= 10


def test_onnx_lookalikes__names_what_is_wrong(
    workspace: Workspace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = ["--root", str(workspace.root)]
    assert boxwright.main(["onnx", *root]) == 2
    assert "name a run" in capsys.readouterr().err
    assert boxwright.main(["onnx", "a-run", "--lookalikes", *root]) == 2
    monkeypatch.setattr(lookalike_export, "imagenet_features", lambda: None)
    assert boxwright.main(["onnx", "--lookalikes", *root]) == 5
    assert "a network of your own" in capsys.readouterr().err
    assert not (workspace.root / "lookalikes.onnx").exists()
