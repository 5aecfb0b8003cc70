"""SVHN's `digitStruct.mat` (ufldl.stanford.edu/housenumbers), full numbers: a box for each digit, beside the PNG files.

MATLAB 7.3 files are HDF5, so `h5py` reads them: `name` is a reference to the characters of a file name, `bbox` one to a group of
`left`, `top`, `width`, `height`, `label`, each a number where there is one digit and references to numbers else. Label 10 is the
digit 0. Pixels count from 1, as MATLAB's do: x = left - 1. Precision: exact.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from annotate.formats.format import Done, LabelledBox, LabelledImage, LabelSet
from annotate.formats.label_files import files_under, relative, split_of
from annotate.values import climbs
from collect.errors import MissingServiceError

_EDGES = ("left", "top", "width", "height", "label")


def read(path: Path) -> LabelSet:
    """All `digitStruct.mat` files under a folder; the split is the folder's name (`extra` counts as `train`).

    Raises:
        MissingServiceError: h5py is not installed.
    """
    try:
        import h5py  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError as error:
        raise MissingServiceError("SVHN's labels are HDF5; `pip install h5py` (or the extra `public`), then run this again") from error
    found = LabelSet()
    files = files_under(path, ".mat")
    for file in files:
        name = relative(file, path)
        try:
            with h5py.File(file, "r") as document:
                _add(found, document, file, name)
        except (OSError, KeyError, ValueError) as error:
            found.complain(name, None, f"is no digitStruct.mat: {error}", Done.REFUSED)
    if not files:
        found.complain(path, None, "holds no digitStruct.mat", Done.REFUSED)
    found.add_categories_of_boxes()
    return found


def _add(found: LabelSet, document: Any, file: Path, label_file: str) -> None:
    split = split_of(file.parent.name) or "train"
    names, boxes = document["digitStruct/name"], document["digitStruct/bbox"]
    for row in range(len(names)):
        name = "".join(chr(int(code)) for code in document[names[row][0]][()].ravel())
        if not name or climbs(name):
            found.complain(label_file, f"row {row + 1}", f"the file name '{name}' is empty or climbs out of its folder", Done.REFUSED)
            continue
        columns = {edge: _numbers(document, document[boxes[row][0]][edge]) for edge in _EDGES}
        digits = []
        for number, (left, top, width, height, label) in enumerate(zip(*columns.values(), strict=True), 1):
            digits.append(LabelledBox(str(int(label) % 10), left - 1, top - 1, width, height, id=f"digit {number}"))
        image = LabelledImage(f"{file.parent.name}/{name}", tuple(digits), split=split, label_file=label_file, id=name)
        found.images.append(image)


def _numbers(document: Any, column: Any) -> list[float]:
    values = column[()].ravel()
    if len(values) == 1 and column.dtype.kind != "O":
        return [float(values[0])]
    return [float(document[reference][()].ravel()[0]) for reference in values]
