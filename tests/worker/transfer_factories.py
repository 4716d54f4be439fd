"""A stored dataset, a prepared backbone and a task over them, for tests of methods."""

import atexit
import functools
import io
import json
import shutil
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from app import backbones as catalogue
from app.artifact.preprocess import Preprocess
from app.services import reports
from app.settings import Settings
from app.storage import FolderStorage
from tests import factories
from tests.conftest import COMPUTE_THREADS
from worker import evaluation
from worker.attempt.context import RunContext
from worker.attempt.document import DatasetDocument, JobDocument
from worker.attempt.progress import Reporter
from worker.backbones import export, networks
from worker.backbones.prepared import Prepared
from worker.contract.task import Task
from worker.data.ingest import IngestRequest, ingest
from worker.data.samples import load_index
from worker.ingestion import StoredDataset
from worker.prepare import image_tower

TRANSFORMER = "timm/test_vit"
# Of all random weights.
SEED = 3


class Wire(io.StringIO):
    """The pipe to a supervisor that writes down what it hears, and may answer."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[dict[str, Any]] = []

    def write(self, text: str) -> int:
        """One line is one message."""
        self.seen.append(json.loads(text))
        return len(text)

    def events(self, kind: str) -> list[dict[str, Any]]:
        """Events of one type, in order."""
        return [message["event"] for message in self.seen if message.get("event", {}).get("type") == kind]

    def messages(self, kind: str = "log") -> list[str]:
        """Their texts."""
        return [event["message"] for event in self.events(kind)]


def context(folder: Path, wire: Wire, scratch: str = "scratch", **settings: Any) -> RunContext:
    """An attempt of its own at the one job of the folder."""
    dataset = DatasetDocument(
        id="ds_1", prefix="datasets/default/ds_1", task="classification", digest="d" * 64, seed=0, classes=[], splits={}
    )
    document = JobDocument(
        id="job_1",
        project="default",
        attempt=1,
        kind="transfer",
        recipe=None,
        seed=0,
        report_mode="fast",
        model_name="m",
        backbone=None,
        user_backbones=[],
        dataset=dataset,
        inputs={},
    )
    (folder / scratch).mkdir(parents=True, exist_ok=True)
    return RunContext(
        settings=Settings(home=folder, compute_threads=COMPUTE_THREADS, **settings),
        storage=FolderStorage(folder / "storage"),
        reporter=Reporter(wire),
        document=document,
        scratch=folder / scratch,
        device="cpu",
    )


def store(context: RunContext, archive: Path, seed: int = 0) -> None:
    """Ingests an archive as the job's dataset."""
    assert context.document.dataset is not None
    folder = context.scratch / "ingest"
    folder.mkdir()
    request = IngestRequest(archive=archive, filename=archive.name, dataset_id="ds_1", scratch=folder, seed=seed)
    result = ingest(request, StoredDataset(context.storage, context.document.dataset.prefix), lambda *_: None)
    assert result.state == "ready", result.problems


def stored(folder: Path, sets: Mapping[str, dict[str, bytes]], unlabelled: Collection[str] = ()) -> Path:
    """Ingests files as datasets, by their names; the folder, which is the home of jobs on them."""
    storage = FolderStorage(folder / "storage")
    for name, files in sets.items():
        archive, scratch = folder / f"{name}.zip", folder / f"{name}-scratch"
        archive.write_bytes(factories.pack(files))
        scratch.mkdir()
        request = IngestRequest(archive=archive, filename=archive.name, dataset_id=name, scratch=scratch, seed=0)
        if name in unlabelled:
            request = replace(request, format="unlabelled")
        result = ingest(request, StoredDataset(storage, f"datasets/default/{name}"), lambda *_: None)
        assert result.state == "ready", result.problems
    return folder


def whole(context: RunContext, done: dict[str, Any], **inputs: Any) -> dict[str, Any]:
    """The report of a transfer with what the job that follows fills in."""
    result = follow(context, done, **inputs)
    return reports.filled(done["report"], result)


def follow(context: RunContext, done: dict[str, Any], wire: Wire | None = None, **side: Any) -> dict[str, Any]:
    """What the job that follows a transfer finds."""
    scratch = Path(tempfile.mkdtemp(dir=context.scratch))
    pinned = {"model": "m", "version": 1, "prefix": done["prefix"], "domain": None, "alignment": None, **side}
    document = context.document.model_copy(
        update={
            "id": f"{context.document.id}-full",
            "kind": "evaluate",
            "report_mode": "fast",
            "inputs": {"mode": "report", "original": {"job": context.document.id}, "side": pinned},
        }
    )
    given = replace(context, document=document, scratch=scratch, reporter=Reporter(wire or Wire()))
    found: dict[str, Any] = evaluation.run(given)["result"]
    return found


def task(context: RunContext, backbone: Prepared, seed: int = 0) -> Task:
    """What a method is given for the stored dataset."""
    assert context.document.dataset is not None
    folder = context.scratch / "dataset"
    folder.mkdir(exist_ok=True)
    for name in ("index.parquet", "dataset.json"):
        (folder / name).write_bytes(context.storage.fetch(f"{context.document.dataset.prefix}/{name}").read_bytes())
    index = load_index(folder, context.document.dataset.prefix)
    train, val = index.rows_of("train"), index.rows_of("val")
    return Task(
        context=context,
        index=index,
        backbone=backbone,
        backbones=(backbone,),
        labels_N=np.asarray(index.label, np.int64),
        pool=np.sort(np.concatenate([train, val])),
        train=train,
        val=val,
        num_classes=len(index.classes),
        class_names=index.classes,
        seed=seed,
    )


@functools.cache
def prepared_backbone(name: str, side: int, folder: Path | None = None) -> Prepared:
    """A small architecture with random weights, prepared once for all tests of the session; or in a folder."""
    found = catalogue.find(name)
    assert found is not None
    shape = replace(found.preprocess, height=side, width=side, resize=side + 8)
    if folder is None:
        folder = Path(tempfile.mkdtemp(prefix="graft-prepared-"))
        atexit.register(shutil.rmtree, folder)
    network = networks.build(found, None, SEED)
    _settle(network, shape)
    return image_tower.write(network, replace(found, preprocess=shape), "", folder, lambda *_: None)


def _settle(network: nn.Module, shape: Preprocess) -> None:
    """Gives batch norm the statistics of some images; with those of new layers the features would vanish."""
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None
    with torch.no_grad():
        export.FromPixels(network, shape).train()(torch.from_numpy(export.probe_images(shape)))
    network.eval()


def cnn() -> Prepared:
    """With batch norm, 0.1 M parameters, 64 pixels."""
    return prepared_backbone("timm/test_efficientnet", 64)


def transformer() -> Prepared:
    """Six blocks, 0.3 M parameters; the size is its own, since positions depend on it."""
    return prepared_backbone(TRANSFORMER, 160)
