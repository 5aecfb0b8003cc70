"""Public sets from a loopback server that holds small files in the makers' own layout."""

from __future__ import annotations

import gzip
import io
import json
import struct
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from annotate.journal import Journal
from annotate.public_sets import Web
from annotate.state import current
from boxwright import main
from collect import definition
from collect.ledger import Ledger
from collect.workspace import Workspace


class Handler(SimpleHTTPRequestHandler):
    """Serves files, keeps a list of what was asked for, and understands ranges, as the real hosts do."""

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers.get("Range", "")))  # type: ignore[attr-defined]
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        data = path.read_bytes()
        start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-")) if "Range" in self.headers else 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        self.wfile.write(data[start:])

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[Path, str, list[tuple[str, str]]]]:
    """(folder served, its address, what was asked for)."""
    folder = tmp_path / "web"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    server.asked = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}", server.asked  # type: ignore[attr-defined]
    server.shutdown()
    server.server_close()
    thread.join()


def picture(seed: int, suffix: str = "JPEG", size: tuple[int, int] = (64, 48)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1] // 4, size[0] // 4, 3), dtype=np.uint8)
    data = io.BytesIO()
    Image.fromarray(pixels).resize(size).save(data, suffix)
    return data.getvalue()


def put(folder: Path, name: str, data: bytes | str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)


def tar_of(files: dict[str, bytes]) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return data.getvalue()


def coco_site(folder: Path) -> None:
    licences = [{"id": 4, "name": "Attribution License", "url": "http://creativecommons.org/licenses/by/2.0/"}]
    categories = [{"id": 17, "name": "cat", "supercategory": "animal"}, {"id": 18, "name": "dog", "supercategory": "animal"}]
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as out:
        for part, numbers in (("train", (9, 25, 30)), ("val", (139, 285))):
            images = []
            for number in numbers:
                name = f"{number:012d}.jpg"
                put(folder, f"images.cocodataset.org/{part}2017/{name}", picture(number))
                facts = {"license": 4, "flickr_url": f"http://farm1.staticflickr.com/{number}.jpg"}
                images.append({"id": number, "file_name": name, "width": 64, "height": 48, **facts})
            boxes = [{"id": 100 + n, "image_id": n, "category_id": 17 + n % 2, "bbox": [4, 4, 10, 20], "area": 150.5, "iscrowd": 0,
                      "segmentation": [[4, 4, 14, 4, 14, 24, 4, 24]]} for n in numbers]  # fmt: skip
            document = {"licenses": licences, "images": images, "annotations": boxes, "categories": categories}
            out.writestr(f"annotations/instances_{part}2017.json", json.dumps(document))
    put(folder, "images.cocodataset.org/annotations/annotations_trainval2017.zip", archive.getvalue())


def bring_in(tmp_path: Path, address: str, wanted: str, *more: str) -> tuple[int, dict[str, Any], list[Any]]:
    """Import into a new dataset `set`; returns the exit code, labels by file name, and ledger records."""
    root = tmp_path / "work"
    code = main(["import", "set", wanted, "--format", "public", "--mirror", address, "--root", str(root), "--quiet", *more])
    dataset = Workspace.at(root).new_dataset("set")
    if code:
        return code, {}, []
    with Ledger(dataset.ledger) as ledger, Journal(dataset.labels) as journal:
        records, labels = list(ledger.images()), current(journal)
    return code, {r.file_name: [(b.category, b.xywh) for b in labels[r.sha256].present()] for r in records}, records


def test_coco_by_class_takes_only_these_images_and_their_licences(tmp_path, web):
    folder, address, asked = web
    coco_site(folder)
    code, labels, records = bring_in(tmp_path, address, "coco-2017:cat")
    assert code == 0
    assert labels == {f"{n:012d}.jpg": [("cat", (4.0, 4.0, 10.0, 20.0))] for n in (30,)}
    assert [(r.licence.spdx, r.split, r.source_url) for r in records] == [("CC-BY-2.0", "train", "http://farm1.staticflickr.com/30.jpg")]
    assert [entry.id for entry in definition.load(Workspace.at(tmp_path / "work").dataset("set")).classes] == [17]
    before = len(asked)
    assert bring_in(tmp_path, address, "coco-2017:cat")[0] == 0
    assert len(asked) == before  # all of it was there


def test_parts_limits_and_wrong_names(tmp_path, web, capsys):
    folder, address, _ = web
    coco_site(folder)
    assert sorted(bring_in(tmp_path, address, "coco-2017/val:dog", "--limit", "1")[1]) == ["000000000139.jpg"]
    for wanted, word in (
        ("coco-2017:catt", "did you mean 'cat'"),
        ("coco-2017/vall", "did you mean 'val'"),
        ("coco-2018", "did you mean 'coco-2017'"),
    ):
        assert bring_in(tmp_path, address, wanted)[0] == 2
        assert word in capsys.readouterr().err


def test_visualqa_names_coco_images(tmp_path, web):
    folder, address, _ = web
    coco_site(folder)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as out:
        questions = [
            {"image_id": 285, "question": "What is it?", "question_id": 285000},
            {"image_id": 9, "question": "Where?", "question_id": 9000},
        ]
        out.writestr("v2_OpenEnded_mscoco_val2014_questions.json", json.dumps({"questions": questions}))
    put(folder, "s3.amazonaws.com/cvmlp/vqa/mscoco/vqa/v2_Questions_Val_mscoco.zip", archive.getvalue())
    _, labels, records = bring_in(tmp_path, address, "visualqa/val")
    assert sorted(labels) == ["000000000009.jpg", "000000000285.jpg"]
    assert sorted(r.split for r in records) == ["train", "val"]


def test_open_images_by_class(tmp_path, web):
    folder, address, _ = web
    base = "storage.googleapis.com/openimages"
    put(folder, f"{base}/v7/oidv7-class-descriptions-boxable.csv", "LabelName,DisplayName\n/m/01yrx,Cat\n/m/0bt9lr,Dog\n")
    heading = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside\n"
    rows = [
        "00a,xclick,/m/01yrx,1,0.25,0.5,0.5,1,1,0,0,0,0",
        "00a,xclick,/m/0bt9lr,1,0,1,0,1,0,0,0,0,0",
        "00b,xclick,/m/0bt9lr,1,0,1,0,1,0,0,0,0,0",
    ]
    put(folder, f"{base}/v5/validation-annotations-bbox.csv", heading + "\n".join(rows) + "\n")
    info = "ImageID,Subset,OriginalURL,OriginalLandingURL,License,AuthorProfileURL,Author,Title,OriginalSize,OriginalMD5,Rotation\n"
    licence = "https://creativecommons.org/licenses/by/2.0/"
    put(
        folder, f"{base}/2018_04/validation/validation-images-with-rotation.csv",
        info + "".join(f"{n},validation,https://f/{n}_o.jpg,https://f/{n},{licence},https://p,Ann,A cat,1,x,0\n" for n in ("00a", "00b")),
    )  # fmt: skip
    put(folder, "open-images-dataset.s3.amazonaws.com/validation/00a.jpg", picture(1))
    _, labels, (record,) = bring_in(tmp_path, address, "open-images-v7/validation:Cat")
    assert labels == {"00a.jpg": [("Cat", (16.0, 24.0, 16.0, 24.0))]}
    assert (record.split, record.licence.spdx, record.licence.creator, record.licence.title) == ("val", "CC-BY-2.0", "Ann", "A cat")


def test_oxford_pets_are_voc(tmp_path, web):
    folder, address, _ = web
    base = "www.robots.ox.ac.uk/~vgg/data/pets/data"
    box = "<bndbox><xmin>8</xmin><ymin>9</ymin><xmax>30</xmax><ymax>40</ymax></bndbox>"
    xml = f"<annotation><filename>Abyssinian_1.jpg</filename><object><name>cat</name>{box}</object></annotation>"
    labels = {
        "annotations/xmls/Abyssinian_1.xml": xml.encode(),
        "annotations/trainval.txt": b"Abyssinian_1 1 1 1\n",
        "annotations/xmls/._x.xml": b"junk",
    }
    put(folder, f"{base}/annotations.tar.gz", tar_of(labels))
    put(folder, f"{base}/images.tar.gz", tar_of({"images/Abyssinian_1.jpg": picture(2), "images/Bombay_1.jpg": picture(3)}))
    _, read, (record,) = bring_in(tmp_path, address, "oxford-pets")
    assert read == {"Abyssinian_1.jpg": [("cat", (8.0, 9.0, 22.0, 31.0))]}
    assert (record.licence.spdx, record.split) == ("CC-BY-SA-4.0", "train")


def test_svhn_digits(tmp_path, web):
    h5py = pytest.importorskip("h5py", reason="SVHN's labels are HDF5; the extra `public` has h5py")
    folder, address, _ = web
    path = tmp_path / "digitStruct.mat"
    digits = {"1.png": [(5, 7, 10, 20, 1)], "2.png": [(3, 4, 9, 18, 10), (14, 4, 9, 18, 9)]}
    with h5py.File(path, "w") as document:
        reference = h5py.special_dtype(ref=h5py.Reference)
        names = document.create_dataset("digitStruct/name", (len(digits), 1), dtype=reference)
        boxes = document.create_dataset("digitStruct/bbox", (len(digits), 1), dtype=reference)
        for row, (name, rows) in enumerate(digits.items()):
            codes = np.array([[ord(letter)] for letter in name], dtype=np.uint16)
            names[row, 0] = document.create_dataset(f"#refs#/n{row}", data=codes).ref
            group = document.create_group(f"#refs#/b{row}")
            for place, edge in enumerate(("left", "top", "width", "height", "label")):
                if len(rows) == 1:
                    group.create_dataset(edge, data=np.array([[float(rows[0][place])]]))
                    continue
                column = group.create_dataset(edge, (len(rows), 1), dtype=reference)
                for number, values in enumerate(rows):
                    column[number, 0] = document.create_dataset(
                        f"#refs#/v{row}{place}{number}", data=np.array([[float(values[place])]])
                    ).ref
            boxes[row, 0] = group.ref
    files = {f"train/{n}": picture(k, "PNG") for k, n in enumerate(digits)} | {"train/digitStruct.mat": path.read_bytes()}
    put(folder, "ufldl.stanford.edu/housenumbers/train.tar.gz", tar_of(files))
    _, labels, records = bring_in(tmp_path, address, "svhn/train")
    assert labels == {"1.png": [("1", (4.0, 6.0, 10.0, 20.0))], "2.png": [("0", (2.0, 3.0, 9.0, 18.0)), ("9", (13.0, 3.0, 9.0, 18.0))]}
    assert {r.split for r in records} == {"train"}


def test_cifar_10_becomes_crops(tmp_path, web):
    folder, address, _ = web
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 255, (12, 3, 32, 32), dtype=np.uint8)
    records = [bytes([n % 2]) + pixels[n].tobytes() for n in range(12)]
    base = "cifar-10-batches-bin"
    files = {f"{base}/data_batch_{n + 1}.bin": b"".join(records[2 * n : 2 * n + 2]) for n in range(5)}
    files |= {f"{base}/test_batch.bin": b"".join(records[10:]), f"{base}/batches.meta.txt": b"airplane\nautomobile\n\n"}
    put(folder, "www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz", tar_of(files))
    _, _, read = bring_in(tmp_path, address, "cifar-10")
    assert sorted(r.split for r in read) == ["test"] * 2 + ["train"] * 10
    dataset = Workspace.at(tmp_path / "work").dataset("set")
    kept = {np.asarray(Image.open(dataset.image_path(r.sha256, r.extension))).transpose(2, 0, 1).tobytes() for r in read}
    assert kept == {image.tobytes() for image in pixels}


def test_mnist_becomes_crops(tmp_path, web):
    folder, address, _ = web
    images = np.random.default_rng(1).integers(0, 255, (4, 28, 28), dtype=np.uint8)
    base = "ossci-datasets.s3.amazonaws.com/mnist"
    put(folder, f"{base}/t10k-images-idx3-ubyte.gz", gzip.compress(struct.pack(">4BIII", 0, 0, 8, 3, 4, 28, 28) + images.tobytes()))
    put(folder, f"{base}/t10k-labels-idx1-ubyte.gz", gzip.compress(struct.pack(">4BI", 0, 0, 8, 1, 4) + bytes([7, 2, 1, 7])))
    _, labels, _ = bring_in(tmp_path, address, "mnist/test:7")
    assert sorted(labels.values()) == [[("7", (0.0, 0.0, 28.0, 28.0))]] * 2
    put(folder, f"{base}/train-images-idx3-ubyte.gz", b"no gzip")
    put(folder, f"{base}/train-labels-idx1-ubyte.gz", b"no gzip")
    assert bring_in(tmp_path, address, "mnist/train")[0] == 8


def test_what_cannot_be_fetched_says_so(tmp_path, web, capsys):
    _, address, _ = web
    assert bring_in(tmp_path, address, "coco-2017")[0] == 5
    assert "404" in capsys.readouterr().err
    assert bring_in(tmp_path, address, "imagenet")[0] == 5
    assert "account" in capsys.readouterr().err
    assert not (tmp_path / "work" / "datasets").exists()


def test_a_broken_download_goes_on_where_it_stopped(tmp_path, web):
    folder, address, asked = web
    data = bytes(range(256)) * 40
    put(folder, "host/file.bin", data)
    cache = tmp_path / "cache"
    put(cache, "files/host/file.bin.part", data[:1000])
    path = Web(cache, address).get("https://host/file.bin")
    assert path.read_bytes() == data
    assert asked == [("/host/file.bin", "bytes=1000-")]
    assert not list(cache.rglob("*.part"))
