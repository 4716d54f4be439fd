"""Bytes under keys: four verbs over a folder or an S3 bucket.

Keys are relative paths of plain names. Writing is atomic: a reader sees a whole object or none.
"""

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from app import failpoints
from app.errors import NotFound, OutOfSpace

# Where objects are written before they get their name; no key begins so.
DRAFTS = ".put"
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=@+-]*(/[A-Za-z0-9][A-Za-z0-9._=@+-]*)*")


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
        folder = path.parent
        while folder != self._root and _remove_empty(folder):
            folder = folder.parent

    def list(self, prefix: str) -> Iterator[str]:
        """See Storage."""
        top = self.path(prefix)
        paths = (path for path in top.rglob("*") if path.is_file())
        return iter(sorted(path.relative_to(self._root).as_posix() for path in paths))


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
