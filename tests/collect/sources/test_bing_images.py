"""Bing Images: the real result page, the fragment, and the real browser against loopback pages."""

from __future__ import annotations

import html
import json

import pytest

from collect.sources.bing_results import parse_results, parse_suggestions, verdict
from collect.sources.source import Outcome, SourceSettings, open_source


def anchor(number, css="iusc"):
    m = json.dumps(
        {"murl": f"http://img.example/{number}.webp?a=1&b=2", "purl": f"http://page.example/{number}", "turl": "t", "t": f'N "{number}"'}
    )
    href = f"/images/search?view=detailV2&expw=800&exph=600&q=cat&n={number}"
    return f'<div class="imgpt"><a class="{css}" m="{html.escape(m)}" href="{html.escape(href)}"><img src="/thumbs/{number}.jpg"></a></div>'


def fragment(total, page_size, reply):
    def answer(asked):
        first = int(asked.parameters["first"])
        return reply("".join(anchor(number) for number in range(first, min(first + page_size, total + 1))))

    return answer


def source(site, **more):
    return open_source("bing-images", SourceSettings(base_url=site.url, polite=False, timeout_s=20, **more))


def test_parse_results__real_page(real_data):
    results = parse_results((real_data / "pages/bing/search.html").read_text())
    assert len(results) == 47
    assert len({result.image_url for result in results}) == 42
    assert results[0].image_url == "https://vectorseek.com/wp-content/uploads/2023/03/Golang-Gopher-Logo-Vector.jpg"
    assert (results[0].width, results[0].height) == (1000, 1000)
    assert sum(bool(result.page_url) for result in results) == 35  # a strip of products has none


def test_parse_suggestions__real_page(real_data):
    found = parse_suggestions((real_data / "pages/bing/search.html").read_text(), "golang gopher")
    assert found[:2] == ("Golang Gopher Meme", "Golang Gopher Cute")
    assert "golang gopher" not in [text.casefold() for text in found]


def test_search__real_page_as_fragment(site, reply, real_data):
    site.route("/images/async", reply((real_data / "pages/bing/search.html").read_bytes()))
    bing = source(site)
    page = bing.search("golang gopher", "gopher", None)
    assert page.outcome is Outcome.OK
    assert len(page.candidates) == 42
    gopher = page.candidates[0]
    assert (gopher.page_url, gopher.rank) == ("https://vectorseek.com/vector_logo/golang-gopher-logo-vector/", 0)
    again = bing.search("golang gopher", "gopher", page.next_cursor)
    assert again.outcome is Outcome.EMPTY
    assert again.dry


def test_search__fragments_advance_by_the_items_seen(site, reply):
    site.route("/images/async", fragment(50, 20, reply))
    bing, cursor, urls = source(site, licenses=("CC-BY",), min_side_px=100), None, []
    while not (page := bing.search("cat", "cat", cursor)).dry:
        urls += [candidate.url for candidate in page.candidates]
        cursor = page.next_cursor
    assert len(urls) == len(set(urls)) == 50
    assert [asked.parameters["first"] for asked in site.asked] == ["1", "21", "41", "51"]
    assert site.asked[0].parameters["qft"] == "+filterui:photo-photo+filterui:license-L2_L3+filterui:imagesize-custom_100_100"
    assert urls[0] == "http://img.example/1.webp?a=1&b=2"


def test_search__renamed_class_is_still_read(site, reply, caplog):
    site.route("/images/async", reply(anchor(1, css="xyz")))
    assert len(source(site).search("cat", "cat", None).candidates) == 1
    assert "iusc" in caplog.text


def test_search__rate_limit_does_not_start_a_browser(site, reply):
    site.route("/images/async", reply(status=429, headers={"Retry-After": "9"}))
    page = source(site).search("cat", "cat", None)
    assert (page.outcome, page.retry_after_s) == (Outcome.BLOCKED, 9)
    assert site.count("/images/search") == 0


def test_search__captcha_does_not_start_a_browser(site, reply, real_data):
    site.route("/images/async", reply((real_data / "pages/ecosia/search_captcha.html").read_bytes()))
    page = source(site).search("cat", "cat", None)
    assert page.outcome is Outcome.BLOCKED
    assert "captcha" in page.detail
    assert site.count("/images/search") == 0


def test_search__a_fragment_that_says_there_is_nothing_starts_no_browser(site, reply):
    site.route("/images/async", reply("<h2>There are no results for <b>xyzzy</b></h2>"))
    page = source(site).search("xyzzy", "cat", None)
    assert page.outcome is Outcome.EMPTY
    assert page.dry
    assert site.count("/images/search") == 0


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("<h1>There are no results for <b>xyzzy</b></h1>", Outcome.EMPTY),
        ('<div id="bnp_container"><button id="bnp_btn_accept">Accept</button></div>', Outcome.CONSENT),
        ('<div class="g-recaptcha"></div>', Outcome.BLOCKED),
        ("<div class='brand-new-layout'></div>", Outcome.LAYOUT_CHANGED),
    ],
)
def test_verdict(text, outcome):
    assert verdict(text)[0] is outcome


# In the real browser

SCRIPT = """
let next = 11;
const load = n => fetch('/more?from=' + next).then(r => r.text()).then(t => {
  document.querySelector('#results').insertAdjacentHTML('beforeend', t); next += 10;
  if (next > %(button_at)d) document.querySelector('.btn_seemore').style.display = 'block'; });
let busy = false;
addEventListener('scroll', () => { if (!busy && next <= %(button_at)d) { busy = true; load().then(() => busy = false); } });
document.querySelector('.btn_seemore').addEventListener('click', e => { e.preventDefault(); load(); });
"""


def result_page(site, reply, total, button_at=1000, consent=""):
    rows = "".join(anchor(number) for number in range(1, 11))
    script = SCRIPT % {"button_at": button_at}
    body = f"<!doctype html>{consent}<div id=results>{rows}</div><div style='height:3000px'></div>"
    body += f"<a class=btn_seemore href='#' style='display:none'>See more images</a><script>{script}</script>"
    site.route("/images/search", reply(body))

    def more(asked):
        start = int(asked.parameters["from"])
        return reply("".join(anchor(number) for number in range(start, min(start + 10, total + 1))))

    site.route("/more", more)


@pytest.mark.browser
def test_browser__scrolls_presses_see_more_and_loads_no_image(site, reply):
    result_page(site, reply, total=60, button_at=35)
    bing = source(site)
    try:
        page = bing.search("cat", "cat", None)
    finally:
        bing.close()
    assert site.count("/images/async") == 1
    assert [candidate.url for candidate in page.candidates] == [f"http://img.example/{number}.webp?a=1&b=2" for number in range(1, 61)]
    assert (page.candidates[0].width, page.candidates[0].title) == (800, 'N "1"')
    assert page.dry
    assert site.count("/thumbs") == 0


@pytest.mark.browser
def test_browser__pages_and_resumes_in_another_process(site, reply):
    result_page(site, reply, total=140)
    bing = source(site)
    try:
        first = bing.search("cat", "cat", None)
    finally:
        bing.close()
    assert (len(first.candidates), first.next_cursor) == (100, "browser:100")
    again = source(site)
    try:
        second = again.search("cat", "cat", first.next_cursor)
    finally:
        again.close()
    assert [candidate.rank for candidate in second.candidates] == list(range(100, 140))
    assert second.dry


CONSENT = """<div id=bnp_container style="position:fixed;inset:0;background:#fff"><button id=bnp_btn_accept>Accept</button>
<button id=bnp_btn_reject
onclick="fetch('/rejected').then(() => document.querySelector('#bnp_container').remove())">Reject</button></div>"""


@pytest.mark.browser
def test_browser__outcomes(site, reply):
    bing = source(site)
    try:
        result_page(site, reply, total=10, consent=CONSENT)
        assert len(bing.search("with banner", "cat", None).candidates) == 10
        assert site.count("/rejected") == 1
        site.route("/images/search", reply(CONSENT.replace("onclick", "data-x")))
        assert bing.search("wall", "cat", None).outcome is Outcome.CONSENT
        site.route("/images/search", reply('<form id="captcha-form"><div class="g-recaptcha"></div></form>'))
        assert bing.search("captcha", "cat", None).outcome is Outcome.BLOCKED
        site.route("/images/search", reply("<div class=tile data-src='x'>new</div>"))
        assert bing.search("changed", "cat", None).outcome is Outcome.LAYOUT_CHANGED
        site.route("/images/search", reply("<p>There are no results for <strong>xyzzy</strong></p>"))
        page = bing.search("xyzzy", "cat", None)
        assert page.outcome is Outcome.EMPTY
        assert page.dry
    finally:
        bing.close()
