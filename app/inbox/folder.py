"""Resumable uploads that gather in a folder."""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from app.errors import Locked, Unsupported
from app.inbox.base import READ_BYTES, ROOT, Held, Part, Sink, Synced, Writer, lost
from app.storage import FolderStorage, out_of_space
from app.storage.durable import make_folder, sync_folders


class FolderInbox:
    """An upload is one file that grows, and is then renamed into its place."""

    def __init__(self, storage: FolderStorage) -> None:
        self._storage = storage

    def open(self, held: Held, writer: Writer) -> Sink:
        """See Inbox."""
        return _FolderSink(self._storage.path(held.working), held)

    def assemble(self, held: Held, parts: list[Part], writer: Writer) -> None:
        """See Inbox."""
        source, target = self._storage.path(held.working), self._storage.path(held.key)
        if not source.exists():
            if target.is_file() and target.stat().st_size == held.size_bytes:
                return
            if held.size_bytes:
                raise lost(held)
            _FolderSink(source, held).close()
        while True:
            folders = make_folder(target.parent)
            try:
                source.replace(target)
                break
            except FileNotFoundError:
                # Whoever deleted the last object beside it took the folder along; or the upload is deleted.
                if not source.exists():
                    raise lost(held) from None
        sync_folders(folders)
        self._storage.delete(held.working)

    def read(self, key: str, most_bytes: int | None = None) -> Iterator[bytes]:
        """See Inbox."""
        with self._storage.fetch(key).open("rb") as file:
            if most_bytes is not None:
                yield file.read(most_bytes)
                return
            while data := file.read(READ_BYTES):
                yield data

    def discard(self, held: Held) -> None:
        """See Inbox."""
        self._storage.delete(held.working)
        self._storage.delete(held.key)

    def forget(self, held: Held) -> None:
        """See Inbox: there is no tail."""

    def room_bytes(self) -> int | None:
        """See Inbox."""
        folder = self._storage.path(ROOT)
        while not folder.exists():
            folder = folder.parent
        return shutil.disk_usage(folder).free

    def start_parts(self, key: str) -> str:
        """See Inbox."""
        raise Unsupported(
            "expected a storage of kind s3 for parts that go to the object store; found a folder of the service; send "
            "the bytes to the service, via tus"
        )

    def part_url(self, held: Held, number: int, size_bytes: int, seconds: int) -> str:
        """See Inbox."""
        return self.start_parts(held.key)

    def parts(self, held: Held) -> list[Part] | None:
        """See Inbox."""
        return None

    def strays(self, known: Callable[[str, str], bool]) -> int:
        """See Inbox."""
        return 0


class _FolderSink:
    """The file, locked: a process that was frozen and lost its lease cannot write beside its successor."""

    def __init__(self, path: Path, held: Held) -> None:
        self._held = held
        self._handle = _open(path, held)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(self._handle).st_size < held.size_bytes:
                raise lost(held)
            os.ftruncate(self._handle, held.size_bytes)
            os.lseek(self._handle, held.size_bytes, os.SEEK_SET)
        except BlockingIOError:
            os.close(self._handle)
            raise Locked(
                "expected an upload that nobody writes to; found another process at it; try again in a moment",
                retry_after_seconds=1,
            ) from None
        except BaseException:
            os.close(self._handle)
            raise
        self._size = held.size_bytes

    def write(self, data: bytes) -> None:
        """See Sink."""
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._handle, rest) :]
        except OSError as error:
            self._back(error)
        self._size += len(data)

    def sync(self, *, ending: bool) -> Synced:
        """See Sink."""
        try:
            os.fsync(self._handle)
        except OSError as error:
            self._back(error)
        self._held = Held(self._held.key, self._held.working, self._size)
        return Synced(self._held)

    def close(self, noted: Held | None = None) -> None:
        """See Sink. Nobody else writes as long as the file is locked."""
        try:
            if noted is not None and self._size > noted.size_bytes:
                os.ftruncate(self._handle, noted.size_bytes)
        finally:
            os.close(self._handle)

    def _back(self, error: OSError) -> None:
        """Gives the room back that what cannot be kept has taken."""
        os.ftruncate(self._handle, self._held.size_bytes)
        raise out_of_space(error) from error


def _open(path: Path, held: Held) -> int:
    """The file of an upload; made when nothing of it is there yet."""
    if held.size_bytes:
        try:
            return os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            raise lost(held) from None
    while True:
        try:
            folders = make_folder(path.parent)
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            # A new name is as durable as the bytes.
            sync_folders(folders)
        except FileNotFoundError:
            # Whoever deleted the last upload beside it took the folder along.
            continue
        except OSError as error:
            raise out_of_space(error) from error
        return handle
