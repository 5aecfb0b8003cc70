"""Licence names as sources really write them: each becomes the one licence it names, or nothing where that is not certain."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collect.licenses import allows, family, licence_url, spdx_from_name, spdx_from_url

CERTAIN = {
    "CC BY-SA 3.0 de": "CC-BY-SA-3.0-DE",
    "CC BY-NC-SA 3.0 IGO": "CC-BY-NC-SA-3.0-IGO",
    "CC BY–SA 4.0": "CC-BY-SA-4.0",
    "Creative Commons Attribution-NonCommercial-NoDerivs 2.0 Generic License": "CC-BY-NC-ND-2.0",
    "CC BY 2.0 kr": "CC-BY-2.0-KR",
    "CC-Zero": "CC0-1.0",
    "CC0 1.0 Universal Public Domain Dedication": "CC0-1.0",
    "Public domain": "PDM-1.0",
    "GFDL 1.2": "GFDL-1.2-only",
}
#: Unversioned, several at once, narrowed by words, or none at all: kept apart until a person says.
UNCERTAIN = [
    "Attribution", "CC BY-NC", "CC-BY-SA-3.0,2.5,2.0,1.0", "CC BY 4.0 (non-commercial only)", "CC BY 9.9", "CC SA 1.0", "Fair use",
    "cc0-1.0, but not for machines", "pdm-owner", "PD-US", "public domain (US)", "Copyrighted free use", "All rights reserved", "",
]  # fmt: skip


@pytest.mark.parametrize("name", CERTAIN)
def test_names_that_are_certain(name: str) -> None:
    assert spdx_from_name(name) == CERTAIN[name]


@pytest.mark.parametrize("name", UNCERTAIN)
def test_names_that_are_not_certain_are_no_licence(name: str) -> None:
    assert spdx_from_name(name) == ""


def test_a_name_and_a_url_that_contradict_each_other_are_no_licence() -> None:
    by, nc = "https://creativecommons.org/licenses/by/4.0/", "https://creativecommons.org/licenses/by-nc/4.0/"
    assert spdx_from_name("CC BY-NC 4.0", url=by) == ""
    assert spdx_from_name("CC BY 4.0", url=nc) == ""
    assert spdx_from_name("CC0", url=by) == ""
    assert spdx_from_name("CC BY 3.0", url=by) == "CC-BY-4.0"  # a family agrees; the URL is the more exact
    assert spdx_from_name("by", "4.0", by) == "CC-BY-4.0"


def test_only_creative_commons_own_urls_count() -> None:
    assert spdx_from_url("http://www.creativecommons.org/licenses/by/2.0/") == "CC-BY-2.0"
    assert spdx_from_url("https://notcreativecommons.org/licenses/by/4.0/") == ""
    assert spdx_from_url("https://example.org/creativecommons.org/licenses/by/4.0/") == ""


@given(
    kind=st.sampled_from(["BY", "BY-SA", "BY-ND", "BY-NC", "BY-NC-SA", "BY-NC-ND"]),
    version=st.sampled_from(["1.0", "2.0", "2.5", "3.0", "4.0"]),
    allowed=st.sampled_from(["BY", "BY-SA", "BY-ND", "BY-NC", "BY-NC-SA", "BY-NC-ND"]),
)
def test_a_family_admits_its_own_kind_and_no_other(kind: str, version: str, allowed: str) -> None:
    spdx = f"CC-{kind}-{version}"
    assert spdx_from_name(f"CC {kind} {version}") == spdx_from_url(licence_url(spdx)) == spdx
    assert family(spdx) == f"CC-{kind}"
    assert allows([f"CC-{allowed}"], spdx) == (kind == allowed)
