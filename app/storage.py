"""Bytes under keys: a few verbs over a folder or an S3 bucket.

Keys are relative paths of plain names. Writing is atomic: a reader sees a whole object or none.
"""

import errno
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from app import failpoints
from app.errors import NotFound, OutOfSpace

# Where objects are written before they get their name; no key begins so.
DRAFTS = ".put"
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=@+-]*(/[A-Za-z0-9][A-Za-z0-9._=@+-]*)*")

# Local copies of remote objects that nobody has asked for in so long; the note of it is exact to an hour.
UNUSED_SECONDS, USE_NOTED_SECONDS = 7 * 86_400.0, 3600.0


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

    def delete(self, prefix: str) -> None:
        """Removes the object of that key and all below it; nothing there is no error."""

    def list(self, prefix: str) -> Iterator[str]:
        """Keys below the prefix, sorted."""

    def walk(self) -> Iterator[Stored]:
        """Everything that lies here, what was cut off too; in memory is one folder, or one page, at a time.

        Objects of one folder come one after the other, in the order of their names.
        """

    def stat(self, key: str) -> Stored | None:
        """The object of that key; None where there is none."""

    def remove(self, stored: Stored) -> None:
        """Removes exactly what a listing has told of, and nothing below it; nothing there is no error."""


def check_key(key: str) -> str:
    """Refuses a key that could leave the store.

    Raises:
        ValueError: not a relative path of plain names.
    """
    if not _KEY.fullmatch(key):
        raise ValueError(f"storage keys are relative paths of plain names; found {key!r}")
    return key


class FolderStorage:
    """Objects as files below a folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def path(self, key: str) -> Path:
        """Where the object of that key lies, or would."""
        return self._root / check_key(key)

    def put(self, key: str, source: Path) -> None:
        """See Storage. A hard link where possible: sources are never changed after they were put."""
        target = self.path(key)
        while True:
            try:
                return _place(source, target, self._root / DRAFTS)
            except FileNotFoundError:
                # Whoever deleted the last object beside it took the folder along; or there is nothing to put.
                if not source.exists():
                    raise
            except OSError as error:
                raise out_of_space(error) from error

    def fetch(self, key: str) -> Path:
        """See Storage."""
        path = self.path(key)
        if not path.is_file():
            raise NotFound(f"expected an object under {key!r}; found none")
        return path

    def delete(self, prefix: str) -> None:
        """See Storage. Folders above that are empty then go as well: as under S3, there are only objects."""
        path = self.path(prefix)
        if path.is_dir():
            shutil.rmtree(path, onerror=_unless_gone)
        else:
            path.unlink(missing_ok=True)
        self._remove_above(path)

    def list(self, prefix: str) -> Iterator[str]:
        """See Storage."""
        found = (stored for stored in self._below(self.path(prefix)) if not stored.unfinished)
        return iter(sorted(stored.key for stored in found))

    def walk(self) -> Iterator[Stored]:
        """See Storage."""
        return self._below(self._root)

    def stat(self, key: str) -> Stored | None:
        """See Storage."""
        path = self.path(key)
        try:
            return self._stored(path, path.stat()) if path.is_file() else None
        except FileNotFoundError:
            return None

    def remove(self, stored: Stored) -> None:
        """See Storage."""
        path = self._root / stored.key
        path.unlink(missing_ok=True)
        self._remove_above(path)

    def _below(self, folder: Path) -> Iterator[Stored]:
        try:
            with os.scandir(folder) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except (FileNotFoundError, NotADirectoryError):
            # It goes with the last object in it, which somebody has just taken away.
            return
        for entry in found:
            if entry.is_dir(follow_symlinks=False):
                yield from self._below(Path(entry.path))
                continue
            try:
                yield self._stored(Path(entry.path), entry.stat())
            except FileNotFoundError:
                continue

    def _stored(self, path: Path, status: os.stat_result) -> Stored:
        # Not the time of the last change, which a hard link has from its source: a link is made now.
        key = path.relative_to(self._root).as_posix()
        # No key has a part with a dot before it: see `check_key`.
        unfinished = path.name if key.startswith(".") or "/." in key else ""
        return Stored(key, status.st_size, status.st_ctime, unfinished)

    def _remove_above(self, path: Path) -> None:
        folder = path.parent
        while folder != self._root and _remove_empty(folder):
            folder = folder.parent


def _place(source: Path, target: Path, drafts: Path) -> None:
    """All that is being written lies in one folder, so that what killed processes leave there is found."""
    drafts.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=drafts)
    os.close(handle)
    temporary = Path(name)
    try:
        temporary.unlink()
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)
        target.parent.mkdir(parents=True, exist_ok=True)
        failpoints.reach("file_linked")
        temporary.replace(target)
        failpoints.reach("file_placed")
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _unless_gone(_action: object, _path: str, found: tuple[type[BaseException], BaseException, object]) -> None:
    """Two may delete the same at once."""
    if not isinstance(found[1], FileNotFoundError):
        raise found[1]


def _remove_empty(folder: Path) -> bool:
    """Whether the folder is gone."""
    try:
        folder.rmdir()
    except FileNotFoundError:
        # Never made, or another process has removed it as well.
        return True
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    return True


def remove_old_copies(cache: Path) -> int:
    """Removes local copies of remote objects that nobody has asked for lately; says how many.

    Whoever needs one of them again fetches it again; what is open stays readable.
    """
    number = 0
    for path in cache.glob("??/*"):
        try:
            if path.is_file() and time.time() - path.stat().st_mtime > UNUSED_SECONDS:
                path.unlink()
                number += 1
        except FileNotFoundError:
            # Another process of this host removes it as well.
            continue
    return number


def out_of_space(error: OSError) -> Exception:
    """A full disk, a quota or a limit on files as an error that can be shown; any other error as it is."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return OutOfSpace("expected room to write; the disk is full; free some space and send it again")
    return error


def folder_of(url: str) -> Path | None:
    """The folder of a storage on disk; None for any other."""
    parts = urlsplit(url)
    return Path(parts.path) if parts.scheme == "file" else None


def failures(url: str) -> tuple[type[Exception], ...]:
    """What the client of the storage behind a URL raises when it is away or refuses what we ask of it."""
    if urlsplit(url).scheme != "s3":
        return ()
    from app.storage_s3 import FAILURES

    return FAILURES


def open_storage(url: str, cache: Path, *, patient: bool = False) -> Storage:
    """The storage behind a URL.

    Args:
        url: `file:///folder` or `s3://bucket/prefix`.
        cache: folder for local copies of remote objects.
        patient: whether a call outlasts an outage of the object store; otherwise it fails within seconds.

    Raises:
        ValueError: another scheme.
    """
    folder = folder_of(url)
    if folder is not None:
        return FolderStorage(folder)
    parts = urlsplit(url)
    if parts.scheme == "s3":
        from app.storage_s3 import S3Storage

        return S3Storage(parts.netloc, parts.path.strip("/"), cache, patient=patient)
    raise ValueError(f"GRAFT_STORAGE_URL: expected file:// or s3://, found {url!r}")
