"""Strong crops, borders and small turns: proposed by vectors, decided by keypoints; nothing lost at a kill."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from collect.errors import MissingServiceError, NotFoundError, UsageError
from collect.images.limits import InspectLimits
from collect.images.lookalikes import NETWORK_SIDE_PX, Keypoints, Network, same_picture
from collect.images.workers import InspectWorkers
from collect.ledger import Ledger
from collect.pipeline import DownloadSettings, Pipeline
from collect.records import Candidate, Reason, State
from collect.workspace import Dataset, Workspace
from tests.collect.collecting import FREE, encoded, find, jpeg, new_dataset, picture
from tests.collect.hostile_server import HostileServer, answer
from tests.collect.test_pipeline__killed import collect

pytest.importorskip("usearch")
onnx = pytest.importorskip("onnx")
SIZE = (320, 240)
LOCAL = DownloadSettings(("127.0.0.1",), polite=False)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network with nothing learned, the mean colour of 8×8 parts: to it all pictures are alike enough to be looked at."""
    return written(tmp_path_factory.mktemp("network") / "parts.onnx", NETWORK_SIDE_PX // 8)


def written(path: Path, pooled_px: int) -> Path:
    helper = onnx.helper
    nodes = [
        helper.make_node("AveragePool", ["image"], ["parts"], kernel_shape=[pooled_px] * 2, strides=[pooled_px] * 2),
        helper.make_node("Flatten", ["parts"], ["vector"]),
    ]
    side = NETWORK_SIDE_PX // pooled_px
    graph = helper.make_graph(
        nodes, "parts",
        [helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, [1, 3, NETWORK_SIDE_PX, NETWORK_SIDE_PX])],
        [helper.make_tensor_value_info("vector", onnx.TensorProto.FLOAT, [1, 3 * side * side])],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def part(image: Image.Image, share: float = 0.7) -> Image.Image:
    return image.crop((10, 8, 10 + round(image.width * share), 8 + round(image.height * share)))


def keypoints(image: Image.Image) -> Keypoints:
    return Keypoints.of(encoded(image, "PNG"))


@pytest.mark.parametrize(
    "change",
    [
        part,
        lambda image: ImageOps.expand(image, 40, "white"),
        lambda image: image.rotate(8, resample=Image.Resampling.BICUBIC, expand=True),
        lambda image: ImageEnhance.Contrast(ImageEnhance.Brightness(part(image)).enhance(0.7)).enhance(1.3),
        lambda image: part(image).resize((300, 300)),
    ],
    ids=["crop", "border", "turn", "crop and light", "crop and stretch"],
)
def test_same_picture__whatever_was_done_to_it(change) -> None:
    image = picture(1, SIZE)
    changed = keypoints(change(image))
    assert same_picture(changed, keypoints(image))
    assert same_picture(keypoints(image), changed)
    assert not same_picture(changed, keypoints(picture(2, SIZE)))


def test_same_picture__needs_more_than_an_overlap() -> None:
    wide = picture(3, (480, 240))
    left, right = wide.crop((0, 0, 320, 240)), wide.crop((160, 0, 480, 240))
    assert not same_picture(keypoints(left), keypoints(right))
    assert same_picture(keypoints(left), keypoints(wide))


def test_same_picture__a_changed_subject_before_the_same_ground() -> None:
    """Keypoints of the ground fit, and yet it is another photo."""
    image = picture(4, SIZE)
    other = image.copy()
    other.paste(picture(5, (140, 180)), (90, 60))
    assert not same_picture(keypoints(image), keypoints(other))


def test_same_picture__without_keypoints() -> None:
    flat = keypoints(Image.new("RGB", SIZE, "grey"))
    assert not same_picture(flat, flat)


def test_network__upright_and_of_one_length(network: Path) -> None:
    read = Network(network)
    image = picture(1, SIZE)
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = encoded(image.rotate(90, expand=True), "PNG", exif=exif)
    upright, turned = (np.frombuffer(read.vector(data), np.int8).astype(float) for data in (encoded(image, "PNG"), lying))
    assert len(upright) == read.num_numbers == 192
    assert upright @ turned / np.linalg.norm(upright) / np.linalg.norm(turned) > 0.99


def test_network__files_that_are_none(tmp_path: Path, workspace: Workspace) -> None:
    dataset, made = new_dataset(workspace, lookalike_model="none.onnx")
    with Ledger(dataset.ledger) as ledger, pytest.raises(NotFoundError, match="onnx --lookalikes"):
        Pipeline(dataset, made, ledger)
    (tmp_path / "text.onnx").write_text("no network")
    with pytest.raises(UsageError, match="OpenCV cannot run"):
        Network(tmp_path / "text.onnx")
    with pytest.raises(UsageError, match="one vector"):
        Network(a_map(tmp_path / "map.onnx"))


def a_map(path: Path) -> Path:
    """A network that answers with a map in place of a vector."""
    helper = onnx.helper
    shape = [1, 3, NETWORK_SIDE_PX, NETWORK_SIDE_PX]
    graph = helper.make_graph(
        [helper.make_node("Relu", ["image"], ["map"])], "map",
        [helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("map", onnx.TensorProto.FLOAT, shape)],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def test_usearch_that_is_missing_is_named(network: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "usearch.index", None)
    dataset, made = new_dataset(workspace, lookalike_model=str(network))
    with Ledger(dataset.ledger) as ledger, pytest.raises(MissingServiceError, match=r"boxwright\[lookalikes\]"):
        Pipeline(dataset, made, ledger)


def test_workers__what_cannot_be_decoded_is_like_nothing(network: Path) -> None:
    with InspectWorkers(InspectLimits(), 1, network=network) as workers:
        assert workers.vector(b"no image") == b""
        assert len(workers.vector(jpeg(1))) == 192
        assert workers.same(jpeg(1, SIZE), [b"", encoded(part(picture(1, SIZE)), "PNG"), b"\xff\xd8\xff", jpeg(2, SIZE)]) == [
            False, True, False, False,
        ]  # fmt: skip
        assert workers.same(b"no image", [jpeg(1, SIZE)]) == [False]


def take(pipeline: Pipeline, folder: Path, name: str, image: Image.Image):
    path = folder / name
    path.write_bytes(encoded(image, "PNG"))
    return pipeline.take_file(path, Candidate(path.as_uri(), "folder", name, "thing", licence=FREE))


def test_collect__a_strong_crop_is_a_duplicate_where_a_model_is_given(network: Path, workspace: Workspace, tmp_path: Path) -> None:
    dataset, made = new_dataset(workspace)
    with Ledger(dataset.ledger) as ledger:
        with Pipeline(dataset, made, ledger) as pipeline:  # without a model: held before there was one
            first = take(pipeline, tmp_path, "first.png", picture(1, SIZE))
            assert take(pipeline, tmp_path, "crop of first.png", part(picture(1, SIZE))).state == State.KEPT
        given = replace(made, collect=replace(made.collect, lookalike_model=str(network)))
        with Pipeline(dataset, given, ledger) as pipeline:
            second = take(pipeline, tmp_path, "second.png", picture(2, SIZE))
            assert second.state == State.KEPT
            again = take(pipeline, tmp_path, "framed.png", ImageOps.expand(picture(1, SIZE), 40, "white"))
            assert (again.state, again.reason, again.duplicate_of) == (State.DUPLICATE, Reason.NEAR, first.sha256)
            assert again.detail.startswith("keypoints fit")
        assert [path.suffix for path in dataset.folder.glob("lookalikes*")] == [".usearch"]
        next(dataset.folder.glob("*.usearch")).write_bytes(b"spoiled")  # as a power cut may leave it
        dataset.image_path(first.sha256, "png").unlink()
        with Pipeline(dataset, given, ledger) as pipeline:
            crop = take(pipeline, tmp_path, "crop of second.png", part(picture(2, SIZE)))
            assert (crop.state, crop.duplicate_of) == (State.DUPLICATE, second.sha256)


def test_collect__of_one_batch(network: Path, workspace: Workspace) -> None:
    """What came a moment ago, and is in no transaction yet, is held as well."""
    bodies = {"/whole": encoded(picture(1, SIZE), "PNG"), "/part": encoded(part(picture(1, SIZE)), "PNG"), "/other": jpeg(2, SIZE)}

    async def serve(path: str, headers: dict[str, str], writer: asyncio.StreamWriter) -> bool:
        writer.write(answer(bodies[path]))
        await writer.drain()
        return True

    dataset, made = new_dataset(workspace, lookalike_model=str(network))
    with HostileServer(serve) as server, Ledger(dataset.ledger) as ledger, Pipeline(dataset, made, ledger, LOCAL) as pipeline:
        find(ledger, map(server.url, bodies))
        pipeline.drain()
        assert ledger.counts().states == {"KEPT": 2, "DUPLICATE": 1}


def test_killed_again_and_again_every_image_has_its_vector(network: Path, workspace: Workspace) -> None:
    number = 120
    bodies = [jpeg(seed, (96, 80)) for seed in range(number)]

    async def serve(path: str, headers: dict[str, str], writer: asyncio.StreamWriter) -> bool:
        writer.write(answer(bodies[int(path[1:])]))
        await writer.drain()
        return True

    dataset, _made = new_dataset(workspace)
    with HostileServer(serve) as server, Ledger(dataset.ledger) as ledger:
        find(ledger, [server.url(f"/{n}") for n in range(number // 2)])
        assert collect(workspace.root).wait(120) == 0  # half of them before there is a model
        set_model(dataset, network)
        find(ledger, [server.url(f"/{n}") for n in range(number // 2, number)])
        source = random.Random(1)
        for _ in range(3):
            process = collect(workspace.root)
            wanted = num_vectors(ledger) + source.randrange(1, 25)
            until = time.monotonic() + 60
            while num_vectors(ledger) < wanted and process.poll() is None and time.monotonic() < until:
                time.sleep(0.005)
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert collect(workspace.root).wait(120) == 0
        kept = {image.sha256 for image in ledger.images()}
        vectors = dict(tuple(row) for row in ledger.rows("SELECT sha256, vector FROM vectors"))
        assert ledger.counts().states == {"KEPT": number}
    read = Network(network)
    assert vectors.keys() == kept
    for body in bodies[:: number // 8]:
        (image,) = (image for image in kept if dataset.image_path(image, "jpg").read_bytes() == body)
        assert vectors[image] == read.vector(body)


def set_model(dataset: Dataset, network: Path) -> None:
    text = dataset.definition.read_text()
    dataset.definition.write_text(text.replace("min_side_px = 64", f'min_side_px = 64\nlookalike_model = "{network}"'))


def num_vectors(ledger: Ledger) -> int:
    return int(ledger.rows("SELECT count(*) FROM vectors")[0][0])
