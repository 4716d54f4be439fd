"""What the prediction log says of a request, and where: one row for each image, in a folder for each model and day.

Shape legend: N images of a request, C classes.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.artifact.precisions import FLOAT, Precision
from app.db.base import new_id
from app.serving import best
from app.serving.call import Images

ROOT = "predictions"
# Classes of an image that are written, best first.
TOP = 5

Files = Sequence[bytes] | Sequence[None]


@dataclass(frozen=True, slots=True)
class Policy:
    """What of a model's predictions is written down.

    Args:
        project: the model's.
        model_id: likewise.
        model: its name.
        share: of the requests.
        images: whether their bytes are kept too.
    """

    project: str
    model_id: str
    model: str
    share: float
    images: bool

    @property
    def prefix(self) -> str:
        """Where the model's files lie."""
        return prefix(self.project, self.model_id)


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """A request that may be written down.

    Args:
        images: as `files` has them.
        version: that answers.
        labels: of its classes.
        alias: by which it was asked; None for the default, or a version.
        domain: likewise.
        alignment: what the features passed through.
        request_id: of the request.
        precision: of the graph that answers.
        first: place that the first of the images has in its request.
    """

    images: Files
    version: int
    labels: tuple[str, ...]
    alias: str | None
    domain: str | None
    alignment: str | None
    request_id: str | None
    precision: Precision = FLOAT
    first: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """A request that is written down, and what was answered at that moment (UTC)."""

    policy: Policy
    asked: Asked
    probabilities_NC: NDArray[np.float32]
    at: datetime


def files(images: Images) -> Files:
    """What of a request's images can be hashed and kept: files as they came; None for each that came as pixels."""
    return [None] * len(images) if isinstance(images, np.ndarray) else images


def schema() -> Any:
    """Columns of a file, one row for each image; those that a dataset of images needs are named as there."""
    import pyarrow as pa

    text = pa.string()
    return pa.schema(
        [
            ("id", text),
            ("at", pa.timestamp("us", "UTC")),
            ("request_id", text),
            ("index", pa.int32()),
            ("model", text),
            ("version", pa.int32()),
            ("alias", text),
            ("domain", text),
            ("alignment", text),
            ("precision", text),
            ("predicted", text),
            ("score", pa.float32()),
            ("scores", pa.list_(pa.struct([("label", text), ("score", pa.float32())]))),
            ("sha256", text),
            ("image", pa.struct([("bytes", pa.binary()), ("path", text)])),
        ]
    )


def prefix(project: str, model_id: str) -> str:
    """Where a model's files lie, in a folder for each day."""
    return f"{ROOT}/{project}/{model_id}"


def rows(record: Record) -> list[dict[str, Any]]:
    """Its images, one row each, by the columns of `schema`."""
    policy, asked = record.policy, record.asked
    shared = {
        "at": record.at,
        "request_id": asked.request_id,
        "model": policy.model,
        "version": asked.version,
        "alias": asked.alias,
        "domain": asked.domain,
        "alignment": asked.alignment,
        "precision": asked.precision,
    }
    found = []
    for index, (data, row_C) in enumerate(zip(asked.images, record.probabilities_NC, strict=True), asked.first):
        sha256 = None if data is None else hashlib.sha256(data).hexdigest()
        said = best.rank(row_C, asked.labels, TOP, None)
        found.append(
            {
                **shared,
                "id": new_id("prd"),
                "index": index,
                "predicted": said.label,
                "score": said.score,
                "scores": said.scores,
                "sha256": sha256,
                "image": {"bytes": data, "path": sha256} if policy.images and data is not None else None,
            }
        )
    return found
