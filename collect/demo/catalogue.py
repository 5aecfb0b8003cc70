"""What the demo's small internet offers: the scenes, their copies, broken files, and what servers do to a crawler."""

from __future__ import annotations

import io
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from collect.demo.scenes import Box, Scene
from collect.licenses import licence_url
from collect.records import Licence

HTML = b"<!doctype html><title>Moved</title><p>This picture has moved to our new site.</p>"
#: The searches of the site, by the names of the sources that ask them.
OPENVERSE, BING_API, BING_PAGE = "openverse", "bing-api", "bing-images"


@dataclass(frozen=True)
class Offer:
    """One URL path: what it answers, and what the searches say about it.

    `boxes` are those of the upright picture as served, `()` where there is none. `delay_s` is waited before the answer,
    `failures` are answered with 503 before the first success. `listed` names the searches that find it.
    """

    path: str
    body: bytes = field(repr=False)
    title: str
    tags: tuple[str, ...]
    page: str
    licence: Licence
    size_wh: tuple[int, int] = (0, 0)
    boxes: tuple[Box, ...] = ()
    listed: frozenset[str] = frozenset()
    mime: str = "image/jpeg"
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    delay_s: float = 0.0
    failures: int = 0

    @cached_property
    def words(self) -> frozenset[str]:
        """What a query is matched against."""
        return frozenset(stem(word) for word in self.tags[:2])


class Copy(NamedTuple):
    """A scene made smaller, cut and encoded again, with its boxes."""

    jpeg: bytes
    size_wh: tuple[int, int]
    boxes: tuple[Box, ...]


def stem(word: str) -> str:
    """A word without its plural `s`, in lower case.

    >>> stem("Coins"), stem("numismatics")
    ('coin', 'numismatic')
    """
    return word.lower().rstrip("s")


def offers(scenes: list[Scene]) -> list[Offer]:
    """Everything the site answers under image paths: about a quarter of it is trouble, as on the web."""
    found = [_original(scene) for scene in scenes]
    found += [_mirror(scene) for scene in scenes if scene.index % 20 == 4]
    found += [_repost(scene) for scene in scenes if scene.index % 15 == 5]
    found += _broken([scene for scene in scenes if scene.index % 14 != 6][:12])
    return found


def _original(scene: Scene) -> Offer:
    """A scene at its album. By its number it is listed here or there, unlicensed, private, opted out, slow or failing once."""
    number = scene.index
    listed = {OPENVERSE} if number % 10 < 7 else {BING_API}
    if number % 5 == 2:
        listed |= {BING_API, BING_PAGE}
    offer = Offer(
        path=f"/photos/{scene.album}/{number:04d}.jpg", body=scene.jpeg, title=scene.title, tags=scene.tags, page=f"/albums/{scene.album}",
        licence=scene.licence, size_wh=scene.size_wh, boxes=scene.boxes, listed=frozenset(listed),
    )  # fmt: skip
    if number % 17 == 9:
        return replace(offer, licence=Licence(), listed=frozenset({BING_API, BING_PAGE}))
    if number % 40 == 11:
        return replace(offer, path=f"/private/{number:04d}.jpg")
    if number % 60 == 13:
        return replace(offer, headers=(("X-Robots-Tag", "noai, noimageai"),))
    if number % 60 == 31:
        return replace(offer, failures=1)
    return replace(offer, delay_s=0.8) if number % 75 == 21 else offer


def _mirror(scene: Scene) -> Offer:
    """The same bytes under another URL."""
    return replace(_original(scene), path=f"/mirror/{scene.index:04d}.jpg", page="/mirror/", listed=frozenset({BING_API, BING_PAGE}))


def _repost(scene: Scene) -> Offer:
    copy = smaller_copy(scene, scale=0.85, margin=0.02, quality=70)
    return replace(
        _original(scene), path=f"/reposts/{scene.index:04d}.jpg", body=copy.jpeg, size_wh=copy.size_wh, boxes=copy.boxes,
        page=f"/reposts/{scene.index:04d}.html", headers=(), failures=0,
    )  # fmt: skip


def smaller_copy(scene: Scene, scale: float, margin: float, quality: int) -> Copy:
    """What people do to pictures: the share `margin` cut from each side, resized, encoded again."""
    with Image.open(io.BytesIO(scene.jpeg)) as stored:
        upright = np.asarray(stored.convert("RGB"))
        turns = 3 if stored.getexif().get(0x0112) == 6 else 0
    picture = np.rot90(upright, turns)[..., ::-1]
    height, width = picture.shape[:2]
    left, top = int(width * margin), int(height * margin)
    size_wh = int((width - 2 * left) * scale), int((height - 2 * top) * scale)
    small = cv2.resize(np.ascontiguousarray(picture[top : height - top, left : width - left]), size_wh, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, quality])
    kept = [(name, _moved(xywh, (left, top), scale, size_wh)) for name, xywh in scene.boxes]
    return Copy(bytes(data), size_wh, tuple((name, xywh) for name, xywh in kept if min(xywh[2:]) >= 2))


def _moved(
    xywh: tuple[float, float, float, float], shift: tuple[int, int], scale: float, size_wh: tuple[int, int]
) -> tuple[float, float, float, float]:
    x, y, width, height = xywh
    left, top = max((x - shift[0]) * scale, 0.0), max((y - shift[1]) * scale, 0.0)
    right, bottom = min((x + width - shift[0]) * scale, float(size_wh[0])), min((y + height - shift[1]) * scale, float(size_wh[1]))
    return left, top, max(right - left, 0.0), max(bottom - top, 0.0)


def _broken(scenes: list[Scene]) -> list[Offer]:
    """Files that are not what they say, each listed as if it were fine."""
    tiny = io.BytesIO()
    Image.new("RGB", (1, 1), "white").save(tiny, "GIF")
    bodies = (
        ("truncated", lambda scene: scene.jpeg[: len(scene.jpeg) // 2], "image/jpeg", 200),
        ("html", lambda _: HTML, "image/jpeg", 200),
        ("pixel", lambda _: tiny.getvalue(), "image/gif", 200),
        ("nothing", lambda _: b"", "image/jpeg", 200),
        ("noise", lambda scene: b"\xff\xd8\xff\xe0" + scene.jpeg[:2000:-1][:4000], "image/jpeg", 200),
        ("gone", lambda _: HTML, "text/html", 404),
    )
    found = []
    for place, scene in enumerate(scenes):
        name, body, mime, status = bodies[place % len(bodies)]
        found.append(
            replace(
                _original(scene),
                path=f"/broken/{name}-{place:02d}.jpg",
                body=body(scene),
                boxes=(),
                mime=mime,
                status=status,
                headers=(),
                failures=0,
                delay_s=0.0,
                licence=Licence("CC-BY-4.0", licence_url("CC-BY-4.0"), scene.author),
                listed=frozenset({OPENVERSE}),
                page=f"/broken/{name}-{place:02d}.html",
            )
        )
    return found
