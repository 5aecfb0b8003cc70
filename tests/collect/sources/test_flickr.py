"""Flickr: the real list of photographs, and a loopback API that repeats itself beyond 4,000 results, as Flickr does."""

from __future__ import annotations

import json

import pytest

from collect.errors import UsageError
from collect.sources.source import Outcome, SourceSettings, open_source

PATH = "/services/rest/"
LICENSES = [
    {"id": 0, "name": "All Rights Reserved", "url": ""},
    {"id": 1, "name": "Attribution-NonCommercial-ShareAlike License", "url": "https://creativecommons.org/licenses/by-nc-sa/2.0/"},
    {"id": 4, "name": "Attribution License", "url": "https://creativecommons.org/licenses/by/2.0/"},
    {"id": 7, "name": "No known copyright restrictions", "url": "https://www.flickr.com/commons/usage/"},
    {"id": 9, "name": "Public Domain Dedication (CC0)", "url": "https://creativecommons.org/publicdomain/zero/1.0/"},
]
KEY = "0123-secret"


def source(site, **more):
    return open_source("flickr", SourceSettings(base_url=site.url, key=KEY, polite=False, timeout_s=5, **more))


def api(reply, photos):
    def answer(asked):
        if asked.parameters["method"] == "flickr.photos.licenses.getInfo":
            return reply(document={"licenses": {"license": LICENSES}, "stat": "ok"})
        return photos(asked)

    return answer


def test_search__real_list(site, reply, real_data):
    document = json.loads((real_data / "pages/flickr/flickr_example_pretty.json").read_text()) | {"stat": "ok"}
    site.route(PATH, api(reply, lambda asked: reply(document=document)))
    page = source(site, licenses=("CC-BY", "CC0-1.0")).search("church", "church", None)
    assert page.outcome is Outcome.OK
    assert len(page.candidates) == 30
    assert page.dry
    first = page.candidates[0]
    assert first.url == "https://live.staticflickr.com/65535/49514337848_bbdbb5f761_b.jpg"
    assert (first.width, first.height) == (660, 1024)
    assert first.page_url == "https://www.flickr.com/photos/7478087@N06/49514337848"
    assert (first.licence.spdx, first.licence.creator) == ("CC-BY-NC-SA-2.0", "markustrois")
    search = next(asked.parameters for asked in site.asked if asked.parameters["method"] == "flickr.photos.search")
    assert search["license"] == "4,9"


@pytest.mark.parametrize(
    ("file", "ending"),
    [("large", "_b.jpg"), ("med", ".jpg"), ("small", "_m.jpg")],
)
def test_search__real_sizes(site, reply, real_data, file, ending):
    photo = json.loads((real_data / f"pages/flickr/image_data_with_{file}_url_available.json").read_text())
    missing = json.loads((real_data / "pages/flickr/image_data_no_image_url.json").read_text())
    photos = {"page": 1, "pages": 1, "perpage": 500, "total": "2", "photo": [missing, photo]}
    site.route(PATH, api(reply, lambda asked: reply(document={"photos": photos, "stat": "ok"})))
    page = source(site).search("q", "c", None)
    assert len(page.candidates) == 1
    assert page.candidates[0].url.endswith(ending)


def test_search__more_than_four_thousand_are_split_by_date(site, reply):
    total = 9000
    uploaded = [1_100_000_000 + 37_000 * number for number in range(total)]

    def photos(asked):
        first, last = int(asked.parameters["min_upload_date"]), int(asked.parameters["max_upload_date"])
        number, size = int(asked.parameters["page"]), int(asked.parameters["per_page"])
        inside = [place for place, moment in enumerate(uploaded) if first <= moment <= last]
        start = (number - 1) * size
        shown = inside[start : start + size] if start < 4000 else inside[:size]  # beyond 4,000 Flickr repeats
        photo = [{"id": str(place), "owner": "o", "license": "4", "url_o": f"https://f.example/{place}.jpg"} for place in shown]
        return reply(
            document={"stat": "ok", "photos": {"page": number, "pages": -(-len(inside) // size), "total": len(inside), "photo": photo}}
        )

    site.route(PATH, api(reply, photos))
    cursor, found = None, []
    while True:
        flickr = source(site)  # a new process each time: the cursor says all
        page = flickr.search("cat", "cat", cursor)
        found += [candidate.url for candidate in page.candidates]
        flickr.close()
        if page.next_cursor is None:
            break
        cursor = page.next_cursor
    assert len(found) == len(set(found)) == total


@pytest.mark.parametrize(
    ("code", "message", "words", "wait_s"),
    [
        (100, "Invalid API Key (Key has invalid format)", "BOXWRIGHT_FLICKR_KEY", 0),
        (105, "Service currently unavailable", "unavailable", 60),
    ],
)
def test_search__errors(site, reply, code, message, words, wait_s):
    site.route(PATH, reply(document={"stat": "fail", "code": code, "message": message}))
    page = source(site).search("q", "c", None)
    assert page.outcome is Outcome.BLOCKED
    assert words in page.detail
    assert page.retry_after_s == wait_s
    assert KEY not in page.detail


def test_search__key_in_the_url_stays_out_of_messages(site, caplog):
    caplog.set_level("DEBUG")
    flickr = source(site)
    site.stop()
    page = flickr.search("q", "c", None)
    assert page.outcome is Outcome.BLOCKED
    assert KEY not in page.detail + caplog.text
    site.__init__()


def test_open_source__without_a_key():
    with pytest.raises(UsageError, match="BOXWRIGHT_FLICKR_KEY"):
        open_source("flickr", SourceSettings())
