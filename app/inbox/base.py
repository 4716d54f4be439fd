"""What every kind of storage can do with resumable uploads, and what they share."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from app.errors import Gone

ROOT = "uploads"
READ_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Part:
    """A part in an object store."""

    number: int
    etag: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Held:
    """What is durably there of an upload.

    Args:
        key: of the object that it will be.
        working: prefix of what lies there until then.
        size_bytes: how much of it there is.
        remote_id: of the multipart upload, in an object store.
        tail: name of the object of the last bytes, which are too few for a part.
        tail_bytes: how many those are.
    """

    key: str
    working: str
    size_bytes: int
    remote_id: str | None = None
    tail: str | None = None
    tail_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Synced:
    """What a sink has made durable: the new state, and the parts that came to it."""

    held: Held
    parts: tuple[Part, ...] = ()


class Writer(Protocol):
    """Who writes: nobody else does meanwhile."""

    @property
    def token(self) -> str:
        """A name that no other writer has."""

    def reserve(self, remote_id: str) -> int:
        """A part number that nobody else is given, of a multipart upload that is the upload's own from now on.

        Raises:
            Locked: somebody else writes by now.
            Gone: the upload was deleted.
        """


class Sink(Protocol):
    """Takes bytes behind those that are held."""

    def write(self, data: bytes) -> None:
        """Takes bytes; they need not be durable yet.

        Raises:
            OutOfSpace: there is no room; nothing behind the last `sync` is kept.
        """

    def sync(self, *, ending: bool) -> Synced:
        """Makes durable what can be; all of it, when the request is ending.

        Raises:
            OutOfSpace: as `write`.
        """

    def close(self, noted: Held | None = None) -> None:
        """Lets go of it.

        Args:
            noted: what is written down as held: what came behind it goes, where it has a name of its own or none; None
                where nobody can say whether it was noted.
        """


class Inbox(Protocol):
    """What every kind of storage can do with uploads."""

    def open(self, held: Held, writer: Writer) -> Sink:
        """A sink behind what is held.

        Raises:
            Locked: somebody else writes.
            Gone: what was held is not there any more.
        """

    def assemble(self, held: Held, parts: list[Part], writer: Writer) -> None:
        """Makes an upload that is all there the object under its key; again, when it was cut short or is done.

        Raises:
            Gone: what was held is not there any more.
        """

    def read(self, key: str, most_bytes: int | None = None) -> Iterator[bytes]:
        """An object's content, or its beginning, in pieces."""

    def discard(self, held: Held) -> None:
        """Removes all of it, the object included."""

    def forget(self, held: Held) -> None:
        """Removes the tail that was held, after a later state was written down."""

    def room_bytes(self) -> int | None:
        """Free bytes, where there is a limit."""

    def start_parts(self, key: str) -> str:
        """Begins an upload whose parts the client sends to the object store itself; gives its id.

        Raises:
            Unsupported: the storage is none.
        """

    def part_url(self, held: Held, number: int, size_bytes: int, seconds: int) -> str:
        """Where the client puts that part, of that length and no other, for so long."""

    def parts(self, held: Held) -> list[Part] | None:
        """Parts that have come; None where the object store knows of no such upload (any more)."""

    def strays(self, known: Callable[[str, str], bool]) -> int:
        """Ends multipart uploads that are old and that `known(key, remote_id)` does not name; says how many."""


def lost(held: Held) -> Gone:
    """What is said when the row knows of bytes that are not there."""
    return Gone(
        f"expected the first {held.size_bytes} bytes of the upload in storage; found them gone; delete the upload and "
        "begin a new one"
    )
