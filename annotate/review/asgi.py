"""The few pieces of ASGI that the wrappers around FiftyOne's server share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


async def answer(send: Send, status: int, body: bytes, kind: str = "text/plain; charset=utf-8") -> None:
    """Send a whole response that no cache may keep."""
    headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode()), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def read_body(receive: Receive) -> bytes:
    """The whole body of a request."""
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = bool(message.get("more_body"))
    return body


def replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives a body that was read already, then goes on with the connection."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def resized(scope: Scope, size: int) -> Scope:
    """A request's scope with another length of its body."""
    headers = [(name, value) for name, value in scope["headers"] if name.lower() != b"content-length"]
    return {**scope, "headers": [*headers, (b"content-length", str(size).encode())]}


class Copy:
    """A `send` that keeps the response, and passes it on where it has somewhere to go."""

    def __init__(self, send: Send | None) -> None:
        self._send = send
        self._messages: list[Message] = []
        self.status = 0
        self.body = b""

    async def __call__(self, message: Message) -> None:
        """Take one message of the response."""
        self.status = message.get("status", self.status)
        self.body += message.get("body", b"")
        if self._send is None:
            self._messages.append(message)
        else:
            await self._send(message)

    async def replay(self, send: Send) -> None:
        """Give the response once more."""
        for message in self._messages:
            await send(message)
