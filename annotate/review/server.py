"""FiftyOne's App server, wrapped in our guard, on 127.0.0.1."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from annotate.review.ahead import Ahead
from annotate.review.guard import Guard
from annotate.review.preserve import Preserve
from annotate.review.session import Session
from annotate.review.shortcuts import Shortcuts
from collect.errors import PortInUseError

ADDRESS = "127.0.0.1"


@dataclass(frozen=True)
class Place:
    """Where the App is served; the token is part of the address and of nothing else."""

    socket: socket.socket
    dataset: str
    token: str = field(default_factory=lambda: secrets.token_urlsafe(16))

    @property
    def port(self) -> int:
        return int(self.socket.getsockname()[1])

    def url(self, sample: str | None = None) -> str:
        """The address to open, token included."""
        return f"http://{ADDRESS}:{self.port}/datasets/{self.dataset}?token={self.token}" + (f"&id={sample}" if sample else "")


def claim(port: int) -> socket.socket:
    """A listening socket on 127.0.0.1; port 0 = any free one.

    Raises:
        PortInUseError: somebody else listens there.
    """
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((ADDRESS, port))
    except OSError as error:
        listener.close()
        raise PortInUseError(
            f"port {port} of {ADDRESS} is in use; end what listens there, or choose another with --port (0 = any free one)"
        ) from error
    listener.listen(128)
    listener.setblocking(False)
    return listener


def serve(session: Session, place: Place, images: Path, stop: asyncio.Event, loop: asyncio.AbstractEventLoop) -> None:
    """Serve the App until `stop` is set. FiftyOne must be connected already (see :func:`annotate.review.dataset.connect`)."""
    from fiftyone.server.app import app
    from fiftyone.server.events import set_port
    from hypercorn.asyncio import serve as hypercorn_serve
    from hypercorn.config import Config

    app.debug = False  # no tracebacks with local variables to the browser
    set_port(place.port)
    config = Config()
    config.bind = [f"fd://{os.dup(place.socket.fileno())}"]  # hypercorn closes what it is given
    config.graceful_timeout = 1.0
    config.accesslog = None
    config.errorlog = None
    application = Shortcuts(Preserve(Ahead(app, session), session), session)
    guarded: Any = Guard(application, port=place.port, token=place.token, images=images)
    loop.set_exception_handler(lambda loop, context: _complain(loop, context, ending=stop.is_set()))
    loop.run_until_complete(hypercorn_serve(guarded, config, shutdown_trigger=stop.wait))


def _complain(loop: asyncio.AbstractEventLoop, context: dict[str, Any], *, ending: bool) -> None:
    """Tell of an error, but not of a page that was still open at the end: before Python 3.12 asyncio takes that for one."""
    if not (ending and isinstance(context.get("exception"), asyncio.CancelledError)):
        loop.default_exception_handler(context)
