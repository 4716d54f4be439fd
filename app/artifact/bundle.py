"""A bundle on disk: the files of one model version, their hashes in `spec.json`, and their verification.

`spec.json` is written last, so a folder that has one is whole. A frozen backbone's graph is not copied into the folder:
the spec names it by digest and storage key, and all models on it share one file and one session.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from app.artifact import graph, precisions, predicted, selection, spec, tensors
from app.artifact.precisions import Second
from app.artifact.predicted import Predictions
from app.artifact.selection import SelectionPredictions
from app.artifact.spec import BundleError, File, Spec

SPEC = "spec.json"
HEAD = "head.onnx"
BACKBONE = "backbone.onnx"
# The same network in other precisions, for whoever asks for them; fitted to the job's images, and so never shared.
SECOND: dict[Second, str] = {precision: f"backbone.{precision}.onnx" for precision in precisions.SECOND}
REPORT = "report.json"
PREDICTIONS = "predictions.parquet"
# What the verdicts of the report stand on; see `selection`.
SELECTION = "selection.parquet"
WEIGHTS = "weights.safetensors"
README = "README.md"
FEATURES = "features.safetensors"
# What the version learned from, item by item; see `seen`.
SEEN = "seen.safetensors"
# How features and scores of held-out items are spread; see `reference`.
REFERENCE = "reference.safetensors"
# Pictures with known answers, that a version is tried on before it is ready; see `sample`.
SAMPLE = "sample.safetensors"
# The state dict of a network that the job changed, under its library's own names: what backbone.onnx was exported from.
STATE = "backbone.safetensors"
FILES = (
    HEAD,
    REPORT,
    PREDICTIONS,
    SELECTION,
    WEIGHTS,
    README,
    FEATURES,
    SEEN,
    REFERENCE,
    SAMPLE,
    STATE,
    *SECOND.values(),
    BACKBONE,
)
# Bundles written before there was such a file are whole without it; only a changed network has a state of its own.
OPTIONAL = frozenset({SELECTION, FEATURES, SEEN, REFERENCE, SAMPLE, STATE, *SECOND.values()})


def write(
    folder: Path,
    described: Spec,
    *,
    head: bytes,
    weights: Mapping[str, NDArray[Any]],
    report: Mapping[str, Any],
    predictions: Predictions,
    readme: str,
    backbone: Path | File,
    selected: SelectionPredictions | None = None,
    features: Mapping[str, NDArray[Any]] | None = None,
    seen: Mapping[str, NDArray[Any]] | None = None,
    reference: Mapping[str, NDArray[Any]] | None = None,
    sample: Mapping[str, NDArray[Any]] | None = None,
    state: Path | None = None,
    second: Mapping[Second, Path] | None = None,
) -> Spec:
    """Writes every file of a bundle into an empty or new folder.

    Args:
        folder: one attempt's own; created when it is missing.
        described: the spec without `files`.
        head: the ONNX head.
        weights: the head's arrays before folding.
        report: the transfer report, JSON-ready.
        predictions: of the test items.
        readme: the model card.
        backbone: the graph's own file, copied in (a network that this job trained), or where the shared one is stored.
        selected: what the transfer and its baselines named of selection data, where there was some.
        features: what `stored.pack` makes of some of the predicted items, to score a changed head on.
        seen: what `seen.pack` makes of the items that were learned from.
        reference: what `reference.pack` makes of held-out items, to hold against what is served.
        sample: what `sample.pack` makes of the pictures that the version is tried on.
        state: a safetensors file with the weights behind `backbone`, where the job changed them.
        second: the graphs that `described.second` tells of.

    Returns:
        The spec as written, with `files`.

    Raises:
        ValueError: a report that is not JSON, predictions whose lengths differ, or a shared backbone without a key.
    """
    if isinstance(backbone, File) and backbone.key is None:
        raise ValueError("expected a storage key for a shared backbone; found none; give the file's path to copy it in")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / HEAD).write_bytes(head)
    (folder / WEIGHTS).write_bytes(tensors.dump(weights))
    (folder / REPORT).write_text(json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False) + "\n", "utf-8")
    (folder / README).write_text(readme, "utf-8")
    predicted.write(folder / PREDICTIONS, predictions, described.labels)
    if selected is not None:
        selection.write(folder / SELECTION, selected)
    for name, arrays in ((FEATURES, features), (SEEN, seen), (REFERENCE, reference), (SAMPLE, sample)):
        if arrays is not None:
            (folder / name).write_bytes(tensors.dump(arrays))
    for precision, path in (second or {}).items():
        shutil.copyfile(path, folder / SECOND[precision])
    if state is not None:
        shutil.copyfile(state, folder / STATE)
    if isinstance(backbone, Path):
        shutil.copyfile(backbone, folder / BACKBONE)
    files = {name: entry(folder / name) for name in FILES if (folder / name).is_file()}
    if isinstance(backbone, File):
        files[BACKBONE] = backbone
    written = Spec.model_validate({**dict(described), "files": files})
    (folder / SPEC).write_bytes(spec.dump(written))
    return written


def read(folder: Path) -> Spec:
    """The folder's spec.

    Raises:
        BundleError: there is none, or `spec.load` refuses it.
    """
    path = folder / SPEC
    if not path.is_file():
        raise BundleError(f"expected {SPEC} in the bundle; found none, so it is not finished; publish the model again")
    return spec.load(path.read_bytes())


def verify(folder: Path, shared: Mapping[str, Path] | None = None) -> Spec:
    """Checks that the folder holds exactly what its spec says, byte for byte.

    Args:
        folder: a bundle.
        shared: local copies of files that the spec gives a storage key, by name; those not given are not looked at.

    Raises:
        BundleError: with every file that is missing, changed or not listed.
    """
    found = read(folder)
    shared = shared or {}
    told = {SECOND[precision] for precision in found.second}
    problems = [f"{name} is not listed" for name in FILES if name not in (OPTIONAL - told) | found.files.keys()]
    problems += [
        f"{name} is listed, and nothing is said of it" for name in SECOND.values() if name in found.files.keys() - told
    ]
    problems += [
        f"{path.name} does not belong here"
        for path in sorted(folder.iterdir())
        if path.name != SPEC and path.name not in found.files
    ]
    for name, expected in found.files.items():
        path = shared.get(name) if expected.key else folder / name
        if path is not None:
            problems += _differences(name, path, expected)
    if problems:
        raise BundleError(f"expected the files of {SPEC}; found: {'; '.join(problems)}; restore or publish again")
    return found


def model_bytes(described: Spec, head: Path, backbone: Path) -> bytes:
    """`model.onnx`, composed when somebody downloads it: `images` -> `probabilities`, `features`.

    Args:
        described: the bundle's spec.
        head: local copy of its graph.
        backbone: likewise.

    Raises:
        BundleError: a graph is not here or not the one that the spec names, or they do not fit.
    """
    problems = [
        problem
        for name, path in ((BACKBONE, backbone), (HEAD, head))
        for problem in _differences(name, path, described.files[name])
    ]
    if problems:
        raise BundleError(f"expected the files of {SPEC}; found: {'; '.join(problems)}; restore or publish again")
    try:
        return graph.compose(backbone, head.read_bytes())
    except ValueError as error:
        raise BundleError(f"expected head and backbone to fit; {error}; publish again") from error


def entry(path: Path, key: str | None = None) -> File:
    """Hash and size of a file, as a spec lists them; `key` is its place in the store when it is shared."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return File(sha256=digest, size_bytes=path.stat().st_size, key=key)


def shared_key(digest: str) -> str:
    """Where a graph that many bundles share is stored.

    Args:
        digest: of the weights, for a frozen backbone's graph that a job here has proven; of the graph itself, for one
            that came from elsewhere.
    """
    return f"graphs/{digest}/backbone.onnx"


def _differences(name: str, path: Path, expected: File) -> list[str]:
    if not path.is_file():
        return [f"{name} is missing"]
    if path.stat().st_size != expected.size_bytes:
        return [f"{name} has {path.stat().st_size} bytes instead of {expected.size_bytes}"]
    return [] if entry(path).sha256 == expected.sha256 else [f"{name} has another content"]
