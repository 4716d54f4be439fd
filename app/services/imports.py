"""Versions from elsewhere: a bundle that another Graft made is judged, and only then stored and published.

Nothing of it is believed that can be looked at (decision 0020). What cannot, its metrics, its report and where it came
from, is kept as what the other side says.
"""

import math
import re
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app import bodies, failpoints, limited, texts
from app.artifact import archive, bundle
from app.artifact import spec as specs
from app.artifact.precisions import FLOAT
from app.artifact.preprocess import INTERPOLATIONS
from app.artifact.spec import BundleError, File, Spec
from app.db.base import new_id
from app.errors import BadRequest, NotFound, Overloaded
from app.services.publications import NewVersion
from app.services.waste import Reserved
from app.serving.providers import CPU
from app.serving.runtime import BATCH_SIZE, bytes_per_pixel
from app.storage import Storage, out_of_space

CHILD = "app.serving.admission_child"
SECONDS = 300
# Weights are read, checked, loaded and packed for the kernels.
FILE_COPIES = 5
HEADROOM_BYTES = 2**30
MAX_SIDE = 2048
# Of spec.json, which becomes objects here, is kept in the row, and is read with it. They are for tens of thousands of
# classes with long names, or for a thousand that are told by hundreds of numbers each.
MAX_SPEC_BYTES = 8 * 2**20
MAX_SPEC_VALUES = 500_000
NUM_AT_ONCE = 2
RETRY_SECONDS = 5
NAMES = frozenset({bundle.SPEC, *bundle.FILES})
NETWORK = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
DIGEST = re.compile(r"[0-9a-f]{64}")

_places = threading.BoundedSemaphore(NUM_AT_ONCE)


@dataclass(frozen=True, slots=True)
class Judged:
    """A bundle that may become a version.

    Args:
        spec: with this store's key of a shared graph.
        folder: where its files are.
        checks: what `admission.Checks` has.
    """

    spec: Spec
    folder: Path
    checks: dict[str, Any]


@contextmanager
def judged(storage: Storage, scratch: Path, upload: Path) -> Iterator[Judged]:
    """The bundle in an upload, unpacked for as long as the block lasts.

    Raises:
        BadRequest: with a code that docs/errors.md explains; nothing is left of it.
        Overloaded: others are looked at.
        OutOfSpace: there is no room to unpack it.
    """
    if not _places.acquire(blocking=False):
        raise Overloaded(
            f"expected fewer than {NUM_AT_ONCE} imports at once; found that many; send it again in a moment",
            retry_after_seconds=RETRY_SECONDS,
        )
    try:
        scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=scratch, prefix="bundle-") as name:
            folder = Path(name)
            yield _judge(storage, upload, folder)
    except OSError as error:
        raise out_of_space(error) from error
    finally:
        _places.release()


def store(storage: Storage, found: Judged, project: str, size_bytes: int, reserved: Reserved) -> NewVersion:
    """Puts the bundle under a reserved prefix of its own; whoever calls gives it back unless a row names it.

    It is reserved with `size_bytes`, which it takes of what the project may store.

    A shared graph is stored once: what a job or another bundle has brought already is not stored again. It has no
    reservation, since somebody else may have found it by then: `shared.tried` takes it away where nothing names it.
    """
    version_id = new_id("ver")
    prefix = f"bundles/{project}/{version_id}/imported"
    described = found.spec
    with reserved(prefix, size_bytes):
        (found.folder / bundle.SPEC).write_bytes(specs.dump(described))
        for name, file in described.files.items():
            if file.key is None:
                storage.put(f"{prefix}/{name}", found.folder / name)
            elif storage.stat(file.key) is None:
                storage.put(file.key, found.folder / name)
            failpoints.reach("import_file_stored")
        storage.put(f"{prefix}/{bundle.SPEC}", found.folder / bundle.SPEC)
        failpoints.reach("import_stored")
    return NewVersion(version_id, prefix, specs.document(described))


def _judge(storage: Storage, upload: Path, folder: Path) -> Judged:
    names = archive.unpack(upload, folder, NAMES)
    described = _spec(folder, names)
    try:
        bundle.verify(folder, {bundle.BACKBONE: folder / bundle.BACKBONE})
    except BundleError as error:
        raise BadRequest(error.detail, code="bundle_invalid") from error
    checks = _ask(folder, described)
    files = dict(described.files)
    if files[bundle.BACKBONE].key is not None:
        files[bundle.BACKBONE] = _shared(storage, described)
    return Judged(described.model_copy(update={"files": files}), folder, checks)


def _spec(folder: Path, names: list[str]) -> Spec:
    """The spec, where it is one that this Graft reads and whose words can be stored.

    Raises:
        BadRequest: code bundle_invalid, bundle_too_new or unsupported_task.
    """
    if bundle.SPEC not in names:
        raise _invalid(f"{bundle.SPEC} in the bundle; found none")
    try:
        described = specs.load(_bounded(folder / bundle.SPEC))
    except BundleError as error:
        raise BadRequest(error.detail, code=error.code) from error
    except RecursionError as error:
        raise _invalid(f"{bundle.SPEC} without deep nesting; found too many brackets") from error
    shape = described.preprocess
    if described.task != "classification" or not described.labels:
        raise _invalid(f"a classifier with labels; found task {described.task} with {len(described.labels)} labels")
    sides = (shape.height, shape.width, shape.resize)
    if len(described.inputs) != 1 or not all(1 <= side <= MAX_SIDE for side in sides):
        raise _invalid(
            f"one input of images with sides of 1 to {MAX_SIDE} pixels; found {len(described.inputs)}: {sides}"
        )
    if shape.interpolation not in INTERPOLATIONS:
        raise _invalid(f"an interpolation of {', '.join(INTERPOLATIONS)}; found another one")
    if not NETWORK.fullmatch(described.backbone.name) or not DIGEST.fullmatch(described.backbone.digest):
        raise _invalid("a backbone named PROVIDER/NAME with the sha256 of its weights; found other text")
    if any(file.key is not None for name, file in described.files.items() if name != bundle.BACKBONE):
        raise _invalid(f"no shared file but {bundle.BACKBONE}; found another one with a key")
    if not _storable(specs.document(described)):
        raise _invalid(
            f"text and finite numbers in {bundle.SPEC}, as the database can hold them; found a NUL character, half a "
            "surrogate pair, NaN or infinity"
        )
    return described


def _bounded(path: Path) -> bytes:
    """The text of a spec that is not too large to be parsed: as objects, empty lists take forty times their text.

    Raises:
        BadRequest: code bundle_invalid.
    """
    size_bytes = path.stat().st_size
    if size_bytes > MAX_SPEC_BYTES:
        raise _invalid(f"{bundle.SPEC} of at most {MAX_SPEC_BYTES} bytes; found {size_bytes}")
    data = path.read_bytes()
    if (number := bodies.num_values(data)) > MAX_SPEC_VALUES:
        raise _invalid(f"{bundle.SPEC} of at most {MAX_SPEC_VALUES} values; found {number} commas and brackets")
    return data


def _storable(value: Any) -> bool:
    """Whether every database takes the text and the numbers in a document."""
    if isinstance(value, str):
        return texts.is_storable(value)
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(_storable(part) for pair in value.items() for part in pair)
    return not isinstance(value, list) or all(map(_storable, value))


def _ask(folder: Path, described: Spec) -> dict[str, Any]:
    """What the child says, which is text of a process that a stranger's file has gone through.

    Raises:
        BadRequest: it refuses the bundle, or did not come to an end.
    """
    size_bytes = sum(file.size_bytes for file in described.files.values())
    pixels = BATCH_SIZE * described.preprocess.height * described.preprocess.width
    activations = sum(pixels * bytes_per_pixel(precision, CPU) for precision in (FLOAT, *described.second))
    try:
        answer = limited.ask(
            CHILD, [str(folder.absolute())], FILE_COPIES * size_bytes + activations + HEADROOM_BYTES, SECONDS
        )
    except limited.Ended as error:
        raise BadRequest(
            f"expected a bundle whose graphs load and run within bounds; found that {error}; publish a smaller model",
            code="import_too_costly",
        ) from error
    match answer:
        case {"code": str(code), "detail": str(detail)} if re.fullmatch("[a-z_]{1,40}", code):
            raise BadRequest(detail, code=code)
        case {"num_images": int(), "head_max_abs": float(), "num_predictions": int()}:
            return answer
    raise BadRequest("expected an answer about the bundle; found none; download it again", code="import_too_costly")


def _shared(storage: Storage, described: Spec) -> File:
    """Where the shared graph lies: with the jobs' own, where those have the same one, else under its own digest.

    Never under the digest that the bundle claims for its weights: jobs here would take it for theirs.
    """
    file = described.files[bundle.BACKBONE]
    ours = bundle.shared_key(described.backbone.digest)
    try:
        if bundle.entry(storage.fetch(ours)).sha256 == file.sha256:
            return file.model_copy(update={"key": ours})
    except NotFound:
        return file.model_copy(update={"key": bundle.shared_key(file.sha256)})
    return file.model_copy(update={"key": bundle.shared_key(file.sha256)})


def _invalid(words: str) -> BadRequest:
    return BadRequest(f"expected {words}; publish the model again", code="bundle_invalid")
