"""A collector in a process of its own, to be killed by test_pipeline__killed.py: `killed.py ROOT`.

ROOT/received.txt names the URLs whose bodies it had received whole.
"""

from __future__ import annotations

import os
import sys
from typing import Self

from collect import definition
from collect.admission import Arrival
from collect.ledger import Ledger
from collect.ledger_rows import Lease
from collect.pipeline import DownloadSettings, Pipeline
from collect.workspace import Workspace


class TellingPipeline(Pipeline):
    """Notes, where a kill cannot take it back, each URL whose body has been received."""

    def __enter__(self) -> Self:
        self._notes = os.open(self._dataset.folder.parent.parent / "received.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        return super().__enter__()

    async def fetch(self, lease: Lease) -> Arrival:
        arrival = await super().fetch(lease)
        os.write(self._notes, f"{lease.url}\n".encode())
        return arrival


if __name__ == "__main__":
    dataset = Workspace.at(sys.argv[1]).dataset("things")
    made = definition.load(dataset)
    settings = DownloadSettings(("127.0.0.1",), polite=False)
    with Ledger(dataset.ledger) as ledger, TellingPipeline(dataset, made, ledger, settings) as pipeline:
        pipeline.drain()
