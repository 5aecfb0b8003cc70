"""Google Images: what its real pages are taken for, and the harvester in the real browser on loopback pages."""

from __future__ import annotations

import pytest

from collect.sources.google_images import parse_results, verdict
from collect.sources.source import Outcome, SourceSettings, open_source

URL = "https://www.google.com/search?q=x"


@pytest.mark.parametrize(
    ("file", "outcome"),
    [
        ("search_captcha", Outcome.BLOCKED),
        ("search_captcha_new", Outcome.BLOCKED),
        ("search_soft_block", Outcome.BLOCKED),
        ("search_no_results", Outcome.EMPTY),
        ("search_results", Outcome.LAYOUT_CHANGED),  # a page of web results: no image can be harvested from it
    ],
)
def test_verdict__real_pages(real_data, file, outcome):
    html = (real_data / f"pages/google/{file}.html").read_text()
    assert parse_results(html) == []
    assert verdict(html, URL)[0] is outcome


def test_verdict__addresses():
    assert verdict("", "https://www.google.com/sorry/index?continue=x")[0] is Outcome.BLOCKED
    assert verdict("", "https://consent.google.com/ml?continue=x")[0] is Outcome.CONSENT


def test_parse_results():
    link = "/imgres?q=cat&amp;imgurl=https%3A%2F%2Fa.example%2Fb.jpg%3Fx%3D1&amp;imgrefurl=https%3A%2F%2Fa.example%2F&amp;w=800&amp;h=600"
    (result,) = parse_results(
        f'<a href="{link}"><div><img alt="A cat"></div></a><a href="{link}">again</a><a href="/imgres?x=imgurl=">no</a>'
    )
    assert (result.image_url, result.page_url, result.title) == ("https://a.example/b.jpg?x=1", "https://a.example/", "A cat")
    assert (result.width, result.height) == (800, 600)


PAGE = """<!doctype html><div id=r></div><div style="height:3000px"></div><script>
let made = 0;
function more(count) { for (let i = 0; i < count && made < %(total)d; i++, made++) {
  const a = document.createElement('a'), n = made;
  a.innerHTML = `<div><img alt="Cat ${n}" src="/thumbs/${n}.jpg" width=90 height=90></div>`;
  a.addEventListener('mousedown', () => {
    a.href = `/imgres?imgurl=http%%3A%%2F%%2Fimg.example%%2F${n}.jpg` +
    `&imgrefurl=http%%3A%%2F%%2Fp.example%%2F${n}&w=9&h=8`; });
  r.append(a); } }
more(40);
addEventListener('scroll', () => more(20));
</script>"""


@pytest.mark.browser
def test_browser__harvests_and_stops(site, reply, real_data):
    source = open_source("google-images", SourceSettings(base_url=site.url, timeout_s=20, license="CC0-1.0"))
    try:
        site.route("/search", reply(PAGE % {"total": 130}))
        first = source.search("cat", "cat", None)
        second = source.search("cat", "cat", first.next_cursor)
        found = [*first.candidates, *second.candidates]
        assert [candidate.url for candidate in found] == [f"http://img.example/{number}.jpg" for number in range(130)]
        assert (found[7].title, found[7].page_url, found[7].width) == ("Cat 7", "http://p.example/7", 9)
        assert second.dry
        assert site.count("/thumbs") == 0
        assert site.asked[0].parameters["udm"] == "2"
        site.route("/sorry/index", reply((real_data / "pages/google/search_captcha_new.html").read_bytes()))
        site.route("/search", reply(status=302, headers={"Location": "/sorry/index?continue=x"}))
        assert source.search("dog", "dog", None).outcome is Outcome.BLOCKED
        site.route("/search", reply('<div><img src="/thumbs/x.jpg"></div>'))
        changed = source.search("bird", "bird", None)
        assert changed.outcome is Outcome.LAYOUT_CHANGED
        assert not changed.dry
    finally:
        source.close()
