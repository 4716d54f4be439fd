"""Bundles as zips, whole ones and ones that were tampered with."""

import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy.orm import Session

from app.artifact import archive, bundle, reference, sample, seen, stored
from app.artifact.predicted import Predictions
from app.artifact.selection import TRANSFER, SelectionPredictions
from app.db.models import Model, ModelVersion
from app.storage import Storage
from tests import factories
from tests.app import onnx_factories, sample_factories

LABELS = ("cat", "dog", "owl")
Files = dict[str, bytes]


def publish(
    session: Session,
    storage: Storage,
    folder: Path,
    of: Model,
    number: int,
    labels: tuple[str, ...] = LABELS,
    described: dict[str, Any] | None = None,
    parts: dict[str, Any] | None = None,
    **fields: Any,
) -> ModelVersion:
    """A version with all that a bundle has: predictions and features of six items, and what is made of them."""
    weight_CD, bias_C = factories.head_weights(number, len(labels))
    features = onnx_factories.backbone_reference(onnx_factories.images(6)).astype(np.float32)
    probabilities = np.float32(onnx_factories.softmax(features @ weight_CD.T + bias_C))
    predicted = [labels[place] for place in probabilities.argmax(1)]
    ids = [f"{place:022d}" for place in range(6)]
    whole = {
        "predictions": Predictions(ids, ["0" * 64] * 6, [*predicted], predicted, ["test"] * 6, probabilities),
        "features": stored.pack(features, predicted, labels),
        "reference": reference.pack(reference.make(features, probabilities)),
        "sample": sample.pack(sample_factories.make(weight_CD, bias_C)),
        "selected": SelectionPredictions(ids, [*predicted], ["val"] * 6, {TRANSFER: [*predicted]}, "six items"),
        "seen": seen.pack([seen.of_class(labels[0], [b"\1" * 32])]),
        "report": {"verdict": None, "warnings": []},
    }
    return factories.published(
        session,
        storage,
        folder,
        of,
        number,
        labels=labels,
        parts={**whole, **(parts or {})},
        described={"temperature": 1.0, **(described or {})},
        **fields,
    )


def read(content: bytes) -> Files:
    with zipfile.ZipFile(io.BytesIO(content)) as zipped:
        return {name: zipped.read(name) for name in zipped.namelist()}


def pack(files: Files) -> bytes:
    return b"".join(archive.stream(files))


def edit_spec(bundled: Files, **fields: Any) -> Files:
    """With other fields in spec.json."""
    spec = {**json.loads(bundled[bundle.SPEC]), **fields}
    return {**bundled, bundle.SPEC: json.dumps(spec).encode()}


def replace(files: Files, name: str, content: bytes) -> Files:
    """With another file, whose hash stands in spec.json."""
    listed = json.loads(files[bundle.SPEC])["files"]
    entry = {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
    listed[name] = {"key": None, **listed.get(name, {}), **entry}
    return {**edit_spec(files, files=listed), name: content}
