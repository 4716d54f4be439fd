"""`spec.json`: what a bundle is, in frozen types; the contract between the worker that writes and the API that serves.

A reader refuses what it does not know (extra fields, a newer version), so that a model is never served half understood.
"""

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal, Self

from pydantic import AwareDatetime, BaseModel, Field, JsonValue, ValidationError, model_validator

from app.artifact.fields import STRICT, Count, FileName, Sha256, Text
from app.artifact.precisions import FP16, INT8, SECOND, Second, SecondGraph
from app.artifact.preprocess import VERSION as PREPROCESS_VERSION
from app.artifact.preprocess import Preprocess
from app.errors import BadRequest, GraftError

# What older readers understand is written for them: 1 is one graph, 2 has one in 8 bits, 3 one in half precision.
SPEC_VERSION = 3
MAX_PROBLEMS, MAX_PROBLEM_CHARS = 20, 1000
RESERVED_TASKS = ("detection", "text_", "audio_")

# Provider of a network that learned from its dataset alone; no catalogue has one of that name.
FROM_SCRATCH = "scratch"

# What head.onnx is, for those who change it: a class is added to some kinds by surgery.
HeadKind = Literal["linear", "cosine", "neighbours", "text", "network"]


class BundleError(GraftError):
    """A stored bundle cannot be used: bundle_invalid (damaged or inconsistent) or bundle_too_new."""

    status = 500
    code = "bundle_invalid"
    title = "Bundle cannot be used"


class Input(BaseModel):
    """One input of the graph and how a caller's bytes become it; `None` in `shape` is a dynamic axis."""

    model_config = STRICT

    name: Text
    modality: Literal["image"]
    dtype: Literal["uint8"]
    shape: tuple[Count | None, ...]
    preprocessing: Preprocess

    @model_validator(mode="after")
    def _shape_is_what_preprocessing_gives(self) -> Self:
        expected = (None, self.preprocessing.height, self.preprocessing.width, 3)
        if self.shape != expected:
            raise ValueError(f"expected shape {expected} from the preprocessing; found {self.shape}")
        return self


class Output(BaseModel):
    """One output of the graph."""

    model_config = STRICT

    name: Text
    dtype: Literal["float32"]
    shape: tuple[Count | None, ...]


class Dataset(BaseModel):
    """The data that the model was made from; `splits` counts samples."""

    model_config = STRICT

    id: Text
    digest: Text
    splits: dict[str, Count]


class Backbone(BaseModel):
    """The network under the head; `digest` is that of the weights it came from."""

    model_config = STRICT

    name: Text
    digest: Text
    licence: str
    feature_dim: int = Field(gt=0)

    @property
    def is_from_scratch(self) -> bool:
        """Whether there are no pretrained weights under the head."""
        return self.name.partition("/")[0] == FROM_SCRATCH


class File(BaseModel):
    """One file of the bundle; with a `key` it lies once in the store under that key, shared by many bundles."""

    model_config = STRICT

    sha256: Sha256
    size_bytes: Count
    key: Text | None = None


@dataclass(frozen=True, slots=True)
class Parity:
    """How far the published graph's probabilities are from the training side's, on the same images.

    Args:
        max_abs: largest absolute difference of one probability; NaN when either side is not finite.
        num_samples: images compared.
        tolerance: largest difference accepted.
    """

    max_abs: float
    num_samples: int
    tolerance: float

    @property
    def ok(self) -> bool:
        """Within tolerance; NaN is not."""
        return self.max_abs <= self.tolerance


class Added(BaseModel):
    """A class that was put into a finished head, and the version that it was put into.

    Args:
        label: the new class.
        model: the base's name when it was made.
        version: of the base.
        num_images: different ones, that the class was made from.
        how: the rule that made it, see `surgery`.
    """

    model_config = STRICT

    label: Text
    model: Text
    version: int = Field(ge=1)
    num_images: int = Field(ge=1)
    how: Literal["centroid", "imprinted", "neighbours"]


class Spec(BaseModel):
    """Everything that a server, a reader or a later job needs to know about one model version."""

    model_config = STRICT

    spec_version: Literal[1, 2, 3] = 1
    task: Literal["classification", "multi_label", "regression", "multi_task"]
    inputs: tuple[Input, ...] = Field(min_length=1)
    outputs: tuple[Output, ...] = Field(min_length=1)
    labels: tuple[str, ...]
    head: HeadKind = "linear"
    recipe: dict[str, JsonValue]
    seed: int
    dataset: Dataset | None
    source: Dataset | None = None
    backbone: Backbone
    libraries: dict[str, str]
    metrics: dict[str, int | float | None]
    calibrated: bool
    temperature: float = Field(default=1.0, gt=0)
    files: dict[FileName, File] = Field(default_factory=dict)
    parity: Parity
    added: Added | None = None
    int8: SecondGraph | None = None
    fp16: SecondGraph | None = None
    created_at: AwareDatetime

    @model_validator(mode="after")
    def _outputs_fit_labels_and_backbone(self) -> Self:
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("expected distinct labels; found one twice")
        widths = {output.name: output.shape[-1] if output.shape else None for output in self.outputs}
        expected = {"features": self.backbone.feature_dim}
        if self.task == "classification":
            expected["probabilities"] = len(self.labels)
        for name, width in expected.items():
            if widths.get(name) != width:
                raise ValueError(f"expected an output {name!r} of width {width}; found {widths}")
        return self

    @model_validator(mode="after")
    def _added_class_is_the_last(self) -> Self:
        if self.added is not None and self.labels[-1] != self.added.label:
            raise ValueError(f"expected the added class {self.added.label!r} as the last label; found {self.labels}")
        return self

    @model_validator(mode="after")
    def _version_is_that_of_its_graphs(self) -> Self:
        expected = version_of(self.second)
        if self.spec_version != expected:
            told = ", ".join(self.second) or "one graph"
            raise ValueError(f"expected spec_version {expected} with {told}; found {self.spec_version}")
        return self

    @property
    def second(self) -> dict[Second, SecondGraph]:
        """What is said of each second graph that the version has."""
        told: dict[Second, SecondGraph | None] = {INT8: self.int8, FP16: self.fp16}
        return {precision: one for precision, one in told.items() if one is not None}

    @property
    def preprocess(self) -> Preprocess:
        """How the first input's images are prepared."""
        return self.inputs[0].preprocessing


def version_of(second: Collection[Second]) -> Literal[1, 2, 3]:
    """The `spec_version` of a bundle with these second graphs."""
    return 3 if FP16 in second else 2 if INT8 in second else 1


def image_input(preprocess: Preprocess) -> Input:
    """The input that every image model has: `images` uint8 [N, H, W, 3]."""
    shape = (None, preprocess.height, preprocess.width, 3)
    return Input(name="images", modality="image", dtype="uint8", shape=shape, preprocessing=preprocess)


def classification_outputs(num_classes: int, feature_dim: int) -> tuple[Output, Output]:
    """The outputs of a classifier: `probabilities` [N, C] and `features` [N, D]."""
    return (
        Output(name="probabilities", dtype="float32", shape=(None, num_classes)),
        Output(name="features", dtype="float32", shape=(None, feature_dim)),
    )


def document(spec: Spec) -> dict[str, Any]:
    """Spec -> what stands in `spec.json` and in the version's row; second graphs only where there are such."""
    return spec.model_dump(mode="json", exclude=set[str](SECOND) - spec.second.keys())


def dump(spec: Spec) -> bytes:
    """Spec -> the text of `spec.json`: fields in their order, so that equal specs give equal bytes."""
    return (json.dumps(document(spec), indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def load(data: bytes) -> Spec:
    """The text of `spec.json` -> Spec.

    Raises:
        BundleError: not JSON, fields missing or unknown (bundle_invalid), or written by a newer Graft (bundle_too_new).
        BadRequest: with code unsupported_task, for a task that is reserved but not built.
    """
    try:
        document = json.loads(data)
    except ValueError as error:
        raise BundleError(f"expected spec.json to hold JSON; found {error}; publish the model again") from error
    version = document.get("spec_version") if isinstance(document, dict) else None
    if type(version) is not int:
        raise BundleError(f"expected spec.json to hold a whole number spec_version; found {repr(version)[:40]}")
    if version > SPEC_VERSION:
        raise BundleError(
            f"expected spec_version up to {SPEC_VERSION}; found {version}, written by a newer Graft; upgrade this one",
            code="bundle_too_new",
        )
    task = document.get("task")
    if isinstance(task, str) and task.startswith(RESERVED_TASKS):
        raise BadRequest(
            f"expected one of classification, multi_label, regression, multi_task; found task {task[:40]!r}, "
            "which this version cannot serve; choose another model",
            code="unsupported_task",
        )
    try:
        spec = Spec.model_validate_json(data)
    except ValidationError as error:
        raise BundleError(f"expected a valid spec.json; found {_problems(error)}; publish the model again") from error
    newest = max(item.preprocessing.version for item in spec.inputs)
    if newest > PREPROCESS_VERSION:
        raise BundleError(
            f"expected preprocessing version up to {PREPROCESS_VERSION}; found {newest}, written by a newer Graft; "
            "upgrade this one",
            code="bundle_too_new",
        )
    return spec


def of_row(told: Any) -> Spec:
    """What a version's row says of it -> Spec: the same as its `spec.json`, which is only read where files are moved.

    Raises:
        BundleError: as `load`.
    """
    return load(json.dumps(told).encode())


def _problems(error: ValidationError) -> str:
    """Where it is wrong and how; of a stranger's file no more than can be read, since each place takes a kilobyte."""
    if error.error_count() > MAX_PROBLEMS:
        return f"{error.error_count()} problems"
    found = [f"{'.'.join(map(str, item['loc'])) or 'spec'}: {item['msg']}" for item in error.errors()]
    return "; ".join(found)[:MAX_PROBLEM_CHARS]
