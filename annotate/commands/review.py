"""`boxwright review`: the FiftyOne App on what should be looked at next."""

from __future__ import annotations

import getpass
from argparse import ArgumentParser, Namespace
from typing import Any

from collect.console import Console


class Review:
    """Opens the App and stays until Ctrl-C."""

    def arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", help="the dataset")
        parser.add_argument("--reviewer", default=None, help="who reviews; each name gets a part of the queue (default: your login)")
        parser.add_argument("--port", type=int, default=5151, help="port on 127.0.0.1, 0 = any free one (default: %(default)s)")
        parser.add_argument("--no-open", action="store_true", help="do not open a browser; print the address only")
        parser.add_argument("--run", metavar="RUN", help="show the detections of this run on its test split")

    def run(self, arguments: Namespace, console: Console) -> dict[str, Any] | None:
        from annotate.review.opening import Options, outlook, review

        reviewer = arguments.reviewer if arguments.reviewer is not None else getpass.getuser()
        options = Options(arguments.name, reviewer, arguments.port, not arguments.no_open, arguments.run)
        if console.dry_run:
            return outlook(console, options)
        review(console, options)
        return None


REVIEW = Review()
