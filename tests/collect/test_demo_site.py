"""The demo's scenes and its site: known boxes, real HTTP, the providers' formats."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterator
from html import unescape

import cv2
import numpy as np
import pytest
import requests
from PIL import Image, ImageOps

from collect.demo.catalogue import smaller_copy
from collect.demo.material import CLASSES, GROUNDS, clutter, things
from collect.demo.scenes import Scene, make_scene, make_scenes
from collect.demo.site import Site


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return make_scenes(96, seed=3)


@pytest.fixture(scope="module")
def site(scenes: list[Scene]) -> Iterator[Site]:
    with Site(scenes=scenes) as running:
        yield running


def get(site: Site, path: str, **options: object) -> requests.Response:
    with requests.Session() as session:
        return session.get(site.base_url + path, timeout=20, **options)  # type: ignore[arg-type]


def test_material__every_class_and_the_clutter_has_cutouts() -> None:
    assert [len(things(name)) for name in CLASSES] == [24, 1, 1]
    for cutout in (*things("coin"), *things("cup"), *things("motorcycle"), *clutter()):
        assert cutout.bgr.shape[:2] == cutout.alpha.shape
        assert cutout.alpha.max() > 0.99
        assert 0.2 < cutout.alpha.mean() < 1
        assert len(np.unique(cutout.alpha)) > 10  # soft edges


def test_scenes__deterministic_distinct_and_seeded(scenes: list[Scene]) -> None:
    assert make_scene(5, seed=3).jpeg == scenes[5].jpeg
    assert make_scene(5, seed=4).jpeg != scenes[5].jpeg
    assert len({scene.sha256 for scene in scenes}) == len(scenes)


def test_scenes__boxes_lie_inside_the_upright_picture(scenes: list[Scene]) -> None:
    seen = set()
    for scene in scenes:
        with Image.open(io.BytesIO(scene.jpeg)) as picture:
            assert ImageOps.exif_transpose(picture).size == scene.size_wh
        for name, (x, y, width, height) in scene.boxes:
            seen.add(name)
            assert min(width, height) >= 4
            assert x >= 0 and y >= 0 and x + width <= scene.size_wh[0] and y + height <= scene.size_wh[1]
    assert seen == set(CLASSES)
    assert any(len(scene.boxes) >= 4 for scene in scenes)
    assert any(not scene.boxes for scene in scenes)


def test_scenes__an_album_shows_one_background_by_one_author(scenes: list[Scene]) -> None:
    assert len({scene.album for scene in scenes}) == len(GROUNDS)
    assert all((scene.album, scene.author) in {(entry.album, entry.author) for entry in GROUNDS} for scene in scenes)


def test_smaller_copy__boxes_follow_the_pixels(scenes: list[Scene]) -> None:
    """The content of a box in the copy is the content of that box in the scene: correlated, as shifted boxes are not."""
    sideways = scenes[17]  # stored on its side
    for scene in (sideways, scenes[0]):
        copy = smaller_copy(scene, scale=0.8, margin=0.04, quality=90)
        original = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(scene.jpeg))).convert("L"))
        small = cv2.imdecode(np.frombuffer(copy.jpeg, np.uint8), cv2.IMREAD_GRAYSCALE)
        inner = [box for box in scene.boxes if box[1][0] > 30 and box[1][1] > 30]
        assert inner
        name, (x, y, width, height) = inner[0]
        twin = next(xywh for other, xywh in copy.boxes if other == name and abs(xywh[2] - width * 0.8) < 0.01)
        a = cv2.resize(original[int(y) : int(y + height), int(x) : int(x + width)], (32, 32)).ravel()
        b = cv2.resize(small[int(twin[1]) : int(twin[1] + twin[3]), int(twin[0]) : int(twin[0] + twin[2])], (32, 32)).ravel()
        assert np.corrcoef(a, b)[0, 1] > 0.9


def test_site__truth_by_url_and_by_sha256(site: Site) -> None:
    offer = next(offer for offer in site.offers.values() if len(offer.boxes) > 2)
    body = get(site, offer.path).content
    assert site.truth(hashlib.sha256(body).hexdigest()) == site.truth(site.base_url + offer.path) == offer.boxes


def test_site__bing_api_wants_a_key_and_pages(site: Site) -> None:
    assert get(site, "/v7.0/images/search?q=coin").json()["_type"] == "ErrorResponse"
    headers = {"Ocp-Apim-Subscription-Key": "any"}
    seen, offset = [], 0
    while True:
        page = get(site, f"/v7.0/images/search?q=coin&count=5&offset={offset}&license=ModifyCommercially", headers=headers).json()
        seen += [item["contentUrl"] for item in page["value"]]
        if page["nextOffset"] == offset:
            break
        offset = page["nextOffset"]
    assert len(seen) == len(set(seen)) == page["totalEstimatedMatches"] > 5
    assert {entry["text"] for entry in page["queryExpansions"]}
    stated = [item.get("creativeCommons", "") for item in get(site, "/v7.0/images/search?q=cup&count=150", headers=headers).json()["value"]]
    assert any(stated) and not all(stated)


def test_site__openverse_states_licences_and_limits_pages(site: Site) -> None:
    assert get(site, "/v1/images/?q=cup&page_size=50").status_code == 401
    first = get(site, "/v1/images/?q=coin&page_size=10").json()
    assert len(first["results"]) == 10 < first["result_count"] <= 240
    assert all(item["license"] and item["license_url"] and item["attribution"] for item in first["results"])
    item = first["results"][3]
    assert get(site, f"/v1/images/{item['id']}/").json() == item
    only = get(site, "/v1/images/?q=cup&license=cc0,pdm").json()["results"]
    assert only and {item["license"] for item in only} <= {"cc0", "pdm"}


def test_site__bing_page_and_fragment_hold_json_in_iusc(site: Site) -> None:
    page, rest = get(site, "/images/search?q=coin").text, get(site, "/images/async?q=coin&first=1&count=3").text
    for text in (page, rest):
        facts = [json.loads(unescape(found)) for found in re.findall(r'class="iusc"[^>]* m="([^"]*)"', text)]
        assert facts and all(entry["murl"].startswith(site.base_url) and entry["purl"] and entry["turl"] for entry in facts)
    assert len(facts) == 3
    assert get(site, "/images/async?q=coin&first=9999").text == ""
    assert "bnp_btn_reject" in page


def test_site__trouble_is_what_it_says(site: Site) -> None:
    failing = next(offer for offer in site.offers.values() if offer.failures)
    assert [get(site, failing.path).status_code for _ in range(2)] == [503, 200]
    assert "/private/" in get(site, "/robots.txt").text
    assert any(path.startswith("/private/") for path in site.offers)
    reserved = next(offer for offer in site.offers.values() if offer.headers)
    assert "noai" in get(site, reserved.path).headers["X-Robots-Tag"]
    mirrored = next(path for path in site.offers if path.startswith("/mirror/"))
    bodies = [offer.body for offer in site.offers.values()]
    assert bodies.count(site.offers[mirrored].body) >= 2
    assert {path.split("/")[2].split("-")[0] for path in site.offers if path.startswith("/broken/")} == {
        "truncated", "html", "pixel", "nothing", "noise", "gone",
    }  # fmt: skip


def test_site__what_happens_later(scenes: list[Scene]) -> None:
    with Site(scenes=scenes[:4]) as site:
        gone, reserved = list(site.offers)[:2]
        site.take_down(gone)
        site.opt_out(reserved)
        assert get(site, gone).status_code == 410
        assert get(site, reserved).headers["tdm-reservation"] == "1"
