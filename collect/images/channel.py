"""Messages of several parts over a socket, without joining them: bodies of half a megabyte are copied once on the way in and once out."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence

_HEAD = struct.Struct("<II")  # how many parts, and how many bytes the rest of the message has
_READ_BYTES = 1 << 16


class Channel:
    """One end of a connected stream socket, which it takes over. One thread at a time."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._buffer = bytearray(_READ_BYTES)

    def set_patience(self, seconds: int) -> None:
        """Let :meth:`receive` raise BlockingIOError after so long a silence."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", seconds, 0))

    def send(self, parts: Sequence[bytes]) -> None:
        """Send one message.

        Raises:
            OSError: the other end is gone.
        """
        lengths = struct.pack(f"<{len(parts)}I", *map(len, parts))
        head = _HEAD.pack(len(parts), len(lengths) + sum(map(len, parts)))
        left = [memoryview(part) for part in (head, lengths, *parts)]
        while left:
            sent = self._socket.sendmsg(left)
            while left and sent >= len(left[0]):
                sent -= len(left.pop(0))
            if sent:
                left[0] = left[0][sent:]

    def receive(self) -> list[bytes]:
        """The parts of the next message.

        Raises:
            EOFError: the other end was closed.
            OSError: reading failed, or the patience is over.
        """
        number, length = _HEAD.unpack(self._read(_HEAD.size))
        rest = self._read(length)
        parts, begin = [], 4 * number
        for part in struct.unpack_from(f"<{number}I", rest):
            parts.append(bytes(rest[begin : begin + part]))
            begin += part
        return parts

    def close(self) -> None:
        self._socket.close()

    def _read(self, length: int) -> memoryview:
        """The next bytes; they stand until the next call."""
        if length > len(self._buffer):
            self._buffer = bytearray(length)
        whole = memoryview(self._buffer)[:length]
        left = whole
        while left:
            received = self._socket.recv_into(left)
            if not received:
                raise EOFError
            left = left[received:]
        return whole
