"""manifest.json: the checksums that make a release immutable, and the check that it still is as written."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import orjson

from collect.errors import CorruptError
from collect.files import sha256_file, write_atomic

Manifest = dict[str, Any]


def _bytes(manifest: Manifest) -> bytes:
    return orjson.dumps(manifest, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE)


def _digest(manifest: Manifest) -> str:
    return hashlib.sha256(_bytes({key: value for key, value in manifest.items() if key != "sha256"})).hexdigest()


def write(folder: Path, manifest: Manifest) -> None:
    """Write manifest.json with the sha256 of every file of the folder and of the manifest itself."""
    files = {path.name: sha256_file(path) for path in sorted(folder.iterdir()) if path.name != "manifest.json"}
    complete = {**manifest, "files": files}
    write_atomic(folder / "manifest.json", _bytes({**complete, "sha256": _digest(complete)}))


def read(folder: Path) -> Manifest:
    """The manifest of a release.

    Raises:
        CorruptError: it is not as it was written.
    """
    data = (folder / "manifest.json").read_bytes()
    try:
        manifest = dict(orjson.loads(data))
    except (orjson.JSONDecodeError, TypeError, ValueError) as error:
        raise CorruptError(f"{folder / 'manifest.json'} is not JSON any more: {error}") from error
    if manifest.get("sha256") != _digest(manifest) or _bytes(manifest) != data:
        raise CorruptError(f"{folder / 'manifest.json'} is not as it was written")
    return manifest


def labels(folder: Path) -> Path:
    """The release's annotations.json, held against its checksum: nothing is built, compared or exported from changed bytes.

    Raises:
        CorruptError: it or the manifest is not as it was written.
    """
    path = folder / "annotations.json"
    try:
        whole = sha256_file(path) == read(folder)["files"][path.name]
    except (FileNotFoundError, KeyError):
        whole = False
    if not whole:
        raise CorruptError(
            f"{path} is not as it was written; restore the release from git or a backup (`boxwright verify` names all that is wrong)"
        )
    return path


def problems(folder: Path) -> list[str]:
    """What in a release's folder is not as it was written, one sentence each; empty when all is."""
    try:
        manifest = read(folder)
    except CorruptError as error:
        return [str(error)]
    found = []
    for name, digest in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            found.append(f"{path} is missing")
        elif sha256_file(path) != digest:
            found.append(f"{path} is not as it was written")
    found += [
        f"{path} does not belong to the release" for path in folder.iterdir() if path.name not in {*manifest["files"], "manifest.json"}
    ]
    return found
