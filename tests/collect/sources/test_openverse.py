"""Openverse on a loopback server that keeps its rules."""

from __future__ import annotations

from urllib.parse import parse_qs

import pytest

from collect.errors import UsageError
from collect.sources.source import Outcome, SourceSettings, open_source

PATH = "/v1/images/"


def result(number):
    return {
        "id": f"{number}",
        "url": f"https://live.staticflickr.com/1/{number}_o.jpg",
        "thumbnail": f"https://api.example/thumbs/{number}",
        "foreign_landing_url": f"https://www.flickr.com/photos/ann/{number}",
        "title": f"Raccoon {number}",
        "creator": "Ann",
        "creator_url": "https://www.flickr.com/photos/ann",
        "license": "by-sa" if number % 2 else "cc0",
        "license_version": "2.0" if number % 2 else "1.0",
        "license_url": "https://creativecommons.org/licenses/by-sa/2.0/" if number % 2 else "https://creativecommons.org/publicdomain/zero/1.0/",
        "attribution": f'"Raccoon {number}" by Ann is licensed under …',
        "width": 1024,
        "height": 768,
        "tags": [{"name": "raccoon"}, {"name": "night"}, {"name": f"only{number}"}],
    }  # fmt: skip


def server(total, reply):
    def answer(asked):
        size, number = int(asked.parameters["page_size"]), int(asked.parameters["page"])
        if size > 20 and "authorization" not in asked.headers:
            return reply(document={"detail": "page_size must be at most 20 for anonymous requests"}, status=401)
        pages = -(-min(total, 240) // size)
        if number > max(pages, 1):
            return reply(document={"detail": "Invalid page."}, status=404)
        numbers = range((number - 1) * size, min(number * size, total, 240))
        found = [result(one) for one in numbers]
        return reply(document={"result_count": total, "page_count": pages, "page_size": size, "page": number, "results": found})

    return answer


def source(site, **more):
    return open_source("openverse", SourceSettings(base_url=site.url, polite=False, timeout_s=2, **more))


def collect_all(openverse, query="raccoon"):
    cursor, found = None, []
    while True:
        page = openverse.search(query, "raccoon", cursor)
        found += page.candidates
        if page.dry:
            return found
        cursor = page.next_cursor


def test_search__anonymous_pages_of_twenty_to_the_end(site, reply):
    site.route(PATH, server(1000, reply))
    found = collect_all(source(site, licenses=("CC0-1.0", "CC-BY-SA")))
    assert len({candidate.url for candidate in found}) == len(found) == 240
    assert len(site.asked) == 12
    assert {asked.parameters["license"] for asked in site.asked} == {"by-sa,cc0"}
    assert [candidate.rank for candidate in found] == list(range(240))


def test_search__licence_and_credit_of_each_result(site, reply):
    site.route(PATH, server(2, reply))
    page = source(site).search("raccoon", "raccoon", None)
    zero, share = (candidate.licence for candidate in page.candidates)
    assert (zero.spdx, share.spdx) == ("CC0-1.0", "CC-BY-SA-2.0")
    assert (share.creator, share.creator_url) == ("Ann", "https://www.flickr.com/photos/ann")
    assert share.url == "https://creativecommons.org/licenses/by-sa/2.0/"
    assert share.evidence == page.candidates[1].page_url == "https://www.flickr.com/photos/ann/1"
    assert share.attribution.startswith('"Raccoon 1" by Ann')
    assert share.checked_at
    assert "license" not in site.asked[0].parameters


def test_search__suggests_the_tags_that_many_share(site, reply):
    site.route(PATH, server(20, reply))
    assert source(site).search("raccoon", "raccoon", None).suggestions == ("raccoon night",)


def test_search__with_a_key(site, reply):
    def token(asked):
        form = parse_qs(asked.body.decode())
        assert form == {"grant_type": ["client_credentials"], "client_id": ["me"], "client_secret": ["s3cret"]}
        return reply(document={"access_token": "tok", "expires_in": 36000, "token_type": "Bearer"})

    site.route("/v1/auth_tokens/token/", token)
    site.route(PATH, server(1000, reply))
    assert len(collect_all(source(site, key="me:s3cret"))) == 240
    assert site.count("/v1/auth_tokens/") == 1
    assert site.asked[1].headers["authorization"] == "Bearer tok"


def test_search__refused_key(site, reply):
    site.route("/v1/auth_tokens/token/", reply(document={"error": "invalid_client"}, status=401))
    page = source(site, key="me:wrong").search("q", "c", None)
    assert page.outcome is Outcome.BLOCKED
    assert "BOXWRIGHT_OPENVERSE_KEY" in page.detail
    assert "wrong" not in page.detail


def test_search__rate_limit(site, reply):
    site.route(PATH, reply(document={"detail": "Request was throttled."}, status=429, headers={"Retry-After": "3600"}))
    page = source(site).search("q", "c", None)
    assert (page.outcome, page.retry_after_s) == (Outcome.BLOCKED, 3600)
    assert "throttled" in page.detail


def test_search__nothing(site, reply):
    site.route(PATH, server(0, reply))
    page = source(site).search("q", "c", None)
    assert page.outcome is Outcome.EMPTY
    assert page.dry


def test_open_source__half_a_key():
    with pytest.raises(UsageError, match="CLIENT_ID:CLIENT_SECRET"):
        open_source("openverse", SourceSettings(key="only-one-part"))
