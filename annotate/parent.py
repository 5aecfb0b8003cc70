"""The release before the next one: the ids and splits that were ever given, which stay."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from annotate import manifest
from annotate.coco import CocoFile, Content
from annotate.document import Draft, Ids, StableIds
from collect.workspace import Dataset

_NOTHING = Draft({"info": {}, "licenses": [], "categories": []}, [], [])


@dataclass(frozen=True)
class Parent:
    """The newest release, or none ("" as version).

    The ids of images by sha256, their splits, and the ids of boxes by box id hold those of its content and all that earlier
    releases gave: an image that comes back has its old id and split. Those that are out are kept as `retired` in manifest.json.
    """

    version: str = ""
    about: dict[str, Any] = field(default_factory=dict)
    content: Content = _NOTHING
    image_ids: dict[str, int] = field(default_factory=dict)
    split_of: dict[str, str] = field(default_factory=dict)
    annotation_ids: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, dataset: Dataset) -> Parent:
        """The newest release of a dataset.

        Raises:
            CorruptError: it is not as it was written.
        """
        names = dataset.release_names()
        if not names:
            return cls()
        folder = dataset.releases / names[-1]
        about = manifest.read(folder)
        content = CocoFile.open(manifest.labels(folder))
        retired = about.get("retired", {"images": {}, "annotations": {}})
        image_ids = {sha256: number for sha256, (number, _) in retired["images"].items()}
        split_of = {sha256: split for sha256, (_, split) in retired["images"].items()}
        for image in content.images():
            image_ids[image["sha256"]], split_of[image["sha256"]] = image["id"], image["split"]
        annotation_ids = dict(retired["annotations"])
        annotation_ids.update((annotation["box"], annotation["id"]) for annotation in content.annotations())
        return cls(names[-1], about, content, image_ids, split_of, annotation_ids)

    @property
    def following(self) -> str:
        """The version of the next release."""
        return f"v{int((self.version or 'v0')[1:]) + 1:03d}"

    def ids(self) -> Ids:
        """What gives the next release its ids."""
        following = [int(self.about.get(f"next_{kind}_id", 1)) for kind in ("image", "annotation")]
        return Ids(StableIds(self.image_ids, following[0]), StableIds(self.annotation_ids, following[1]))

    def retired(self, draft: Draft) -> dict[str, dict[str, Any]]:
        """Ids and splits that were given and that the next release does not hold, for its manifest."""
        images, boxes = {number for number, _, _ in draft.rows}, {number for number, *_ in draft.boxes}
        return {
            "images": {sha: (number, self.split_of[sha]) for sha, number in self.image_ids.items() if number not in images},
            "annotations": {box: number for box, number in self.annotation_ids.items() if number not in boxes},
        }
