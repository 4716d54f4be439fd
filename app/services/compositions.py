"""`model.onnx` as it goes out, backbone and head in one: made for downloads, in files, few at once.

Neither clients that read slowly nor many at once may fill the memory or the disk: a graph is in memory while it is
composed, several times over, and from then on in a file that all downloads of the version share. It goes with the last
of them, and there are few.
"""

import tempfile
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from app.artifact import bundle
from app.artifact.spec import Spec
from app.db.models import ModelVersion
from app.errors import Overloaded
from app.serving import stored
from app.storage import Storage, out_of_space

MODEL = "model.onnx"
NUM_AT_ONCE = 2
# Each has a thread meanwhile that other requests need, and a connection to the database.
NUM_WAITING = 6
WAIT_SECONDS = 5.0
RETRY_SECONDS = 5
# Versions that are downloaded at once, and those of one project among them: each has a file for as long as that takes.
NUM_FILES, NUM_FILES_EACH = 16, 4

_places = threading.BoundedSemaphore(NUM_AT_ONCE)
_line = threading.BoundedSemaphore(NUM_AT_ONCE + NUM_WAITING)


@dataclass(eq=False)
class _File:
    """Of one version, while somebody downloads it."""

    project: str
    folder: tempfile.TemporaryDirectory[str] | None = None
    num_users: int = 0
    making: threading.Lock = field(default_factory=threading.Lock)

    @property
    def path(self) -> Path | None:
        """The graph, once it is composed."""
        return None if self.folder is None else Path(self.folder.name) / MODEL


_files: dict[str, _File] = {}
_listing = threading.Lock()


@contextmanager
def composed(storage: Storage, scratch: Path, row: ModelVersion) -> Iterator[Path]:
    """A version's `model.onnx`: images -> probabilities and features; there for as long as the block lasts.

    Raises:
        Overloaded: others are composed, or downloaded.
        OutOfSpace: there is no room for it.
        BundleError: the version's graphs are not those that its spec names.
    """
    file = _used(row)
    try:
        yield file.path or _made(file, storage, scratch, row)
    except OSError as error:
        raise out_of_space(error) from error
    finally:
        _left(file, row.id)


def _used(row: ModelVersion) -> _File:
    """The version's file, which has one user more."""
    with _listing:
        file = _files.get(row.id)
        if file is None:
            mine = sum(other.project == row.project_id for other in _files.values())
            if len(_files) >= NUM_FILES or mine >= NUM_FILES_EACH:
                raise Overloaded(
                    f"expected downloads of fewer than {NUM_FILES_EACH} versions of a project, and of {NUM_FILES} in "
                    f"all, at once; found {mine} and {len(_files)}; end one, or send it again in a moment",
                    retry_after_seconds=RETRY_SECONDS,
                )
            file = _files[row.id] = _File(row.project_id)
        file.num_users += 1
        return file


def _made(file: _File, storage: Storage, scratch: Path, row: ModelVersion) -> Path:
    """Composes the graph; of several that want it at once the first one does."""
    spec = Spec.model_validate(row.spec)
    head, backbone = (stored.fetch(storage, row.prefix, spec, name) for name in (bundle.HEAD, bundle.BACKBONE))
    # Whoever waits for this version takes no place of another.
    with in_line(), file.making:
        if file.path is None:
            scratch.mkdir(parents=True, exist_ok=True)
            with place(), ExitStack() as undone:
                folder = tempfile.TemporaryDirectory(dir=scratch, prefix="composed-")
                undone.callback(folder.cleanup)
                (Path(folder.name) / MODEL).write_bytes(bundle.model_bytes(spec, head, backbone))
                undone.pop_all()
            file.folder = folder
    assert file.path is not None
    return file.path


def _left(file: _File, version_id: str) -> None:
    """One user less; the last one takes the file away."""
    with _listing:
        file.num_users -= 1
        if file.num_users:
            return
        del _files[version_id]
    if file.folder is not None:
        file.folder.cleanup()


def in_line() -> AbstractContextManager[None]:
    """One of those that compose, or wait for it.

    Raises:
        Overloaded: too many do already.
    """
    return _one_of(_line, 0, f"that many, and {NUM_WAITING} that wait")


def place() -> AbstractContextManager[None]:
    """One of few that compose; waits for it a little.

    Raises:
        Overloaded: none is free in that time.
    """
    return _one_of(_places, WAIT_SECONDS, f"that many for {WAIT_SECONDS:g} s")


@contextmanager
def _one_of(free: threading.Semaphore, seconds: float, full: str) -> Iterator[None]:
    if not free.acquire(timeout=seconds):
        raise Overloaded(
            f"expected fewer than {NUM_AT_ONCE} graphs to be composed at once; found {full}; send it again in a moment",
            retry_after_seconds=RETRY_SECONDS,
        )
    try:
        yield
    finally:
        free.release()
