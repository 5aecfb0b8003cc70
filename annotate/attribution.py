"""ATTRIBUTION.md: every image credited as its licence asks: title, author, source, licence, changes (TASL).

After wiki.creativecommons.org/wiki/Recommended_practices_for_attribution.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from collect.licenses import USER_SUPPLIED, licence_url
from collect.records import ImageRecord


def credit(record: ImageRecord) -> str:
    """One Markdown line that credits an image."""
    licence = record.licence
    title = _plain(licence.title) or record.file_name or record.sha256[:12]
    source = record.page_url or record.source_url
    named = f"[{title}]({source})" if source.startswith(("http://", "https://")) else f"“{title}”"
    creator = _plain(licence.creator)
    author = f"[{creator}]({licence.creator_url})" if creator and licence.creator_url else creator
    by = f" by {author}" if author else ""
    return f"{named}{by}, {_licence(record)}; unchanged (`{record.sha256[:12]}`)"


def _licence(record: ImageRecord) -> str:
    spdx = record.licence.spdx
    if spdx == USER_SUPPLIED:
        return "licence not stated: supplied by the owner of this dataset"
    url = record.licence.url or licence_url(spdx)
    stated = " (as the user states)" if record.licence.evidence == "user" else ""
    return f"[{spdx}]({url}){stated}" if url else f"{spdx}{stated}"


def _plain(text: str) -> str:
    return " ".join(text.split()).replace("[", "(").replace("]", ")")


def attribution(name: str, version: str, records: Sequence[ImageRecord]) -> str:
    """The whole file: a count by licence, then a line an image, sorted by licence and author."""
    counts = Counter(record.licence.spdx for record in records)
    lines = [f"# Attribution: {name} {version}", "", "| licence | images |", "|---|---|"]
    lines += [f"| {spdx} | {number} |" for spdx, number in sorted(counts.items())]
    lines += ["", "The images are stored as their sources served them, byte for byte; boxes were added beside them.", ""]
    ordered = sorted(records, key=lambda record: (record.licence.spdx, record.licence.creator.lower(), record.sha256))
    lines += [f"- {credit(record)}" for record in ordered]
    return "\n".join(lines) + "\n"
