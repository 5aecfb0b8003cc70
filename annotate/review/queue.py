"""x"""

from __future__ import annotations
from typing import Any
from annotate.review import dataset as D
from annotate.state import current
from collect.ledger import Ledger


def cards(workspace: Any, dataset: Any, definition: Any, journal: Any, reviewer: str, run: Any) -> Any:
    with Ledger(dataset.ledger) as l:
        recs = list(l.images())
    return D.cards(dataset, recs, current(journal))
