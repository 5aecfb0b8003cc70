"""ATTRIBUTION.md: every image credited as its licence asks: title, author, source, licence, changes (TASL).

After section 4(b) or (c) of the Creative Commons licences 1.0 to 3.0 (the title is owed where it was supplied), section 3(a) of 4.0
(it is not, but notices that were supplied are kept) and wiki.creativecommons.org/wiki/Recommended_practices_for_attribution. What
sources wrote goes in as text, never as Markdown or HTML.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from itertools import groupby
from urllib.parse import quote

from collect.licenses import USER_SUPPLIED, family, licence_url
from collect.records import ImageRecord

_CHANGES = """\
Changes: none, where a line does not say otherwise. The images are stored byte for byte as their sources served them or as they
were imported; boxes were added beside them, not in them. Cropped and resized copies are made only in training and are no part
of this release."""
_PUBLIC = "No credit is asked for; it is given as a courtesy."
_CC = (
    "Asks for the title (versions 1.0 to 3.0, where one was supplied; optional in 4.0), the author, the source, the licence with its"
    " link, and what was changed."
)
_SHARE_ALIKE = " What is adapted from these images and shared goes under the same licence."
_OWNERS = "The owner of this dataset supplied these images and stated no licence: ask before passing them on."
_OTHER = "Credited like the others; the licence itself says what else it asks for."
#: What Markdown or GitHub's autolinks would take for more than text, directions that turn text round, and control characters.
_ACTIVE = re.compile(r"(?i)[\\`*_\[\]<>~|&@$]|:(?=//)|(?<=www)\.")
_TURNING = re.compile("[\u202a-\u202e\u2066-\u2069]")


def credit(record: ImageRecord) -> str:
    """One Markdown line that credits an image. What is not known is said to be not stated."""
    licence = record.licence
    source = _web(record.page_url) or _web(record.source_url)
    title = _plain(licence.title)
    named = _link(title or _plain(record.file_name) or record.sha256[:12], source)
    creator = _plain(licence.creator)
    parts = [
        named
        + ("" if title else " (title not stated)")
        + f" by {_link(creator, licence.creator_url) if creator else 'an author not stated'}",
        *([] if source else ["source not stated"]),
        _licence(record),
        *_notice(record),
    ]
    return f"{', '.join(parts)}; {_changes(record)} (`{record.sha256[:12]}`)"


def _notice(record: ImageRecord) -> list[str]:
    """The credit line that came with the image, where it is more than title and author: a copyright notice, or a wish of the author."""
    licence = record.licence
    said = bool(licence.creator and licence.title) and licence.creator in licence.attribution and licence.title in licence.attribution
    return [f"credit line of the source: “{_plain(licence.attribution)}”"] if licence.attribution.strip() and not said else []


def _changes(record: ImageRecord) -> str:
    return "changed: a frame taken from a video" if record.source.startswith("video:") else "unchanged"


def _licence(record: ImageRecord) -> str:
    licence = record.licence
    if licence.spdx == USER_SUPPLIED:
        return "licence not stated: supplied by the owner of this dataset"
    stated = " (as the user states)" if licence.evidence == "user" else ""
    return _link(_plain(licence.spdx), _web(licence.url) or licence_url(licence.spdx)) + stated


def _link(text: str, url: str) -> str:
    """Text that is already plain, linked where `url` is one of the web; no other scheme gets in."""
    address = _web(url)
    return f"[{text}]({address})" if address else text


def _web(url: str) -> str:
    """A web address without what would end a Markdown link, "" for anything else."""
    return quote(url, safe="%/:?#@!$&'*+,;=~", errors="replace") if re.match(r"(?i)https?://[^/\s]", url) else ""


def _plain(text: str) -> str:
    """Text on one line that renders as it is."""
    words = " ".join(_TURNING.sub("", text).split())
    return _ACTIVE.sub(r"\\\g<0>", "".join(letter for letter in words if unicodedata.category(letter) not in {"Cc", "Cs"}))


def _asks(spdx: str) -> str:
    kind = family(spdx)
    if kind in {"CC0", "PDM"}:
        return _PUBLIC
    if kind.startswith("CC-BY"):
        return _CC + (_SHARE_ALIKE if kind.endswith("-SA") else "")
    return _OWNERS if spdx == USER_SUPPLIED else _OTHER


def attribution(name: str, version: str, records: Sequence[ImageRecord]) -> str:
    """The whole file: a section a licence with what it asks, in it a line an image, sorted by author."""
    lines = [f"# Attribution: {name} {version}", "", _CHANGES]
    ordered = sorted(records, key=lambda record: (record.licence.spdx, record.licence.creator.lower(), record.sha256))
    for spdx, group in groupby(ordered, key=lambda record: record.licence.spdx):
        credited = [f"- {credit(record)}" for record in group]
        count = f"{len(credited):,} image{'s' if len(credited) > 1 else ''}"
        lines += ["", f"## {_plain(spdx)}: {count}", "", _asks(spdx), "", *credited]
    return "\n".join(lines) + "\n"
