"""What a bundle from outside must be, beyond its hashes: graphs that run, files that say the same, finite numbers.

Everything here opens a stranger's file. It runs in the limited child of `admission_child`, never in the API process.

Shape legend: N images, D features, C classes, T stored test items.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.artifact import bundle, foreign, graph, reference, sample, scores, seen, stored, tensors
from app.artifact.precisions import FLOAT, WORDS, Precision, Second
from app.artifact.spec import BundleError, Spec
from app.bodies import why_no_json
from app.errors import BadImage, BadRequest
from app.serving import admission_tables, trial
from app.serving.admission_tables import unlike
from app.serving.runtime import BATCH_SIZE, Session, failures

ARRAYS = (bundle.WEIGHTS, bundle.FEATURES, bundle.SEEN, bundle.REFERENCE, bundle.SAMPLE, bundle.STATE)
# As when a version is made: the graph in float32 against its arrays in float64.
HEAD_TOLERANCE = 1e-3
# Of the mean difference: features are stored in half precision.
PREDICTIONS_TOLERANCE = 1e-2
SUM_TOLERANCE = 1e-3

# In what onnxruntime says when the bounds of its process are reached.
_NO_MEMORY = "Failed to allocate memory"

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Checks:
    """What was compared, and how far apart it was.

    Args:
        num_images: made-up ones that the graphs ran on.
        head_max_abs: the head's graph against weights.safetensors, on features of those images and the stored ones.
        num_predictions: of predictions.parquet that the head was asked for again, on their stored features.
        predictions_mean_abs: mean difference from them; None where there are none.
        sample_max_abs: both graphs against the scores of sample.safetensors; None where there is none.
    """

    num_images: int
    head_max_abs: float
    num_predictions: int
    predictions_mean_abs: float | None
    sample_max_abs: float | None = None


def judge(folder: Path, spec: Spec) -> Checks:
    """Looks at every file of a bundle whose hashes are right.

    Raises:
        BadRequest: code bundle_invalid, model_unreadable, model_external_data, model_custom_operators,
            weights_unreadable or weights_not_finite.
        MemoryError: it needs more than this process may have.
    """
    for name in (bundle.BACKBONE, bundle.HEAD, *bundle.SECOND.values()):
        if name in spec.files:
            foreign.check_importable(folder / name)
    arrays = {name: _arrays(folder / name) for name in ARRAYS if name in spec.files}
    _check_texts(folder)
    if bundle.SELECTION in spec.files:
        admission_tables.check_selection(folder, spec)
    if bundle.SEEN in arrays:
        _check_seen(arrays[bundle.SEEN])
    try:
        features_ND, backbone, head = _run(folder, spec)
        if bundle.REFERENCE in arrays:
            _check_reference(arrays[bundle.REFERENCE], spec)
        found = _compare(folder, spec, arrays, features_ND, head)
        second = {precision: _run_backbone(folder, spec, bundle.SECOND[precision])[1] for precision in spec.second}
        return replace(found, sample_max_abs=_try(arrays.get(bundle.SAMPLE), spec, backbone, second, head))
    except failures() as error:
        if _NO_MEMORY in str(error):
            raise MemoryError(str(error)) from error
        raise unlike(f"graphs that run; onnxruntime said {error}") from error
    except BundleError as error:
        raise unlike(f"graphs and files that can be read; {error.detail}") from error


def _arrays(path: Path) -> Arrays:
    with path.open("rb") as file:
        head = file.read(9)
    if head[8:9] != b"{":
        raise BadRequest(
            f"expected {path.name} to be safetensors; found bytes that start with {head[:8].hex(' ') or 'nothing'}; "
            "pickles and other formats are never opened; publish the model again",
            code="weights_unreadable",
        )
    try:
        found = tensors.load(path)
    except BundleError as error:
        raise BadRequest(error.detail, code="weights_unreadable") from error
    broken = sorted(name for name, array in found.items() if not np.isfinite(array).all())
    if broken:
        raise BadRequest(
            f"expected finite numbers in {path.name}; found NaN or infinity in {', '.join(broken[:5])}; train again",
            code="weights_not_finite",
        )
    return found


def _check_texts(folder: Path) -> None:
    try:
        report = json.loads((folder / bundle.REPORT).read_text("utf-8"), parse_constant=_no_number)
        (folder / bundle.README).read_text("utf-8")
    except (ValueError, RecursionError) as error:
        raise unlike(f"{bundle.REPORT} and {bundle.README} as text; {why_no_json(error)}") from error
    if not isinstance(report, dict):
        raise unlike(f"{bundle.REPORT} as an object; it is {type(report).__name__}")


def _no_number(word: str) -> float:
    raise ValueError(f"{word}, which is no JSON")


def _check_seen(arrays: Arrays) -> None:
    try:
        sets = seen.unpack(arrays)
        shapes = [(one.ids.shape, one.sha256.shape, one.phash.shape) for one in sets]
        kinds = {array.dtype for one in sets for array in (one.ids, one.sha256)}
    except (ValueError, KeyError, TypeError) as error:
        raise unlike(f"{bundle.SEEN} as Graft writes it; {error!r}") from error
    wanted = [((n, seen.ID_BYTES), (n, seen.DIGEST_BYTES), (n,)) for (n, *_), _, _ in shapes]
    if shapes != wanted or kinds - {np.dtype(np.uint8)} or {one.what for one in sets} - set(seen.KINDS):
        raise unlike(f"{bundle.SEEN} with ids, hashes and looks of each item; its arrays are {shapes}")


def _check_reference(arrays: Arrays, spec: Spec) -> None:
    try:
        reference.unpack(arrays, spec.backbone.feature_dim, len(spec.labels))
    except (ValueError, KeyError, TypeError) as error:
        raise unlike(f"{bundle.REFERENCE} as Graft writes it; {error!r}") from error


def _try(
    arrays: Arrays | None, spec: Spec, backbone: Session, second: Mapping[Second, Session], head: Session
) -> float | None:
    """What is asked of the version each time it is loaded; None without a sample that this Graft reads."""
    if arrays is None:
        for name in second:
            raise unlike(f"{bundle.SAMPLE} beside a graph in {WORDS[name]}; there is none")
        return None
    try:
        found = sample.unpack(arrays, spec.backbone.feature_dim, len(spec.labels))
        if found is None:
            return None
        graphs: list[tuple[Precision, Session]] = [(FLOAT, backbone), *second.items()]
        apart = {
            precision: trial.differences(found, spec.preprocess, session, head, precision)
            for precision, session in graphs
        }
    except (ValueError, KeyError, TypeError, BadImage) as error:
        raise unlike(f"{bundle.SAMPLE} as Graft writes it; {error!r}") from error
    for precision, one in apart.items():
        if not one.passes(precision):
            raise unlike(
                f"the graphs to say of the pictures in {bundle.SAMPLE} what is stored there; in {precision} features "
                f"are {one.features:.3g} and scores {one.scores:.3g} off, here, with this machine's libraries"
            )
    return max(apart[FLOAT])


def _run(folder: Path, spec: Spec) -> tuple[NDArray[np.float32], Session, Session]:
    """The graphs on made-up images: what they give has the shapes of the spec, and is finite.

    Shape:
        result: [N, D], and the sessions of backbone and head
    """
    num_features, num_classes = spec.backbone.feature_dim, len(spec.labels)
    features_ND, backbone = _run_backbone(folder, spec, bundle.BACKBONE)
    head = _open(folder, bundle.HEAD, ("features", (num_features,)), "probabilities")
    _run_fewer(head, features_ND)
    _check_probabilities(_checked("probabilities", head.run(features_ND)[0], (len(features_ND), num_classes)))
    return features_ND, backbone, head


def _run_backbone(folder: Path, spec: Spec, name: str) -> tuple[NDArray[np.float32], Session]:
    """One of the backbone's graphs, which all take and give the same."""
    shape = spec.preprocess
    session = _open(folder, name, ("images", (shape.height, shape.width, 3)), "features")
    noise = np.random.default_rng(0).integers(0, 256, (BATCH_SIZE - 1, shape.height, shape.width, 3), np.uint8)
    images_NHWC = np.concatenate([noise, np.zeros_like(noise[:1])])
    _run_fewer(session, images_NHWC)
    return _checked("features", session.run(images_NHWC)[0], (len(images_NHWC), spec.backbone.feature_dim)), session


def _run_fewer(session: Session, batch: NDArray[Any]) -> None:
    """A graph on each number of items below a full batch: its sizes may follow from that in any way, also downwards."""
    for number in range(1, len(batch)):
        session.run(batch[:number])


def _open(folder: Path, name: str, wanted: tuple[str, tuple[int, ...]], gives: str) -> Session:
    session = Session(folder / name, threads=1)
    given, takes = wanted
    fits = session.input_name == given and session.input_shape[1:] == takes
    if not fits or isinstance(session.input_shape[0], int) or session.output_names != (gives,):
        raise unlike(
            f"{name} with one input {given!r} [N, {', '.join(map(str, takes))}] and one output {gives!r}; it has "
            f"{session.input_name!r} {list(session.input_shape)} and {list(session.output_names)}"
        )
    return session


def _checked(name: str, found: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.float32]:
    if found.shape != shape or found.dtype != np.float32:
        raise unlike(f"{name} float32 {list(shape)} as the spec has them; the graph gave {found.dtype} {found.shape}")
    if not np.isfinite(found).all():
        raise unlike(f"finite {name}; the graph gave NaN or infinity")
    return found


def _check_probabilities(found_NC: NDArray[np.float32]) -> None:
    off = np.abs(found_NC.sum(axis=1, dtype=np.float64) - 1).max()
    if not (found_NC.min() >= 0 and off <= SUM_TOLERANCE):
        raise unlike("probabilities from 0 to 1 whose sum is 1; the head gave others")


def _compare(
    folder: Path,
    spec: Spec,
    arrays: Mapping[str, Arrays],
    features_ND: NDArray[np.float32],
    head: Session,
) -> Checks:
    """The head's graph against its arrays, and against what it said of the test items when it was made."""
    said = admission_tables.predictions(folder, spec)
    kept_TD, rows_T = _stored(spec, arrays, len(said.ids))
    asked_ND = np.concatenate([features_ND, kept_TD])
    found_NC = head.run(asked_ND)[0]
    _check_probabilities(found_NC)
    try:
        # A text head's arrays are those made for its classes; the classifier it asks first lies in its graph alone.
        known = {**graph.constants((folder / bundle.HEAD).read_bytes()), **arrays[bundle.WEIGHTS]}
        wanted_NC = scores.probabilities(spec.head, known, spec.temperature, asked_ND)
        head_max_abs = float(np.abs(found_NC - wanted_NC).max())
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise unlike(f"the arrays of a {spec.head} head in {bundle.WEIGHTS}; {error!r}") from error
    if not head_max_abs <= HEAD_TOLERANCE:
        raise unlike(
            f"{bundle.HEAD} to say what {bundle.WEIGHTS} says within {HEAD_TOLERANCE}; it is {head_max_abs:.3g} off"
        )
    mean_abs = None
    if len(rows_T):
        mean_abs = float(np.abs(found_NC[len(features_ND) :] - said.probabilities[rows_T]).mean())
        if not mean_abs <= PREDICTIONS_TOLERANCE:
            raise unlike(
                f"the head to say of stored test items what {bundle.PREDICTIONS} says, within {PREDICTIONS_TOLERANCE} "
                f"on average; it is {mean_abs:.3g} off"
            )
    return Checks(len(features_ND), head_max_abs, len(rows_T), mean_abs)


def _stored(
    spec: Spec, arrays: Mapping[str, Arrays], num_predictions: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Features of test items, and which rows of the predictions they are."""
    num_features = spec.backbone.feature_dim
    if bundle.FEATURES not in arrays:
        return np.empty((0, num_features), np.float32), np.empty(0, np.int64)
    try:
        kept_TD, labels_T, rows_T = stored.unpack(arrays[bundle.FEATURES])
    except (KeyError, ValueError) as error:
        raise unlike(f"{bundle.FEATURES} as Graft writes it; {error!r}") from error
    num = len(kept_TD)
    fit = kept_TD.shape == (num, num_features) and labels_T.shape == rows_T.shape == (num,) and num <= stored.MAX_ITEMS
    whole = labels_T.dtype == rows_T.dtype == np.int64
    inside = [
        not array.size or 0 <= int(array.min()) <= int(array.max()) < limit
        for array, limit in ((labels_T, len(spec.labels)), (rows_T, num_predictions))
        if whole
    ]
    if not (fit and whole and all(inside)):
        raise unlike(f"{bundle.FEATURES} with features, labels and rows of the test items")
    return kept_TD, rows_T
