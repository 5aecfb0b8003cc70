"""Messages of several parts between processes."""

from __future__ import annotations

import socket
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collect.images.channel import Channel


def _ends() -> tuple[Channel, Channel]:
    ours, theirs = socket.socketpair()
    return Channel(ours.detach()), Channel(theirs.detach())


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.binary(max_size=100), max_size=20), min_size=1, max_size=4))
def test_receive__gives_what_was_sent(messages: list[list[bytes]]) -> None:
    ours, theirs = _ends()
    for parts in messages:
        ours.send(parts)
    assert [theirs.receive() for _ in messages] == messages
    ours.close()
    theirs.close()


def test_receive__more_than_the_socket_holds() -> None:
    """Sent in pieces that end within a part, while the other end reads; then a small message over the same buffer."""
    ours, theirs = _ends()
    parts = [b"", bytes(range(256)) * 8_000, b"x" * 3_000_001, b"", b"end"]
    sender = threading.Thread(target=lambda: (ours.send(parts), ours.send([b"small"])))
    sender.start()
    assert theirs.receive() == parts
    assert theirs.receive() == [b"small"]
    sender.join()
    ours.close()
    theirs.close()


@pytest.mark.parametrize("num_bytes", [0, 3, 10, 40])
def test_receive__the_other_end_dies_in_the_middle(num_bytes: int) -> None:
    sender, copy = socket.socketpair()
    whole = Channel(sender.detach())
    whole.send([b"a" * 10, b"b" * 20])
    ours, theirs = socket.socketpair()
    ours.sendall(copy.recv(1000)[:num_bytes])
    channel = Channel(theirs.detach())
    for end in (ours, copy, whole):
        end.close()
    with pytest.raises(EOFError):
        channel.receive()
    channel.close()


def test_receive__gives_up_after_its_patience() -> None:
    ours, theirs = _ends()
    theirs.set_patience(1)
    with pytest.raises(BlockingIOError):
        theirs.receive()
    ours.close()
    theirs.close()
