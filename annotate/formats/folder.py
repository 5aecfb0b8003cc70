"""A folder per class (`cat/1.jpg`, or `train/cat/1.jpg`): each image is one object, which fills it.

That is how classification sets and crops come in: one box per image, as large as the image. The two-phase detector
trains its classifier on such. Precision: exact.
"""

from __future__ import annotations

from pathlib import Path

from annotate.formats.format import Done, LabelledBox, LabelledImage, LabelSet
from annotate.formats.label_files import IMAGE_SUFFIXES, files_under, relative, split_of


def read(path: Path) -> LabelSet:
    """All images below a folder, each with the class that its own folder names."""
    found = LabelSet()
    for file in files_under(path, *IMAGE_SUFFIXES) if path.is_dir() else []:
        name = relative(file, path)
        folders = Path(name).parts[:-1]
        if not folders or split_of(folders[-1]):
            found.complain(name, None, "lies in no folder that names a class", Done.SKIPPED)
            continue
        box = LabelledBox(folders[-1], 0.0, 0.0, 1.0, 1.0, id="whole image")
        split = split_of("/".join(folders[:-1]))
        found.images.append(LabelledImage(name, (box,), split=split, relative=True, path=file, label_file=name, id=""))
    if not found.images:
        loose = (
            "; images without labels come in by `boxwright collect NAME --source folder:PATH --license LICENCE`" if found.problems else ""
        )
        found.complain(path, None, f"holds no folder that names a class and has images in it{loose}", Done.REFUSED)
    found.add_categories_of_boxes()
    return found
