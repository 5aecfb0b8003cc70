"""Every error Boxwright raises on purpose, one exit code per branch.

    BoxwrightError                 1   anything below that has no code of its own
    ├── UsageError                 2   the command, dataset.toml or an argument is wrong; says what is right
    ├── NotFoundError              3   no such dataset, release, run, image or file
    ├── RefusedError               4   policy says no (licence, gate, frozen test set, unsafe archive)
    ├── MissingServiceError        5   mongod, browser, network, weights or an optional package is not there
    ├── PortInUseError             6   something else listens there
    ├── StorageError               7   disk full, or a place that cannot be written
    ├── CorruptError               8   bytes are not as they were written
    ├── BusyError                  9   another Boxwright process holds what this one needs
    └── TrainingError             10   NaN loss, out of memory, a release that cannot be trained on
    KeyboardInterrupt            130   everything is resumable; the message says how to go on

A failure of one image is not an error but a row with a reason (see :mod:`collect.records`).
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable


class BoxwrightError(Exception):
    """Root of the tree. The message is a sentence for the person at the terminal and says what to do."""

    exit_code = 1


class UsageError(BoxwrightError):
    """The command line, a definition or an argument is wrong."""

    exit_code = 2


class NotFoundError(BoxwrightError):
    """A dataset, release, run, image or file does not exist."""

    exit_code = 3


class RefusedError(BoxwrightError):
    """A policy forbids it: licence, gate, frozen test set, unsafe archive."""

    exit_code = 4


class MissingServiceError(BoxwrightError):
    """A mongod, browser, network, weights file or optional package is not there."""

    exit_code = 5


class PortInUseError(BoxwrightError):
    """Another process listens on the wanted port."""

    exit_code = 6


class StorageError(BoxwrightError):
    """The disk is full or the place cannot be written."""

    exit_code = 7


class CorruptError(BoxwrightError):
    """Stored bytes differ from what was written."""

    exit_code = 8


class BusyError(BoxwrightError):
    """Another Boxwright process holds the lock."""

    exit_code = 9


class TrainingError(BoxwrightError):
    """Training cannot start or go on."""

    exit_code = 10


def storage_error(error: OSError) -> StorageError:
    """Turn an OSError about storage into the sentence a person needs.

    >>> print(storage_error(FileExistsError(errno.EEXIST, "File exists", "out")))
    cannot make a folder at out: there is a file of that name; choose another place
    """
    place = f" at {error.filename}" if error.filename else ""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return StorageError(f"the disk is full{place}; free some space and run the same command again: it goes on")
    if error.errno in {errno.EEXIST, errno.ENOTDIR}:
        return StorageError(f"cannot make a folder{place}: there is a file of that name; choose another place")
    return StorageError(f"cannot read or write{place}: {error.strerror}; check the path and its permissions")


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """The error for a name that is not in a table: lists the valid ones, nearest first.

    >>> print(unknown_name("source", "openvers", ["openverse", "wikimedia"]))
    unknown source 'openvers'; did you mean 'openverse'? Valid: openverse, wikimedia
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"; did you mean '{near[0]}'?" if near else "."
    return UsageError(f"unknown {kind} '{name}'{hint} Valid: {', '.join(names) or '(none)'}")
