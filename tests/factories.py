"""Rows, bodies and images for tests: everything has a default, keywords override."""

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sqlalchemy.orm import Session

from app.artifact import alignment as alignments
from app.artifact import bundle, heads, tensors
from app.artifact import spec as specs
from app.artifact.predicted import Predictions
from app.db.alignments import Alignment
from app.db.base import new_id, now
from app.db.forecasts import ForecastRow
from app.db.models import Dataset, Job, Model, ModelVersion, Problem, Project, WorkerProcess
from app.db.studies import Advice
from app.db.uploads import Upload
from app.db.webhooks import Webhook, WebhookDelivery
from app.services import forecasts, jobs, outbox
from app.states import DatasetState, JobState
from app.storage import Storage
from app.webhooks import EVENTS, new_secret
from app.webhooks import body as webhook_body
from tests.app import onnx_factories

PROJECT = "default"
BACKBONE = "timm/tf_efficientnet_lite0"
COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 40, 220)}
SHARED_GRAPH = "graphs/tiny/backbone.onnx"
# What a recipe cannot begin without.
NEEDED = {"adapt": {"source": "ds_1"},
          "zero_shot": {"classes": ({"name": "a", "description": "b", "attributes": (1.0, 2.5)},
                                    {"name": "c", "description": None, "attributes": (0.0, 1.0)})}}  # fmt: skip
SPEC = {
    "task": "classification",
    "labels": ["blue", "red"],
    "files": {},
    "backbone": {"name": "timm/tiny", "digest": "tiny"},
}


def project(session: Session, name: str) -> str:
    """Another owner than `default`."""
    session.add(Project(id=name))
    session.flush()
    return name


def dataset(session: Session, **overrides: Any) -> Dataset:
    """A ready dataset of two classes."""
    fields = {
        "id": new_id("ds"),
        "project_id": PROJECT,
        "name": "colours",
        "task": "classification",
        "modality": "image",
        "state": DatasetState.READY,
        "seed": 0,
        "digest": hashlib.sha256(new_id("ds").encode()).hexdigest(),
        "num_samples": 20,
        "classes": [{"name": "blue", "num_samples": 10}, {"name": "red", "num_samples": 10}],
        "splits": {"train": 14, "val": 2, "test": 4},
    }
    return _added(session, Dataset(**{**fields, **overrides}))


def problem(session: Session, dataset_id: str, seq: int, **overrides: Any) -> Problem:
    """One finding."""
    fields = {"severity": "warning", "code": "duplicate", "path": f"{seq}.png", "message": "two", "fix": "remove one"}
    return _added(session, Problem(dataset_id=dataset_id, seq=seq, **{"project_id": PROJECT, **fields, **overrides}))


def job(session: Session, **overrides: Any) -> Job:
    """A job as `services.jobs.create` makes it, moved to the state that is asked for."""
    state = JobState(overrides.pop("state", JobState.QUEUED))
    owner = overrides.pop("project_id", PROJECT)
    direct = {name: overrides.pop(name) for name in list(overrides) if name not in jobs.NewJob.__dataclass_fields__}
    made = jobs.create(session, owner, jobs.NewJob(**{"kind": "transfer", "model_name": "colours", **overrides}))
    for step in _path(state):
        jobs.move(session, made, step)
    for name, value in direct.items():
        setattr(made, name, value)
    session.flush()
    return made


def upload(session: Session, **overrides: Any) -> Upload:
    """One that has begun, in storage nothing of it."""
    fields = {"via": "tus", "state": "receiving", "project_id": "default", "expires_at": now() + timedelta(days=1)}
    row: Upload = _added(session, Upload(**{"id": new_id("up"), **fields, **overrides}))
    return row


def model(session: Session, name: str = "colours", num_versions: int = 1, **overrides: Any) -> Model:
    """A model with versions 1 to n."""
    owner = overrides.pop("project_id", PROJECT)
    made = _added(session, Model(id=new_id("mdl"), project_id=owner, name=name, last_version=num_versions))
    for number in range(1, num_versions + 1):
        version(session, made, number, **overrides)
    return made


def version(session: Session, of: Model, number: int, **overrides: Any) -> ModelVersion:
    """One version, without files."""
    job_id = new_id("job")
    fields = {
        "id": new_id("ver"),
        "project_id": of.project_id,
        "job_id": job_id,
        "prefix": f"bundles/{of.project_id}/{job_id}/attempt-1",
        "spec": SPEC,
        "metrics": {"test_accuracy": 0.5},
    }
    return _added(session, ModelVersion(model_id=of.id, version=number, **{**fields, **overrides}))


def forecast(session: Session, **overrides: Any) -> ForecastRow:
    """What was expected of a transfer that has ended, and what it found."""
    told = {"expected": 0.8, "low": 0.7, "high": 0.9, "found": 0.8, "method": "linear_probe", "num_images": 100}
    made = job(session, state="succeeded")
    at = overrides.pop("created_at", None)
    forecasts.record(session, made, {"forecast": {**told, **overrides}})
    session.flush()
    row = session.get_one(ForecastRow, made.id)
    row.created_at = at or row.created_at
    return row


def worker(session: Session, **overrides: Any) -> WorkerProcess:
    """A worker that was seen just now."""
    fields = {"id": new_id("w"), "queues": ["cpu"], "device": "cpu", "backbones": [], "seen_at": now()}
    return _added(session, WorkerProcess(**{**fields, **overrides}))


def png(colour: tuple[int, int, int] = COLOURS["red"], seed: int = 0, size: int = 32) -> bytes:
    """A noisy picture of one colour with a shape of its own, so that no two are copies."""
    rng = np.random.default_rng(seed)
    pixels = np.clip(np.array(colour) + rng.integers(-30, 31, (size, size, 3)), 0, 255).astype(np.uint8)
    top, left = rng.integers(0, size // 2, 2)
    pixels[top : top + size // 3, left : left + size // 3] = rng.integers(0, 256, 3)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def pictures(num: int = 12, colours: Mapping[str, tuple[int, int, int]] = COLOURS, first: int = 0) -> dict[str, bytes]:
    """Class folders that anybody can learn: the colour is the class."""
    return {
        f"{name}/{number}.png": png(colour, seed=1000 * place + number)
        for place, (name, colour) in enumerate(colours.items())
        for number in range(first, first + num)
    }


def pack(files: Mapping[str, bytes]) -> bytes:
    """A zip; the same files give the same bytes, whenever it is made."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return out.getvalue()


def files_below(*folders: Path) -> list[str]:
    """Every file below the folders, of a service that may be taking some away."""
    # Not Path.rglob, which raises where a folder goes while it looks.
    return sorted(f"{place}/{name}" for folder in folders for place, _, names in os.walk(folder) for name in names)


def prepared(root: Path, name: str = BACKBONE) -> Path:
    """A folder of prepared backbones with a tiny graph under a name of the catalogue: a transfer takes a second."""
    digest = hashlib.sha256(name.encode()).hexdigest()
    folder = root / digest
    folder.mkdir(parents=True)
    (folder / "backbone.onnx").write_bytes(onnx_factories.backbone_bytes())
    weights = {"weight": np.zeros((onnx_factories.NUM_FEATURES, 3), np.float32)}
    (folder / "weights.safetensors").write_bytes(tensors.dump(weights))
    record = {
        "name": name,
        "architecture": name.partition("/")[2],
        "digest": digest,
        "feature_dim": onnx_factories.NUM_FEATURES,
        "split": "",
        "activation_shape": None,
        "num_params": 24,
        "licence": "Apache-2.0",
        "preprocess": asdict(onnx_factories.preprocess()),
        "files": {},
    }
    (folder / "record.json").write_text(json.dumps(record))
    pointer = root / "names" / f"{name}.json"
    pointer.parent.mkdir(parents=True, exist_ok=True)
    pointer.write_text(json.dumps({"name": name, "digest": digest}))
    return root


def _path(state: JobState) -> list[JobState]:
    through = [] if state in (JobState.QUEUED, JobState.RUNNING, JobState.CANCELLED) else [JobState.RUNNING]
    return [] if state is JobState.QUEUED else [*through, state]


def _added(session: Session, row: Any) -> Any:
    session.add(row)
    session.flush()
    return row


def published(
    session: Session, storage: Storage, folder: Path, of: Model, number: int, *, shared: bool = True, **overrides: Any
) -> ModelVersion:
    """A version with a real bundle: a tiny graph, shared by key or its own, and a head of random weights."""
    labels = overrides.pop("labels", ("cat", "dog", "owl"))
    parts = overrides.pop("parts", {})
    described = onnx_factories.make_spec(labels, **overrides.pop("described", {}))
    row = version(session, of, number, **overrides)
    network = folder / "tiny.onnx"
    network.parent.mkdir(parents=True, exist_ok=True)
    network.write_bytes(onnx_factories.backbone_bytes())
    weight_CD, bias_C = head_weights(number, len(labels))
    place = folder / row.job_id
    fields = {
        "head": heads.linear(weight_CD, bias_C),
        "weights": {"weight": weight_CD, "bias": bias_C},
        "report": {"verdict": None},
        "predictions": Predictions([], [], [], [], [], np.empty((0, len(labels)), np.float32)),
        "readme": "# tiny\n",
        "backbone": bundle.entry(network, SHARED_GRAPH) if shared else network,
    }
    written = bundle.write(place, described, **{**fields, **parts})
    if shared:
        storage.put(SHARED_GRAPH, network)
    for path in place.iterdir():
        storage.put(f"{row.prefix}/{path.name}", path)
    row.spec = specs.document(written)
    session.flush()
    return row


def alignment(session: Session, number: int = 1, **overrides: Any) -> Alignment:
    """An alignment that is ready, without files."""
    fields = {
        "id": new_id("aln"),
        "project_id": PROJECT,
        "number": number,
        "state": "ready",
        "recipe": {"method": "z_score", "source": "ds_1", "target": "ds_2", "backbone": BACKBONE, "seed": 0},
        "backbone": BACKBONE,
        "backbone_digest": "b" * 64,
        "files": {},
        "result": {"dims": {"taken": onnx_factories.NUM_FEATURES, "given": onnx_factories.NUM_FEATURES}},
    }
    return _added(session, Alignment(**{**fields, **overrides}))


def advice(session: Session, dataset_id: str, findings: tuple[dict[str, Any], ...] = (), **overrides: Any) -> Advice:
    """Advice on a dataset that is ready, without pictures; the images that findings name are red ones of train."""
    counts: dict[str, int] = {}
    documents = []
    for one in findings:
        counts[one["kind"]] = counts.get(one["kind"], 0) + 1
        base = {"id": f"{one['kind']}-{counts[one['kind']]}", "label": None, "confidence": None, "message": "m"}
        named = one["suggestion"]["samples"]
        documents.append({**base, "samples": named, "num_samples": len(named), "data": {}, **one})
    names = {name for one in documents for name in one["samples"]}
    samples = {name: {"path": f"{name}.png", "label": "red", "split": "train"} for name in sorted(names)}
    result = {
        "backbone": BACKBONE, "num_samples": 20, "labels": None, "labels_reason": "few", "counts": counts,
        "not_listed": {}, "not_searched": {}, "drift": None, "findings": documents,
        "samples": {**samples, **overrides.pop("samples", {})},
    }  # fmt: skip
    request = {"dataset": dataset_id, "backbone": BACKBONE, "against": None, "seed": 0}
    fields = {"id": new_id("adv"), "project_id": PROJECT, "state": "ready", "request": request, "result": result}
    return _added(session, Advice(**{**fields, **overrides}))


def suggestion(kind: str, action: str, *samples: str, label: str | None = None) -> dict[str, Any]:
    """A finding with something to do."""
    return {"kind": kind, "suggestion": {"action": action, "label": label, "samples": list(samples)}}


def fitted(session: Session, storage: Storage, folder: Path, alpha: Any, offset: Any, **overrides: Any) -> Alignment:
    """An alignment with its graph in storage, for the graph that `published` models share."""
    row = alignment(session, **overrides)
    row.prefix = f"bundles/{row.project_id}/{row.id}/attempt-1"
    path = folder / f"{row.id}.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(alignments.affine(np.asarray(alpha), np.asarray(offset)))
    storage.put(f"{row.prefix}/{alignments.GRAPH}", path)
    row.files = {alignments.GRAPH: bundle.entry(path).model_dump(mode="json")}
    session.flush()
    return row


def head_weights(seed: int, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """The head of version `seed`."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(num_classes, onnx_factories.NUM_FEATURES)), rng.normal(size=num_classes)


def webhook(session: Session, **overrides: Any) -> Webhook:
    """A receiver that listens to everything."""
    fields = {
        "id": new_id("wh"), "project_id": PROJECT, "url": "http://127.0.0.1:1/", "events": list(EVENTS),
        "description": "", "enabled": True, "secret": new_secret(),
    }  # fmt: skip
    return _added(session, Webhook(**{**fields, **overrides}))


def delivery(session: Session, hook: Webhook, **overrides: Any) -> WebhookDelivery:
    """An event that waits to be sent."""
    event_id = new_id("evt")
    row = outbox.delivery(hook, event_id, "job.started", webhook_body(event_id, "job.started", now(), {"id": "job_1"}))
    for name, value in overrides.items():
        setattr(row, name, value)
    return _added(session, row)
