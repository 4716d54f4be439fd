"""Models as the Open Inference Protocol describes them: documents that are the same over HTTP and over gRPC."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy.orm import Session

from app import VERSION
from app.artifact.spec import Spec
from app.db.models import ModelVersion
from app.services import models
from app.services.predictions import Found, Lookup, Opened
from app.serving.engine import Engine
from app.serving.tally import Counters, Duration, Tally

NAME = "graft"
READY = "READY"
PLATFORM = "onnx_onnxv1"
BACKEND = "onnxruntime"
EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "parameters",
    "statistics",
)
CONFIG_TYPES = {"BYTES": "TYPE_STRING", "UINT8": "TYPE_UINT8", "FP32": "TYPE_FP32"}


def server() -> dict[str, Any]:
    """Who answers."""
    return {"name": NAME, "version": VERSION, "extensions": list(EXTENSIONS)}


def metadata(session: Session, project: str, name: str, found: Found) -> dict[str, Any]:
    """The tensors that a version takes and gives, and which versions there are."""
    inputs, outputs = _tensors(found.model.spec)
    return {
        "name": name,
        "versions": [str(row.version) for row in _versions(session, project, name)],
        "platform": PLATFORM,
        "inputs": inputs,
        "outputs": outputs,
    }


def config(name: str, found: Found) -> dict[str, Any]:
    """A version's configuration. The first dimension is one of the tensors' own, so `max_batch_size` is 0."""
    spec = found.model.spec
    inputs, outputs = _tensors(spec)
    parameters = {"labels": json.dumps(spec.labels, ensure_ascii=False), "task": spec.task}
    return {
        "name": name,
        "platform": PLATFORM,
        "backend": BACKEND,
        "version_policy": {"all": {}},
        "max_batch_size": 0,
        # Optional, since a request brings one of the two.
        "input": [{**_configured(tensor), "format": "FORMAT_NONE", "optional": True} for tensor in inputs],
        "output": [_configured(tensor) for tensor in outputs],
        "parameters": {key: {"string_value": value} for key, value in parameters.items()},
    }


def index(session: Session, project: str, opened: Opened, engine: Engine) -> list[dict[str, str]]:
    """Every version of every model.

    Ready is all that has not failed here: one that is not in memory is loaded, and tried, by the first who calls it.
    """
    rows = []
    for name, number, version_id in models.every_version(session, project):
        known = opened.known(version_id)
        reason = engine.trials.failure(known) if known else None
        state = "UNAVAILABLE" if reason else READY
        rows.append({"name": name, "version": str(number), "state": state, "reason": reason or ""})
    return rows


def statistics(
    session: Session, project: str, total: Tally, name: str | None = None, number: int | None = None
) -> dict[str, Any]:
    """Counters of all models, of one, or of one version.

    Raises:
        NotFound: no such model or version.
    """
    if name is None:
        rows = models.every_version(session, project)
    else:
        found = [models.version(session, project, name, number)] if number else _versions(session, project, name)
        rows = [(name, row.version, row.id) for row in found]
    return {"model_stats": [_counted(of, version, total.of(version_id)) for of, version, version_id in rows]}


def unload(session: Session, project: str, name: str, lookup: Lookup, engine: Engine) -> None:
    """Takes a model's graphs out of memory, but for those that another model needs. It can still be called.

    Raises:
        NotFound: no such model.
    """
    for digest in lookup.forget([row.id for row in _versions(session, project, name)]):
        engine.unload(digest)


def _versions(session: Session, project: str, name: str) -> Sequence[ModelVersion]:
    """A model's versions, oldest first."""
    model = models.get(session, project, name)
    return models.versions(session, [model.id])[model.id][::-1]


def _tensors(spec: Spec) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Inputs, of which a request has one, and outputs."""
    prepared = spec.preprocess
    inputs = [_tensor("encoded", "BYTES", -1), _tensor("images", "UINT8", -1, prepared.height, prepared.width, 3)]
    outputs = [
        _tensor("probabilities", "FP32", -1, len(spec.labels)),
        _tensor("features", "FP32", -1, spec.backbone.feature_dim),
    ]
    return inputs, outputs


def _tensor(name: str, datatype: str, *shape: int) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": list(shape)}


def _configured(tensor: dict[str, Any]) -> dict[str, Any]:
    return {"name": tensor["name"], "data_type": CONFIG_TYPES[tensor["datatype"]], "dims": tensor["shape"]}


def _counted(name: str, number: int, counters: Counters) -> dict[str, Any]:
    stages = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output")
    durations = {key: asdict(getattr(counters, key)) for key in stages}
    # Clients read these too; nothing is answered from a cache.
    durations |= {key: asdict(Duration()) for key in ("cache_hit", "cache_miss")}
    return {
        "name": name,
        "version": str(number),
        "last_inference": counters.last_inference_ms,
        "inference_count": counters.inference_count,
        "execution_count": counters.execution_count,
        "inference_stats": durations,
    }
