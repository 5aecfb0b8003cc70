"""ATTRIBUTION.md: each licence's images credited as it asks, and nothing that a source wrote becomes Markdown."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from annotate.attribution import attribution, credit
from collect.licenses import USER_SUPPLIED, licence_url
from collect.records import ImageRecord, Licence, Reason, State


def record(spdx: str = "CC-BY-4.0", **facts: str) -> ImageRecord:
    stated = {"creator": "Ann Lee", "creator_url": "https://photos.example/ann", "title": "Barn owl", **facts}
    return ImageRecord(
        sha256="ab" * 32, extension="jpg", width=4, height=3, orientation=1, phash="0" * 16, num_bytes=9, state=State.KEPT,
        reason=Reason.NONE, licence=Licence(spdx, **stated), source="openverse", query="", class_name="owl",
        source_url="https://cdn.example/1.jpg", page_url="https://photos.example/1", domain="photos.example",
        found_at="2026-01-01T00:00:00.000Z", file_name="1.jpg",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("spdx", "link"),
    [
        ("CC-BY-1.0", "https://creativecommons.org/licenses/by/1.0/"),
        ("CC-BY-2.0", "https://creativecommons.org/licenses/by/2.0/"),
        ("CC-BY-SA-2.5", "https://creativecommons.org/licenses/by-sa/2.5/"),
        ("CC-BY-SA-3.0-DE", "https://creativecommons.org/licenses/by-sa/3.0/de/"),
        ("CC-BY-4.0", "https://creativecommons.org/licenses/by/4.0/"),
        ("CC-BY-NC-SA-4.0", "https://creativecommons.org/licenses/by-nc-sa/4.0/"),
        ("CC0-1.0", "https://creativecommons.org/publicdomain/zero/1.0/"),
        ("PDM-1.0", "https://creativecommons.org/publicdomain/mark/1.0/"),
    ],
)
def test_credit__names_title_author_source_licence_and_changes(spdx: str, link: str) -> None:
    assert credit(record(spdx)) == (
        f"[Barn owl](https://photos.example/1) by [Ann Lee](https://photos.example/ann), [{spdx}]({link}); unchanged (`abababababab`)"
    )


def test_credit__what_is_missing_is_said() -> None:
    assert credit(record(creator="", title="")).startswith("[1.jpg](https://photos.example/1) (title not stated) by an author not stated, ")
    assert "Barn owl by [Ann Lee](https://photos.example/ann), source not stated, [CC-BY-4.0]" in credit(
        replace(record(), page_url="", source_url="file:///home/ann/1.jpg")
    )


def test_credit__licences_that_users_state_are_named_as_such() -> None:
    assert ", licence not stated: supplied by the owner of this dataset; unchanged" in credit(record(USER_SUPPLIED))
    assert ", LicenseRef-Contract-7 (as the user states); unchanged" in credit(record("LicenseRef-Contract-7", evidence="user"))
    assert ", [MIT](https://spdx.org/licenses/MIT.html); unchanged" in credit(record("MIT"))
    assert "[LicenseRef-CIFAR-10](https://cifar.example/terms)" in credit(record("LicenseRef-CIFAR-10", url="https://cifar.example/terms"))


def test_credit__keeps_copyright_notices_but_repeats_no_title_and_author() -> None:
    assert "credit line" not in credit(record(attribution='"Barn owl" by Ann Lee, CC BY 4.0'))
    assert "credit line of the source: “(c) Ann Lee, some rights reserved”" in credit(
        record(attribution="(c) Ann Lee, some rights reserved")
    )


def test_credit__a_frame_is_a_change() -> None:
    assert "; changed: a frame taken from a video (`" in credit(replace(record(), source="video:owls.mp4"))


HOSTILE = [
    "](https://evil.example) [x", "<script>alert(1)</script>", "`code` *bold* __strong__ ~~gone~~", "![x](https://evil.example/p.png)",
    "<https://evil.example>", "https://evil.example www.evil.example a@evil.example", "line\n\n# heading\n- item", "a | b &lt; &amp; \\",
    "\\](javascript:alert(1))", "[a]: https://evil.example", "\u202egnp.lwo",
]  # fmt: skip


def rendered(line: str) -> tuple[str, list[str]]:
    """The text that a reader sees, and the addresses that it links to."""
    html = MarkdownIt("commonmark", {"html": True}).render(f"- {line}")
    inner = re.sub(r"</?(?:ul|li|a|code)(?: href=\"[^\"]*\")?>", "", html)
    assert "<" not in inner, html
    text = inner.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", '"').replace("&amp;", "&")
    return text.strip(), re.findall(r'href="([^"]*)"', html)


def shows_as_text(text: str) -> None:
    shown, links = rendered(credit(record(title=text, creator=text, attribution=text)))
    plain = " ".join(re.sub("[\u202a-\u202e\u2066-\u2069]", "", text).split())
    named = f"{plain} by {plain}" if plain else "1.jpg (title not stated) by an author not stated"
    assert shown == f"{named}, CC-BY-4.0; unchanged (abababababab)"
    assert set(links) <= {"https://photos.example/1", "https://photos.example/ann", licence_url("CC-BY-4.0")}


@pytest.mark.parametrize("text", HOSTILE)
def test_credit__shows_what_a_source_wrote_as_text(text: str) -> None:
    shows_as_text(text)
    assert ("https\\://" in credit(record(title=text))) == ("https://" in text), "GitHub would make a link of it"


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1))
def test_credit__shows_any_text_as_it_is(text: str) -> None:
    shows_as_text(text)


@pytest.mark.parametrize(
    "address", ["javascript:alert(1)", "data:text/html,x", "https://a.example/) [x](https://evil.example", "https://a.example/>\n# x"]
)
def test_credit__no_address_breaks_out_of_its_link(address: str) -> None:
    shown, links = rendered(credit(replace(record(creator_url=address, url=address), page_url=address)))
    assert shown == "Barn owl by Ann Lee, CC-BY-4.0; unchanged (abababababab)"
    assert all(link.startswith(("https://a.example/", "https://cdn.example/", "https://creativecommons.org/")) for link in links)


def test_attribution__says_for_each_licence_what_it_asks() -> None:
    text = attribution(
        "owls", "v001", [record("CC0-1.0"), record("CC-BY-SA-3.0", creator="Zoe"), record("CC-BY-SA-3.0"), record(USER_SUPPLIED)]
    )
    head, share_alike, public, own = text.split("\n## ")
    assert "byte for byte" in head
    assert "made only in training" in head
    assert share_alike.startswith("CC-BY-SA-3.0: 2 images\n")
    assert share_alike.index("Ann Lee") < share_alike.index("Zoe")
    assert "title (versions 1.0 to 3.0" in share_alike
    assert "same licence" in share_alike
    assert public.startswith("CC0-1.0: 1 image\n")
    assert "courtesy" in public
    assert own.startswith("LicenseRef-User-Supplied: 1 image\n")
    assert "stated no licence" in own
