"""Wikimedia Commons: real responses in pieces, and a loopback API with continuation and maxlag."""

from __future__ import annotations

import json

import pytest

from collect.sources.source import Outcome, SourceSettings, open_source
from collect.sources.wikimedia import candidate_of, licence_of, merge

PATH = "/w/api.php"


def source(site):
    return open_source("wikimedia", SourceSettings(base_url=site.url, polite=False, timeout_s=2, contact="mailto:me@example.org"))


@pytest.fixture
def pieces(real_data):
    folder = real_data / "pages/wikimedia/continuation"
    return [json.loads((folder / f"wmc_pretty{number}.json").read_text()) for number in (1, 2, 3)]


def test_search__real_response_in_three_pieces(site, reply, pieces):
    replies = iter(pieces)
    site.route(PATH, lambda asked: reply(document=next(replies)))
    page = source(site).search("q", "c", None)
    assert page.outcome is Outcome.OK
    assert len(page.candidates) == 9
    assert len(site.asked) == 3
    assert "gucontinue" in site.asked[1].parameters
    assert json.loads(page.next_cursor) == pieces[2]["continue"]
    assert site.asked[0].parameters["maxlag"] == "5"
    assert site.asked[0].parameters["gsrsearch"] == "filetype:bitmap q"
    assert "mailto:me@example.org" in site.asked[0].headers["user-agent"]
    assert all(candidate.licence.spdx for candidate in page.candidates)


def test_merge__equals_the_merge_that_was_recorded(real_data):
    folder = real_data / "pages/wikimedia/continuation"
    left, right, merged = (json.loads((folder / f"page_44672212_{side}.json").read_text()) for side in ("left", "right", "merged"))
    pages = {}
    for half in (right, left):
        merge(pages, {"query": {"pages": {"44672212": half}}})
    assert pages["44672212"]["imageinfo"] == merged["imageinfo"]


def test_search__real_batches_name_their_licences(site, reply, real_data):
    document = json.loads((real_data / "pages/wikimedia/continuation/wmc_pretty_nocontinue.json").read_text())
    site.route(PATH, reply(document=document))
    page = source(site).search("q", "c", None)
    assert page.dry
    assert len(page.candidates) == 28
    spdx = {candidate.licence.spdx for candidate in page.candidates}
    assert "" not in spdx
    assert "CC-BY-SA-3.0-DE" in spdx or "CC-BY-SA-4.0" in spdx
    assert all("<" not in candidate.licence.creator + candidate.licence.attribution + candidate.title for candidate in page.candidates)
    assert all(
        candidate.width and candidate.page_url.startswith("https://commons.wikimedia.org/wiki/File:") for candidate in page.candidates
    )


@pytest.mark.parametrize(
    ("file", "creator", "link"),
    [
        ("div", "Jona Lendering", ""),
        ("internal_link", "NotaRealUser", "https://commons.wikimedia.org/w/index.php?title=User:NotaRealUser&action=edit&redlink=1"),
        ("link", "link text", "https://test.com/linkspot"),
        ("partial_link", "Jeff & Brian from Eastbourne", "https://www.flickr.com/people/16707908@N07"),
        ("string", "Artist Name", ""),
    ],
)
def test_licence_of__real_artists_are_html(real_data, file, creator, link):
    info = json.loads((real_data / f"pages/wikimedia/image_info_artist_{file}.json").read_text())
    meta = {key: entry["value"] for key, entry in info["extmetadata"].items()}
    licence = licence_of(meta, "T", "uploader", "page")
    assert (licence.creator, licence.creator_url) == (creator, link)


@pytest.mark.parametrize(
    "file", ["image_data_missing_image_url", "image_data_missing_imageinfo", "audio_filedata_ogg", "audio_filedata_wav"]
)
def test_candidate_of__real_pages_that_are_no_image(real_data, file):
    page = json.loads((real_data / f"pages/wikimedia/{file}.json").read_text())
    info = page.get("imageinfo")
    if isinstance(info, list) and info and file.startswith("audio"):
        info[0].setdefault("mime", "audio/ogg")
    assert candidate_of(page, "wikimedia", "q", "c", 0) is None


def test_candidate_of__real_page_without_a_licence_url(real_data):
    info = json.loads((real_data / "pages/wikimedia/image_info_missing_license_url.json").read_text())
    candidate = candidate_of({"title": "File:X.jpg", "imageinfo": [info]}, "wikimedia", "q", "c", 0)
    assert candidate is not None
    assert candidate.licence.creator


def commons(total, page_size, reply):
    """A wiki in format 2 that gives licences in a second piece, as the real one does for large batches."""

    def answer(asked):
        start = int(asked.parameters.get("gsroffset", 0))
        numbers = range(start, min(start + page_size, total))
        second = "iistart" in asked.parameters
        pages = [{"pageid": number + 1, "ns": 6, "title": f"File:{number}.jpg", "index": number + 1} for number in reversed(numbers)]
        for page in pages:
            if second or page["pageid"] % 2:
                page["imageinfo"] = [image_info(page["pageid"])]
        document = {"query": {"pages": pages}}
        if not second:
            document["continue"] = {"iistart": "x", "gsroffset": start, "continue": "||"}
        else:
            document["batchcomplete"] = True
            if start + page_size < total:
                document["continue"] = {"gsroffset": start + page_size, "continue": "gsroffset||"}
        return reply(document=document)

    return answer


def image_info(number):
    meta = {"LicenseShortName": {"value": "CC BY 4.0"}, "LicenseUrl": {"value": "https://creativecommons.org/licenses/by/4.0"}}
    meta |= {"Artist": {"value": "<b>Bo</b>"}, "Restrictions": {"value": "personality"}}
    return {
        "url": f"https://upload.example/{number}.jpg", "descriptionurl": f"https://commons.example/{number}", "mime": "image/jpeg",
        "sha1": f"{number:040x}", "width": 10, "height": 20, "extmetadata": meta,
    }  # fmt: skip


def test_search__pages_with_second_pieces(site, reply):
    site.route(PATH, commons(25, 10, reply))
    wikimedia, cursor, found = source(site), None, []
    while True:
        page = wikimedia.search("cat", "cat", cursor)
        found += page.candidates
        if page.dry:
            break
        cursor = page.next_cursor
    assert [candidate.sha1 for candidate in found] == [f"{number:040x}" for number in range(1, 26)]
    assert {candidate.licence.spdx for candidate in found} == {"CC-BY-4.0"}
    assert found[0].tags == ("restriction:personality",)
    assert len(site.asked) == 6


def test_search__asks_for_the_size_that_is_wanted(site, reply):
    site.route(PATH, commons(1, 10, reply))
    open_source("wikimedia", SourceSettings(base_url=site.url, polite=False, min_side_px=200)).search("cat", "cat", None)
    assert site.asked[0].parameters["gsrsearch"] == "filetype:bitmap filew:>199 fileh:>199 cat"


def test_search__maxlag(site, reply):
    document = {"error": {"code": "maxlag", "info": "Waiting for db1: 7 seconds lagged", "lag": 7}}
    site.route(PATH, reply(document=document, headers={"Retry-After": "5"}))
    page = source(site).search("q", "c", None)
    assert (page.outcome, page.retry_after_s) == (Outcome.BLOCKED, 5)
    assert "lagged" in page.detail


def test_search__nothing(site, reply):
    site.route(PATH, reply(document={"batchcomplete": True}))
    page = source(site).search("q", "c", None)
    assert page.outcome is Outcome.EMPTY
    assert page.dry


def test_search__files_without_imageinfo(site, reply):
    site.route(PATH, reply(document={"batchcomplete": True, "query": {"pages": [{"pageid": 1, "title": "File:1.jpg"}]}}))
    assert source(site).search("q", "c", None).outcome is Outcome.LAYOUT_CHANGED
