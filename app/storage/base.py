"""What every kind of storage can do, and what they share.

Keys are relative paths of plain names. Writing is atomic: a reader sees a whole object or none.
"""

import errno
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from app.errors import OutOfSpace

# Where objects are written before they get their name; no key begins so.
DRAFTS = ".put"
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=@+-]*(/[A-Za-z0-9][A-Za-z0-9._=@+-]*)*")


@dataclass(frozen=True, slots=True)
class Stored:
    """One object as a listing tells of it.

    Args:
        key: its own; of what was cut off in mid-writing, where it lies.
        size_bytes: 0 where the object store does not say, which is so for what was cut off.
        stored_at: when it came here, in seconds since 1970, by the clock of whoever keeps it.
        unfinished: empty for an object. Else the name of what a killed process was writing; no reader sees that.
    """

    key: str
    size_bytes: int
    stored_at: float
    unfinished: str = ""


class Storage(Protocol):
    """What every kind of storage can do."""

    def put(self, key: str, source: Path) -> None:
        """Stores a copy of the file under the key; an existing object is replaced."""

    def fetch(self, key: str) -> Path:
        """A local path of the object's content, to be read only.

        Raises:
            NotFound: there is no such object.
        """

    def forget(self, key: str) -> None:
        """Drops a local copy of the object, which may be damaged where the object is not: `fetch` gets it anew."""

    def delete(self, prefix: str) -> None:
        """Removes the object of that key and all below it; nothing there is no error."""

    def list(self, prefix: str) -> Iterator[str]:
        """Keys below the prefix, sorted.

        What one writer puts before it removes another object is never missed with it: one of the two is told of.
        What is told of may have gone by the time it is fetched.
        """

    def walk(self) -> Iterator[Stored]:
        """Everything that lies here, what was cut off too; in memory is one folder, or one page, at a time.

        Objects of one folder come one after the other, in the order of their names.
        """

    def stat(self, key: str) -> Stored | None:
        """The object of that key; None where there is none."""

    def remove(self, stored: Stored) -> None:
        """Removes exactly what a listing has told of, and nothing below it; nothing there is no error."""


def is_key(key: str) -> bool:
    """Whether an object may have that key: a relative path of plain names."""
    return _KEY.fullmatch(key) is not None


def check_key(key: str) -> str:
    """Refuses a key that could leave the store.

    Raises:
        ValueError: not a relative path of plain names.
    """
    if not is_key(key):
        raise ValueError(f"storage keys are relative paths of plain names; found {key!r}")
    return key


def out_of_space(error: OSError) -> Exception:
    """A full disk, a quota or a limit on files as an error that can be shown; any other error as it is."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return OutOfSpace("expected room to write; the disk is full; free some space and send it again")
    return error
