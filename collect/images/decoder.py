"""The process that decodes: it answers files with what they hold, and notes in shared memory at which of them it is."""

from __future__ import annotations

import mmap
import resource
import signal
import struct
from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import Any

import orjson

from collect.images.channel import Channel
from collect.images.limits import InspectLimits

#: How the note is written.
PLACE = struct.Struct("<I")
_MEMORY_BYTES = 4 << 30


class Task(IntEnum):
    """What is asked of the process: the first part of a message, as one byte."""

    INSPECT = 0
    VECTOR = 1
    SAME = 2  # the first file as each of the others


def serve(descriptor: int, page: int) -> None:
    """Answer messages with JSON, one entry a file, until the other end is closed; the first message holds the settings.

    Each file has its deadline, at which the kernel ends the process.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    channel, at = Channel(descriptor), mmap.mmap(page, mmap.PAGESIZE)
    from collect.images.inspect import inspect_all  # here, since whoever asks imports this module and needs no Pillow

    settings = orjson.loads(channel.receive()[0])
    limits = InspectLimits(**settings["limits"])

    def one_by_one(files: Sequence[bytes]) -> Iterator[bytes]:
        for place, data in enumerate(files):
            at[: PLACE.size] = PLACE.pack(place)
            signal.setitimer(signal.ITIMER_REAL, settings["deadline_s"])
            yield data

    while True:
        try:
            (asked,), *files = channel.receive()
            task, waiting = Task(asked), one_by_one(files)
            answers = inspect_all(waiting, limits) if task == Task.INSPECT else _alike(task, waiting, settings["network"])
            signal.setitimer(signal.ITIMER_REAL, 0)
            channel.send([orjson.dumps(answers)])
        except (EOFError, OSError):
            return


def _alike(task: Task, files: Iterator[bytes], network: str) -> list[Any]:
    from collect.images import lookalikes  # with OpenCV, which few decoders need

    if task == Task.VECTOR:
        return list(map(lookalikes.Vectors(network), files))
    return list(map(lookalikes.AgainstTheFirst(), files))[1:]
