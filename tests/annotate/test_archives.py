"""Archives that mean harm are refused before anything of theirs lies outside the temporary folder."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from annotate.archives import Limits, unpacked
from collect.errors import RefusedError, UsageError


def make_zip(path: Path, **files: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def make_tar(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for member, data in members:
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def link(name: str, target: str, kind: bytes) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def test_good_archives_are_unpacked_and_gone_afterwards(tmp_path):
    good = {"a/b.txt": b"hello", "c.txt": b""}
    for path in (
        make_zip(tmp_path / "x.zip", **good),
        make_tar(tmp_path / "x.tar.gz", *((tarfile.TarInfo(n), d) for n, d in good.items())),
    ):
        with unpacked(path) as folder:
            assert {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()} == good
        assert not folder.exists()
    with unpacked(tmp_path) as folder:
        assert folder == tmp_path


@pytest.mark.parametrize("name", ["../out.txt", "a/../../out.txt", "/etc/out.txt", "C:/out.txt", "..\\out.txt", "a\\..\\..\\out.txt"])
def test_names_that_climb_are_refused(tmp_path, name):
    inner = tmp_path / "inner"
    inner.mkdir()
    for path in (make_zip(inner / "x.zip", **{name: b"evil"}), make_tar(inner / "x.tgz", (tarfile.TarInfo(name), b"evil"))):
        with pytest.raises(RefusedError, match="leads out"), unpacked(path):
            pass
    assert not list(tmp_path.rglob("out.txt"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar_are_refused(tmp_path, kind):
    path = make_tar(tmp_path / "x.tgz", (link("a", "/etc/passwd", kind), b""))
    with pytest.raises(RefusedError, match="link or device"), unpacked(path):
        pass


def test_links_in_a_zip_are_refused(tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        entry = zipfile.ZipInfo("a")
        entry.external_attr = 0o120777 << 16
        archive.writestr(entry, "/etc/passwd")
    with pytest.raises(RefusedError, match="link or device"), unpacked(path):
        pass


def test_bombs_are_stopped_by_what_comes_out(tmp_path):
    bomb = make_zip(tmp_path / "x.zip", a=bytes(80 << 20))  # 80 kB packed
    with pytest.raises(RefusedError, match="far more"), unpacked(bomb):
        pass
    with (
        pytest.raises(RefusedError, match="more than 3 files"),
        unpacked(make_zip(tmp_path / "y.zip", **{str(n): b"" for n in range(5)}), Limits(max_files=3)),
    ):
        pass


def test_broken_archives_are_said(tmp_path):
    whole = make_zip(tmp_path / "x.zip", a=b"hello" * 1000)
    data = bytearray(whole.read_bytes())
    data[40] ^= 0xFF
    whole.write_bytes(data)
    with pytest.raises(UsageError, match="cannot be unpacked"), unpacked(whole):
        pass
    tar = make_tar(tmp_path / "x.tar.gz", (tarfile.TarInfo("a"), b"hello" * 100_000))
    tar.write_bytes(tar.read_bytes()[:-300])
    with pytest.raises(UsageError, match="cannot be unpacked"), unpacked(tar):
        pass
