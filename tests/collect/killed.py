"""A collector in a process of its own, to be killed by test_pipeline__killed.py: `killed.py ROOT`."""

from __future__ import annotations

import sys
from dataclasses import replace

from collect import definition
from collect.ledger import Ledger
from collect.pipeline import DownloadSettings, Pipeline
from collect.workspace import Workspace

if __name__ == "__main__":
    dataset = Workspace.at(sys.argv[1]).dataset("things")
    made = definition.load(dataset)
    made = replace(made, collect=replace(made.collect, concurrency=4))
    with Ledger(dataset.ledger) as ledger, Pipeline(dataset, made, ledger, DownloadSettings(("127.0.0.1",), polite=False)) as pipeline:
        pipeline.drain()
