"""Archives of labels and images, unpacked so that nothing in them can leave the folder, link elsewhere or fill the disk."""

from __future__ import annotations

import lzma
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from annotate.values import climbs
from collect.errors import RefusedError, UsageError
from collect.files import storage_errors

_BLOCK = 1 << 20


@dataclass(frozen=True)
class Limits:
    """How large an archive may become. `ratio` is unpacked to packed bytes; text packs 20-fold, a bomb a thousand-fold."""

    max_bytes: int = 200 * 2**30
    max_files: int = 5_000_000
    max_ratio: float = 200.0
    free_share: float = 0.9


@contextmanager
def unpacked(path: Path, limits: Limits = Limits()) -> Iterator[Path]:
    """The folder that a zip or tar holds, gone when the block ends; a path that is no archive is given back as it is.

    Raises:
        RefusedError: a name climbs out, an entry is a link or a device, or it would grow beyond the limits.
        UsageError: the archive is broken or encrypted.
    """
    if not path.is_file() or not (zipfile.is_zipfile(path) or _is_tar(path)):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="boxwright-") as folder:
        target = Path(folder)
        try:
            unpack(path, target, limits)
        except (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, RuntimeError, NotImplementedError) as error:
            raise UsageError(f"the archive {path} cannot be unpacked: {error}; get it again, without a password") from error
        yield target


def _is_tar(path: Path) -> bool:
    return path.suffix.lower() in {".tar", ".tgz", ".gz", ".bz2", ".xz", ".tbz2", ".txz"} and tarfile.is_tarfile(path)


def unpack(path: Path, target: Path, limits: Limits) -> None:
    """Unpack an archive into a folder, see :func:`unpacked`."""
    budget = _Budget(path, target, limits)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                mode = entry.external_attr >> 16
                if mode and (mode & 0o170000) not in {0, 0o100000, 0o040000}:
                    raise RefusedError(f"{path} holds '{entry.filename}', a link or device; such archives are not unpacked")
                if not entry.is_dir():
                    with archive.open(entry) as stream:
                        budget.write(stream, entry.filename)
        return
    with tarfile.open(path) as archive_tar:
        for member in archive_tar:
            if member.isdir():
                continue
            if not member.isreg():
                raise RefusedError(f"{path} holds '{member.name}', a link or device; such archives are not unpacked")
            stream_tar = archive_tar.extractfile(member)
            if stream_tar is not None:
                budget.write(stream_tar, member.name)


class _Budget:
    """What may still be written; counts the bytes that really come out, whatever the archive's directory says."""

    def __init__(self, path: Path, target: Path, limits: Limits) -> None:
        self.path, self.target, self.limits = path, target, limits
        packed, free = path.stat().st_size, shutil.disk_usage(target).free
        self.bytes_left = int(min(limits.max_bytes, limits.free_share * free, max(packed * limits.max_ratio, 64 * _BLOCK)))
        self.files_left = limits.max_files

    def write(self, stream: IO[bytes], name: str) -> None:
        clean = name.replace("\\", "/")
        if climbs(clean) or clean.startswith("/") or ":" in clean.split("/")[0]:
            raise RefusedError(f"{self.path} holds '{name}', which leads out of the archive; it was not unpacked")
        self.files_left -= 1
        if self.files_left < 0:
            raise RefusedError(f"{self.path} holds more than {self.limits.max_files} files; unpack it yourself and import the folder")
        file = self.target / clean
        with storage_errors():
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("wb") as out:
                while block := stream.read(_BLOCK):
                    self.bytes_left -= len(block)
                    if self.bytes_left < 0:
                        raise RefusedError(f"{self.path} unpacks to far more than its size or the disk allows; it was not imported")
                    out.write(block)
