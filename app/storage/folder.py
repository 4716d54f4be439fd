"""Storage in a folder: objects are files."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from app import failpoints
from app.errors import NotFound
from app.storage.base import DRAFTS, Stored, check_key, out_of_space
from app.storage.durable import make_folder, sync, sync_folders

# Entries that the system hands over at once: it gives pieces of 32 KiB, and a name has up to 255 bytes.
ONE_PIECE = 100
# Of a large folder, where others write all the time.
SCANS = 5


class FolderStorage:
    """Objects as files below a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, key: str) -> Path:
        """Where the object of that key lies, or would."""
        return self.root / check_key(key)

    def put(self, key: str, source: Path) -> None:
        """See Storage. A hard link where possible: sources are never changed after they were put."""
        target = self.path(key)
        while True:
            try:
                return _place(source, target, self.root / DRAFTS)
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

    def forget(self, key: str) -> None:
        """See Storage. What is fetched here is the object itself."""

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
        found = (self._key(entry) for entry in _files_below(self.path(prefix)))
        return iter(sorted(key for key in found if not _is_draft(key)))

    def walk(self) -> Iterator[Stored]:
        """See Storage."""
        for entry in _files_below(self.root):
            try:
                yield self._stored(entry, entry.stat())
            except FileNotFoundError:
                continue

    def stat(self, key: str) -> Stored | None:
        """See Storage."""
        path = self.path(key)
        try:
            return self._stored(path, path.stat()) if path.is_file() else None
        except FileNotFoundError:
            return None

    def remove(self, stored: Stored) -> None:
        """See Storage."""
        path = self.root / stored.key
        path.unlink(missing_ok=True)
        self._remove_above(path)

    def _stored(self, path: os.PathLike[str], status: os.stat_result) -> Stored:
        # Not the time of the last change, which a hard link has from its source: a link is made now.
        key = self._key(path)
        return Stored(key, status.st_size, status.st_ctime, Path(path).name if _is_draft(key) else "")

    def _key(self, path: os.PathLike[str]) -> str:
        return Path(path).relative_to(self.root).as_posix()

    def _remove_above(self, path: Path) -> None:
        folder = path.parent
        while folder != self.root and _remove_empty(folder):
            folder = folder.parent


def _files_below(folder: Path) -> Iterator[os.DirEntry[str]]:
    """What was there when a folder was scanned; it may have gone since."""
    for entry in _scan(folder):
        if entry.is_dir(follow_symlinks=False):
            yield from _files_below(Path(entry.path))
        else:
            yield entry


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    """The entries of a folder, by name.

    The system hands a large folder over in pieces, in an order of its own: an object in a piece still to come may be
    replaced by one that belongs to a piece that has been. So such a folder is scanned until it has stayed the same.
    """
    found: list[os.DirEntry[str]] = []
    for _ in range(SCANS):
        before = {entry.name for entry in found}
        try:
            with os.scandir(folder) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except (FileNotFoundError, NotADirectoryError):
            # It goes with the last object in it, which somebody has just taken away.
            return []
        if len(found) <= ONE_PIECE or {entry.name for entry in found} == before:
            break
    return found


def _is_draft(key: str) -> bool:
    """No key has a part with a dot before it: see `check_key`."""
    return key.startswith(".") or "/." in key


def _place(source: Path, target: Path, drafts: Path) -> None:
    """All that is being written lies in one folder, so that what killed processes leave there is found.

    A row is written when this has returned, and outlives a loss of power. So must the object: as long as it is, and
    under its name.
    """
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
        sync(temporary)
        folders = make_folder(target.parent)
        failpoints.reach("file_linked")
        temporary.replace(target)
        sync_folders(folders)
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
