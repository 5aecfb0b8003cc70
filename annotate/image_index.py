"""Finding the images that label files name: one walk over the folders, then look-ups by path, name or stem."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path, PurePosixPath

from annotate.formats.format import LabelledImage
from annotate.formats.label_files import IMAGE_SUFFIXES, files_under, image_stem, split_of


class ImageIndex:
    """All image files under some folders. Nothing outside of them is ever returned."""

    def __init__(self, roots: list[Path]) -> None:
        self._by_name: dict[str, list[Path]] = defaultdict(list)
        self._by_stem: dict[str, list[Path]] = defaultdict(list)
        self._roots: list[Path] = []
        for root in roots:
            self.add(root)

    def add(self, root: Path) -> None:
        """Walk one more folder."""
        if root in self._roots:
            return
        self._roots.append(root)
        for path in files_under(root, *IMAGE_SUFFIXES):
            if path not in self._by_name.get(path.name.lower(), ()):
                self._by_name[path.name.lower()].append(path)
                self._by_stem[path.stem.lower()].append(path)

    def has(self, image: LabelledImage) -> bool:
        """Whether any file could be that of a labelled image."""
        return image.path is not None or bool(self._candidates(image.file_name))

    def _candidates(self, file_name: str) -> list[Path]:
        name = PurePosixPath(file_name.replace("\\", "/")).name.lower()
        return self._by_name.get(name) or self._by_stem.get(name) or self._by_stem.get(image_stem(name)) or []

    def find(self, image: LabelledImage) -> tuple[Path | None, str]:
        """The file of a labelled image, or None and why: not there, or several that fit equally well.

        Several of one name are told apart by how many folders of the path they share, then by the image's split.
        """
        if image.path is not None:
            return image.path, ""
        parts = [part.lower() for part in Path(image.file_name.replace("\\", "/")).parts]
        if not parts:
            return None, "has no file name"
        there = self._candidates(image.file_name)
        if not there:
            places = ", ".join(str(root) for root in self._roots)
            return None, f"the image '{image.file_name}' was not found in {places}; --images says where the images are"
        ranked = sorted(((self._rank(path, parts[:-1], image.split), path) for path in there), reverse=True)
        best = [path for rank, path in ranked if rank == ranked[0][0]]
        if len({path.stat().st_size for path in best}) > 1 or len({path.read_bytes() for path in best[1:] and best}) > 1:
            places = ", ".join(str(path) for path in best[:3])
            return None, f"the image '{image.file_name}' lies in several places: {places}"
        return ranked[0][1], ""

    def _rank(self, path: Path, folders: list[str], split: str) -> tuple[int, bool]:
        above = [part.lower() for part in path.parent.parts]
        shared = 0
        while shared < min(len(above), len(folders)) and above[-1 - shared] == folders[-1 - shared]:
            shared += 1
        root = next((root for root in self._roots if path.is_relative_to(root)), None)
        inside = path.relative_to(root).parent if root else path.parent
        return shared, bool(split) and split_of(str(inside)) == split
