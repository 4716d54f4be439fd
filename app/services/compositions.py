"""`model.onnx` as it goes out, backbone and head in one: made for each download, in a file, few at once.

Neither a client that reads slowly nor many at once may fill the memory: a graph is in it while it is composed, several
times over, and from then on in a file that goes with the answer.
"""

import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.artifact import bundle
from app.artifact.spec import Spec
from app.db.models import ModelVersion
from app.errors import Overloaded
from app.services import predictions
from app.storage import Storage, out_of_space

MODEL = "model.onnx"
NUM_AT_ONCE = 2
# Each has a thread meanwhile that other requests need, and a connection to the database.
NUM_WAITING = 6
WAIT_SECONDS = 5.0
RETRY_SECONDS = 5

_places = threading.BoundedSemaphore(NUM_AT_ONCE)
_line = threading.BoundedSemaphore(NUM_AT_ONCE + NUM_WAITING)


@contextmanager
def composed(storage: Storage, scratch: Path, row: ModelVersion) -> Iterator[Path]:
    """A version's `model.onnx`: images -> probabilities and features; there for as long as the block lasts.

    Raises:
        Overloaded: others are composed.
        OutOfSpace: there is no room for it.
        BundleError: the version's graphs are not those that its spec names.
    """
    spec = Spec.model_validate(row.spec)
    head, backbone = (predictions.file_path(storage, row.prefix, spec, name) for name in (bundle.HEAD, bundle.BACKBONE))
    try:
        scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=scratch, prefix="composed-") as folder:
            path = Path(folder) / MODEL
            with place():
                path.write_bytes(bundle.model_bytes(spec, head, backbone))
            yield path
    except OSError as error:
        raise out_of_space(error) from error


@contextmanager
def place() -> Iterator[None]:
    """One of few that compose; waits for it a little.

    Raises:
        Overloaded: none is free in that time, or too many wait already.
    """
    if not _line.acquire(blocking=False):
        raise _overloaded(f"that many, and {NUM_WAITING} that wait")
    try:
        if not _places.acquire(timeout=WAIT_SECONDS):
            raise _overloaded(f"that many for {WAIT_SECONDS:g} s")
        try:
            yield
        finally:
            _places.release()
    finally:
        _line.release()


def _overloaded(found: str) -> Overloaded:
    return Overloaded(
        f"expected fewer than {NUM_AT_ONCE} graphs to be composed at once; found {found}; send it again in a moment",
        retry_after_seconds=RETRY_SECONDS,
    )
