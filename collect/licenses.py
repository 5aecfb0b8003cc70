"""Licence names as the web writes them, turned into SPDX ids, and the allow-list over ids and families.

Ids are those of the SPDX licence list (spdx.org/licenses); `PDM-1.0` is Creative Commons' Public Domain Mark, which that
list lacks. `LicenseRef-…` is SPDX's way to name a licence outside its list.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from collect.errors import UsageError

#: An image that its owner imported from own files without a statement; the definition that `import` writes allows it.
USER_SUPPLIED = "LicenseRef-User-Supplied"

#: Family -> pattern of the SPDX ids in it. A family in an allow-list admits every version and national port.
_FAMILIES = {
    "CC-BY": r"CC-BY-\d[\w.-]*",
    "CC-BY-SA": r"CC-BY-SA-\d[\w.-]*",
    "CC-BY-ND": r"CC-BY-ND-\d[\w.-]*",
    "CC-BY-NC": r"CC-BY-NC-\d[\w.-]*",
    "CC-BY-NC-SA": r"CC-BY-NC-SA-\d[\w.-]*",
    "CC-BY-NC-ND": r"CC-BY-NC-ND-\d[\w.-]*",
    "CC0": r"CC0-1\.0",
    "PDM": r"PDM-1\.0",
}
_OTHERS = {
    "mit": "MIT",
    "mit license": "MIT",
    "apache-2.0": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "bsd-3-clause": "BSD-3-Clause",
    "gfdl": "GFDL-1.2-or-later",
    "gfdl 1.2": "GFDL-1.2-only",
    "fal": "LAL-1.3",
    "free art license": "LAL-1.3",
    "odbl": "ODbL-1.0",
    "pd": "PDM-1.0",
    "public domain": "PDM-1.0",
    "us government work": "LicenseRef-US-Government",
    "united states government work": "LicenseRef-US-Government",
    "no known copyright restrictions": "LicenseRef-NKC",
}
_CC_NAME = re.compile(
    r"^(?:creative commons |cc[ -]?)?(?P<kind>attribution|by)"
    r"(?P<more>(?:[ -]*(?:non-?commercial|no-?deriv(?:ative)?s?|share-?alike|nc|nd|sa))*)"
    r"(?:[ -]*v?(?P<version>1(?:\.0)?|2(?:\.[015])?|3(?:\.0)?|4(?:\.0)?))?"
    r"(?:[ -]+(?P<rest>[a-z]{2,3}|generic|international|unported|int.*))?(?: licen[cs]e)?$"
)
_CC0_NAME = re.compile(
    r"^(?:creative commons )?cc[ -]?(?:0|zero)(?:[ -]v?1(?:\.0)?)?(?: universal)?(?: public domain dedication)?(?: licen[cs]e)?$"
)
_PDM_NAME = re.compile(r"^(?:pdm|public domain mark)(?:[ -]1(?:\.0)?)?$")
_CC_URL = re.compile(
    r"(?:^|//)(?:www\.)?creativecommons\.org/(?:licenses/(?P<kind>by(?:-nc)?(?:-nd|-sa)?)/(?P<version>\d\.\d)(?:/(?P<port>[a-z]{2,3})(?:/|$))?"
    r"|publicdomain/(?P<pd>zero|mark)/)",
    re.IGNORECASE,
)
_SPDX = re.compile(r"^[A-Za-z0-9][A-Za-z0-9.+-]*$")


def spdx_from_url(url: str) -> str:
    """The SPDX id a licence URL stands for, or "".

    >>> spdx_from_url("https://creativecommons.org/licenses/by-sa/3.0/de/deed.en")
    'CC-BY-SA-3.0-DE'
    >>> spdx_from_url("http://creativecommons.org/publicdomain/zero/1.0/")
    'CC0-1.0'
    """
    match = _CC_URL.search(url)
    if not match:
        return ""
    if match["pd"]:
        return "CC0-1.0" if match["pd"].lower() == "zero" else "PDM-1.0"
    port = match["port"]
    return f"CC-{match['kind'].upper()}-{match['version']}" + (f"-{port.upper()}" if port else "")


def spdx_from_name(name: str, version: str = "", url: str = "") -> str:
    """The SPDX id for a licence as a source names it, or "" where it cannot be told.

    A Creative Commons name without a version becomes `""`: an unversioned licence cannot be credited as it asks. So does one
    whose name and URL contradict each other: nobody knows which of them the author meant.

    >>> spdx_from_name("CC BY-SA 4.0"), spdx_from_name("by-nc", "2.0"), spdx_from_name("Public domain")
    ('CC-BY-SA-4.0', 'CC-BY-NC-2.0', 'PDM-1.0')
    >>> spdx_from_name("cc-by"), spdx_from_name("All rights reserved")
    ('', '')
    >>> spdx_from_name("CC BY-NC 4.0", url="https://creativecommons.org/licenses/by/4.0/")
    ''
    """
    from_url, from_name = spdx_from_url(url), _spdx_of(name, version)
    both_cc = {family(from_url), family(from_name)} <= set(_FAMILIES)
    if both_cc and family(from_url) != family(from_name):
        return ""
    return from_url or from_name


def _spdx_of(name: str, version: str) -> str:
    text = " ".join(name.replace("_", " ").replace("–", "-").lower().split())
    if text in _OTHERS:
        return _OTHERS[text]
    if name.startswith("LicenseRef-") and _SPDX.fullmatch(name):
        return name
    if _CC0_NAME.match(text):
        return "CC0-1.0"
    if _PDM_NAME.match(text):
        return "PDM-1.0"
    match = _CC_NAME.match(text)
    if not match:
        return ""
    version = match["version"] or version
    if not version:
        return ""
    number = version if "." in version else f"{version}.0"
    more = match["more"]
    parts = ["CC-BY"]
    parts += ["NC"] if re.search(r"nc|non", more) else []
    parts += ["ND"] if re.search(r"nd|deriv", more) else []
    parts += ["SA"] if re.search(r"sa|share", more) else []
    rest = match["rest"] or ""
    port = f"-{rest.upper()}" if len(rest) in {2, 3} and rest != "int" else ""
    return "-".join(parts) + f"-{number}{port}"


def family(spdx: str) -> str:
    """The family of an id: `CC-BY-SA-3.0-DE` → `CC-BY-SA`; an id without a family is its own."""
    for name, pattern in _FAMILIES.items():
        if re.fullmatch(pattern, spdx):
            return name
    return spdx


def allows(allow_list: Iterable[str], spdx: str) -> bool:
    """Whether an allow-list of ids and families admits an id. `""` is never admitted.

    >>> allows(["CC0-1.0", "CC-BY"], "CC-BY-4.0"), allows(["CC-BY"], "CC-BY-SA-4.0"), allows(["CC-BY"], "")
    (True, False, False)
    """
    return bool(spdx) and any(spdx in {entry} or family(spdx) == entry for entry in allow_list)


def check_entry(entry: str) -> str:
    """An allow-list entry or a `--license` value as an SPDX id or family.

    Raises:
        UsageError: it is neither, with an example of each.
    """
    if entry in _FAMILIES or entry in _OTHERS.values() or entry.startswith("LicenseRef-"):
        return entry
    known = spdx_from_name(entry)
    if known:
        return known
    if re.fullmatch(r"[A-Z][A-Za-z]+(-[A-Za-z]+)*-\d[\w.]*(-[a-z-]+)?", entry) or entry in {
        "MIT",
        "ISC",
        "Unlicense",
        "WTFPL",
    }:
        return entry
    raise UsageError(f"'{entry}' is no SPDX id or family; such are 'CC0-1.0', 'CC-BY', 'CC-BY-SA-4.0', 'MIT', 'LicenseRef-Mine'")


def licence_url(spdx: str) -> str:
    """Where the text of a licence stands, or "".

    >>> licence_url("CC-BY-SA-4.0")
    'https://creativecommons.org/licenses/by-sa/4.0/'
    """
    match = re.fullmatch(r"CC-((?:BY)(?:-NC)?(?:-ND|-SA)?)-(\d\.\d)(?:-([A-Z]{2,3}))?", spdx)
    if match:
        port = f"{match[3].lower()}/" if match[3] else ""
        return f"https://creativecommons.org/licenses/{match[1].lower()}/{match[2]}/{port}"
    known = {"CC0-1.0": "zero", "PDM-1.0": "mark"}
    if spdx in known:
        return f"https://creativecommons.org/publicdomain/{known[spdx]}/1.0/"
    return "" if not spdx or spdx.startswith("LicenseRef-") else f"https://spdx.org/licenses/{spdx}.html"
