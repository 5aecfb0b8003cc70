"""Brave, SerpApi, iNaturalist and Open Images, each on a loopback server that speaks its format."""

from __future__ import annotations

import pytest

from collect.errors import NotFoundError, UsageError
from collect.sources.open_images import turned
from collect.sources.source import Outcome, SourceSettings, open_source


def source(name, site, **more):
    return open_source(name, SourceSettings(base_url=site.url, key="k", polite=False, timeout_s=2, **more))


# Brave


def test_brave(site, reply):
    item = {"type": "image_result", "title": "Cat", "url": "https://p.example/cat",
            "thumbnail": {"src": "https://imgs.example/t"},
            "properties": {"url": "https://p.example/cat.jpg", "width": 640, "height": 480}}  # fmt: skip
    site.route("/res/v1/images/search", reply(document={"type": "images", "results": [item, {"url": "no picture"}]}))
    page = source("brave", site).search("cat", "cat", None)
    assert page.dry
    (found,) = page.candidates
    assert (found.url, found.page_url, found.width, found.thumbnail_url) == (
        "https://p.example/cat.jpg", "https://p.example/cat", 640, "https://imgs.example/t",
    )  # fmt: skip
    asked = site.asked[0]
    assert asked.headers["x-subscription-token"] == "k"
    assert asked.parameters["count"] == "200"
    assert asked.parameters["country"] == "US"
    assert found.licence.spdx == ""


def test_brave__limit_and_change(site, reply):
    error = {"type": "ErrorResponse", "error": {"code": "RATE_LIMITED", "detail": "Request rate limit exceeded"}}
    site.route("/res/v1/images/search", reply(document=error, status=429))
    page = source("brave", site).search("cat", "cat", None)
    assert page.outcome is Outcome.BLOCKED
    assert "limit exceeded" in page.detail
    assert page.retry_after_s > 0
    site.route("/res/v1/images/search", reply(document={"pictures": []}))
    assert source("brave", site).search("cat", "cat", None).outcome is Outcome.LAYOUT_CHANGED


# SerpApi


def serp(total, reply, empty_first=False):
    state = {"empty": empty_first}

    def answer(asked):
        if state.pop("empty", False):
            return reply(document={"search_metadata": {"status": "Success"}})
        first = int(asked.parameters.get("first", 1)) - 1
        if "ijn" in asked.parameters:
            first = int(asked.parameters["ijn"]) * 10
        items = [
            {
                "position": number,
                "original": f"https://o.example/{number}",
                "thumbnail": "t",
                "link": "p",
                "title": "T",
                "original_width": 7,
            }
            for number in range(first, min(first + 10, total))
        ]
        if not items:
            return reply(document={"error": "Bing hasn't returned any results for this query."})
        return reply(document={"images_results": items, "suggested_searches": [{"name": "big cat", "link": "l"}, {"name": "big cat"}]})

    return answer


@pytest.mark.parametrize("engine", ["bing_images", "google_images"])
def test_serpapi__pages(site, reply, engine):
    site.route("/search.json", serp(25, reply))
    serpapi, cursor, found = source("serpapi", site, options={"engine": engine}), None, []
    while not (page := serpapi.search("cat", "cat", cursor)).dry:
        found += [candidate.url for candidate in page.candidates]
        cursor = page.next_cursor
        assert page.suggestions == ("big cat",)
    assert len(found) == len(set(found)) == 25
    assert {asked.parameters["engine"] for asked in site.asked} == {engine}
    assert page.outcome is Outcome.EMPTY


def test_serpapi__an_empty_answer_is_asked_for_again(site, reply):
    site.route("/search.json", serp(5, reply, empty_first=True))
    assert len(source("serpapi", site).search("cat", "cat", None).candidates) == 5
    assert len(site.asked) == 2


def test_serpapi__refused(site, reply):
    site.route("/search.json", reply(document={"error": "Invalid API key. Your API key should be here"}, status=401))
    page = source("serpapi", site).search("cat", "cat", None)
    assert page.outcome is Outcome.BLOCKED
    assert "BOXWRIGHT_SERPAPI_KEY" in page.detail
    site.route("/search.json", reply(document={"error": "Your account has run out of searches."}))
    assert "run out" in source("serpapi", site).search("cat", "cat", None).detail
    with pytest.raises(UsageError, match="google_images"):
        source("serpapi", site, options={"engine": "google_image"})


@pytest.mark.parametrize("name", ["bing-api", "brave", "serpapi", "flickr"])
def test_keyed_sources_name_their_variable(name):
    variable = f"BOXWRIGHT_{name.upper().replace('-', '_')}_KEY"
    with pytest.raises(UsageError, match=variable):
        open_source(name, SourceSettings())


# iNaturalist


def observation(number):
    return {
        "id": number,
        "uri": f"https://www.inaturalist.org/observations/{number}",
        "user": {"login": "ann", "name": "Ann A."},
        "taxon": {"name": "Procyon lotor", "preferred_common_name": "Common Raccoon", "iconic_taxon_name": "Mammalia"},
        "photos": [
            {"id": 2 * number, "license_code": "cc-by-nc", "attribution": "(c) Ann, some rights reserved (CC BY-NC)",
             "url": f"https://open.example/photos/{2 * number}/square.jpeg", "original_dimensions": {"width": 2048, "height": 1536}},
            {"id": 2 * number + 1, "license_code": None, "url": f"https://static.example/photos/{2 * number + 1}/square.jpg"},
        ],
    }  # fmt: skip


def test_inaturalist__pages_by_id(site, reply):
    def answer(asked):
        below = int(asked.parameters.get("id_below", 451))
        return reply(document={"total_results": 450, "results": [observation(n) for n in range(below - 1, max(below - 201, 0), -1)]})

    site.route("/v1/observations", answer)
    naturalist, cursor, found = source("inaturalist", site, licenses=("CC-BY-NC", "CC0-1.0")), None, []
    while True:
        page = naturalist.search("raccoon", "raccoon", cursor)
        found += page.candidates
        if page.dry:
            break
        cursor = page.next_cursor
    assert len(found) == len({candidate.url for candidate in found}) == 900
    assert [asked.parameters.get("id_below") for asked in site.asked] == [None, "251", "51"]
    assert site.asked[0].parameters["photo_license"] == "cc-by-nc,cc0"
    first, second = found[:2]
    assert first.url == "https://open.example/photos/900/original.jpeg"
    assert (first.width, first.licence.spdx, first.licence.creator) == (2048, "CC-BY-NC-4.0", "Ann A.")
    assert first.page_url == "https://www.inaturalist.org/observations/450"
    assert second.licence.spdx == ""
    assert page.suggestions == ("Common Raccoon",)


# Open Images

LISTS = {
    "v5/class-descriptions-boxable.csv": "/m/0dq75,Raccoon\n/m/01yrx,Cat\n",
    "v5/validation-annotations-bbox.csv": (
        "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside\n"
        "a1,x,/m/0dq75,1,0.1,0.5,0.2,0.4,0,0,0,0,0\n"
        "a1,x,/m/01yrx,1,0,1,0,1,0,0,0,0,0\n"
        "a1,x,/m/0dq75,1,0.6,0.9,0.5,1,0,0,0,0,0\n"
        "b2,x,/m/0dq75,1,0,0.25,0,0.5,0,0,0,0,0\n"
        "c3,x,/m/0dq75,1,0,1,0,1,0,0,1,0,0\n"
    ),
    "2018_04/validation/validation-images-with-rotation.csv": (
        "ImageID,Subset,OriginalURL,OriginalLandingURL,License,AuthorProfileURL,Author,Title,OriginalSize,OriginalMD5,Thumbnail300KURL,Rotation\n"
        'a1,validation,https://f.example/a1_o.jpg,p,https://creativecommons.org/licenses/by/2.0/,u,Ann,"One, two",9,m,t,0.0\n'
        "b2,validation,https://f.example/b2_o.jpg,p,https://creativecommons.org/licenses/by/2.0/,u,Bo,B,9,m,t,90.0\n"
        "c3,validation,https://f.example/c3_o.jpg,p,https://creativecommons.org/licenses/by/2.0/,u,Bo,C,9,m,t,\n"
        "d4,validation,https://f.example/d4_o.jpg,p,https://creativecommons.org/licenses/by/2.0/,u,Bo,D,9,m,t,nan\n"
    ),
    "v5/test-annotations-bbox.csv": "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax\n",
    "2018_04/test/test-images-with-rotation.csv": "ImageID,OriginalURL\n",
}


def check_open_images(lists):
    page = lists.search("raccoon", "animal", None)
    assert [candidate.url for candidate in page.candidates] == ["https://f.example/a1_o.jpg", "https://f.example/b2_o.jpg"]
    first, second = page.candidates
    assert [pytest.approx(box[1:]) for box in first.boxes] == [(0.1, 0.2, 0.4, 0.2), (0.6, 0.5, 0.3, 0.5)]
    assert {box[0] for box in first.boxes} == {"animal"}
    assert second.boxes == (("animal", 0.0, 0.75, 0.5, 0.25),)
    assert (first.licence.spdx, first.licence.creator, first.title) == ("CC-BY-2.0", "Ann", "One, two")
    assert page.next_cursor == "test:0"
    empty = lists.search("raccoon", "animal", "test:0")
    assert empty.outcome is Outcome.EMPTY
    assert empty.next_cursor == "train:0"
    assert not empty.dry
    unknown = lists.search("unicorn", "animal", None)
    assert unknown.dry
    assert "unicorn" in unknown.detail


def test_open_images__streams_its_lists(site, reply):
    for name, text in LISTS.items():
        site.route(f"/{name}", reply(text.replace("\n", "\r\n")))
    lists = source("open-images", site)
    check_open_images(lists)
    page = lists.search("raccoon", "animal", "train:0")
    assert page.outcome is Outcome.BLOCKED
    assert "404" in page.detail


def test_open_images__from_a_folder(tmp_path):
    for name, text in LISTS.items():
        (tmp_path / name.rpartition("/")[2]).write_text(text)
    lists = open_source("open-images", SourceSettings(base_url=str(tmp_path)))
    check_open_images(lists)
    with pytest.raises(NotFoundError, match="oidv6-train-annotations-bbox"):
        lists.search("raccoon", "animal", "train:0")


def test_open_images__other_columns(site, reply):
    for name, text in LISTS.items():
        site.route(f"/{name}", reply(text.replace("XMin", "Left")))
    page = source("open-images", site).search("raccoon", "animal", None)
    assert page.outcome is Outcome.LAYOUT_CHANGED
    assert "XMin" in page.detail


def test_turned__four_quarters_are_none():
    box = (0.1, 0.2, 0.3, 0.4)
    assert turned(box, 360) == box
    assert turned(box, 180) == pytest.approx((0.6, 0.4, 0.3, 0.4))
    assert turned(turned(box, 90), 270) == pytest.approx(box)
