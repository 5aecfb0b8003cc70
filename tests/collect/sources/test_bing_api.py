"""Bing Image Search v7: the real response, and a loopback gateway with pages, errors and limits."""

from __future__ import annotations

import json
import logging

import pytest

from collect.errors import UsageError
from collect.sources.bing_api import license_filter
from collect.sources.source import Outcome, SourceSettings, open_source

PATH = "/v7.0/images/search"
KEY = "k-3f9a-secret"


def item(number):
    return {
        "contentUrl": f"http://img.example/{number}.png?sig=a%2Fb",
        "hostPageUrl": f"http://page.example/{number}",
        "thumbnailUrl": f"http://thumb.example/{number}",
        "name": f"Number {number}",
        "width": 640,
        "height": 480,
    }


def gateway(total, page_size, reply):
    def answer(asked):
        offset = int(asked.parameters["offset"])
        items = [item(number) for number in range(offset, min(offset + page_size, total))]
        return reply(document={"_type": "Images", "totalEstimatedMatches": total, "nextOffset": offset + len(items), "value": items})

    return answer


def source(site, **more):
    return open_source("bing-api", SourceSettings(base_url=site.url, key=KEY, polite=False, timeout_s=2, **more))


def test_search__real_response(site, reply, real_data):
    document = json.loads((real_data / "pages/bing/api_v7_response.json").read_text())
    site.route(PATH, reply(document=document))
    page = source(site).search("car", "automobile", None)
    assert page.outcome is Outcome.OK
    assert len(page.candidates) == 6
    first = page.candidates[0]
    assert first.url == "https://s3.caradvice.com.au/wp-content/uploads/2013/10/Ferrari-F12-Berlinetta.jpg"
    assert (first.width, first.height, first.rank, first.class_name, first.source) == (1600, 1037, 0, "automobile", "bing-api")
    assert first.page_url.startswith("https://www.caradvice.com.au/257261/")
    assert first.licence.spdx == ""
    assert page.next_cursor == "6"
    assert len(page.suggestions) == len(set(page.suggestions))
    expected = [entry["text"] for entry in document.get("queryExpansions", [])]
    assert set(expected) <= set(page.suggestions)


def test_search__pages_by_next_offset_to_the_end(site, reply):
    site.route(PATH, gateway(25, 10, reply))
    bing, cursor, urls = source(site), None, []
    while True:
        page = bing.search("cat", "cat", cursor)
        urls += [candidate.url for candidate in page.candidates]
        if page.dry:
            break
        cursor = page.next_cursor
    assert len(urls) == len(set(urls)) == 25
    assert [asked.parameters["offset"] for asked in site.asked] == ["0", "10", "20"]


def test_search__sends_the_parameters_of_the_definition(site, reply):
    site.route(PATH, gateway(5, 5, reply))
    settings = {"licenses": ("CC0-1.0", "CC-BY"), "min_side_px": 200, "options": {"freshness": "Month", "count": "50"}}
    source(site, contact="mailto:me@example.org", **settings).search("a cat & dog", "cat", None)
    asked = site.asked[0]
    assert asked.headers["ocp-apim-subscription-key"] == KEY
    assert asked.headers["user-agent"].startswith("boxwright/")
    assert "mailto:me@example.org" in asked.headers["user-agent"]
    assert asked.parameters == {
        "q": "a cat & dog", "mkt": "en-US", "count": "50", "offset": "0", "safeSearch": "Moderate", "license": "ModifyCommercially",
        "imageType": "Photo", "minWidth": "200", "minHeight": "200", "freshness": "Month",
    }  # fmt: skip


def test_search__users_licence_stands_where_bing_states_none(site, reply):
    site.route(PATH, gateway(2, 2, reply))
    page = source(site, license="CC-BY-4.0", licenses=("CC-BY",)).search("cat", "cat", None)
    assert {candidate.licence.spdx for candidate in page.candidates} == {"CC-BY-4.0"}
    assert {candidate.licence.evidence for candidate in page.candidates} == {"user"}
    assert site.asked[0].parameters["license"] == "All"


def errors(**error):
    return {"_type": "ErrorResponse", "errors": [error]}


ERROR = errors(code="InvalidRequest", subCode="ParameterInvalidValue", message="Bad.", parameter="mkt")


@pytest.mark.parametrize(
    ("status", "headers", "document", "outcome", "words", "wait_s"),
    [
        (401, {}, {"error": {"code": "401", "message": "Access denied due to invalid key"}}, "BLOCKED", "BOXWRIGHT_BING_API_KEY", 0),
        (
            403,
            {},
            errors(code="InsufficientAuthorization", message="Disabled"),
            "BLOCKED",
            "Disabled",
            0,
        ),
        (429, {"Retry-After": "17"}, {"error": {"message": "Rate limit is exceeded"}}, "BLOCKED", "Rate limit", 17),
        (400, {}, ERROR, "BLOCKED", "ParameterInvalidValue mkt", 0),
        (200, {}, ERROR, "BLOCKED", "ParameterInvalidValue mkt", 0),
        (503, {}, {}, "BLOCKED", "503", 10),
        (302, {"Location": "https://elsewhere.example/"}, {}, "BLOCKED", "redirects", 0),
        (200, {}, {"_type": "Images"}, "LAYOUT_CHANGED", "value", 0),
        (200, {}, {"_type": "Images", "value": [{"picture": "x"}]}, "LAYOUT_CHANGED", "contentUrl", 0),
        (200, {}, {"_type": "Images", "value": []}, "EMPTY", "nothing", 0),
        (200, {}, [1, 2], "LAYOUT_CHANGED", "JSON", 0),
    ],
)
def test_search__refusals_are_typed(site, reply, status, headers, document, outcome, words, wait_s):
    site.route(PATH, reply(document=document, status=status, headers=headers))
    page = source(site).search("cat", "cat", None)
    assert page.outcome == outcome
    assert words in page.detail
    assert page.retry_after_s == wait_s
    assert page.candidates == ()
    assert page.dry == (outcome == "EMPTY")
    assert len(site.asked) == 1


@pytest.mark.parametrize("body", [b"", b"  \n"])
def test_search__empty_200_is_suspected_abuse(site, reply, body):
    site.route(PATH, reply(body))
    page = source(site).search("cat", "cat", "150")
    assert page.outcome is Outcome.BLOCKED
    assert "abuse" in page.detail
    assert not page.dry


def test_search__html_instead_of_json(site, reply):
    site.route(PATH, reply("<html>maintenance</html>"))
    assert source(site).search("cat", "cat", None).outcome is Outcome.LAYOUT_CHANGED


def test_search__no_one_listens(site):
    bing = source(site)
    site.stop()
    page = bing.search("cat", "cat", None)
    assert page.outcome is Outcome.BLOCKED
    assert "no connection" in page.detail
    assert page.retry_after_s > 0
    site.__init__()  # the fixture stops it once more


def test_search__key_is_in_no_log_and_no_detail(site, reply, caplog):
    caplog.set_level(logging.DEBUG)
    site.route(PATH, reply(document={}, status=401))
    page = source(site).search("cat", "cat", None)
    assert KEY not in caplog.text + page.detail
    assert PATH in caplog.text


def test_open_source__without_a_key():
    with pytest.raises(UsageError, match="BOXWRIGHT_BING_API_KEY"):
        open_source("bing-api", SourceSettings())


def test_open_source__unknown_option():
    with pytest.raises(UsageError, match="did you mean 'freshness'"):
        open_source("bing-api", SourceSettings(key="k", options={"freshnes": "Day"}))


@pytest.mark.parametrize(
    ("allow_list", "value"),
    [
        ((), "All"),
        (("MIT", "CC0-1.0"), "All"),
        (("LicenseRef-User-Supplied", "CC-BY"), "All"),
        (("CC0-1.0", "PDM-1.0"), "Public"),
        (("CC-BY-ND",), "ShareCommercially"),
        (("CC-BY-NC-ND-4.0", "CC-BY"), "Share"),
        (("CC-BY-SA-4.0",), "ModifyCommercially"),
    ],
)
def test_license_filter(allow_list, value):
    assert license_filter(allow_list) == value
