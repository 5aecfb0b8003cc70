"""Images in quarantine whose licence has become known: a later find, of the same URL or of equal bytes, states one."""

from __future__ import annotations

from collect.definition import Definition
from collect.ledger import Ledger
from collect.licenses import allows


def reconsider(ledger: Ledger, definition: Definition) -> int:
    """Keep every quarantined image for which a find now states an allowed licence; returns how many."""
    freed: dict[str, None] = {}
    for sha256, find in ledger.finds_in_quarantine():
        if sha256 not in freed and allows(definition.collect.licenses, find.licence.spdx):
            ledger.free(sha256, find)
            freed[sha256] = None
    return len(freed)
