"""A home with stored datasets and a prepared backbone, where jobs run as their runner would run them."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.settings import Settings
from app.storage import FolderStorage
from tests import factories
from tests.conftest import COMPUTE_THREADS
from tests.worker import transfer_factories
from tests.worker.transfer_factories import Wire
from worker import evaluation, own_backbone, predict, transfer
from worker.attempt.context import RunContext
from worker.attempt.document import DatasetDocument, JobDocument
from worker.attempt.progress import Reporter
from worker.data.ingest import BaseDataset, IngestRequest, ingest
from worker.ingestion import StoredDataset
from worker.prepare import sources

RUNNERS = {
    "transfer": transfer.run, "evaluate": evaluation.run, "backbone": own_backbone.run, "predict": predict.run,
}  # fmt: skip
# Near each other, so that there are errors to tell models apart by.
SHADES = {"rose": (168, 124, 130), "moss": (156, 136, 122), "mauve": (160, 124, 140)}


@contextmanager
def small_lab(folder: Path) -> Iterator["Lab"]:
    """A home with one small backbone, whose architecture can be trained from scratch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "open_backbones", lambda context: (transfer_factories.cnn(),))
        yield Lab(folder)


class Lab:
    """One home; every job is an attempt of its own with a pipe that writes down what it hears."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.storage = folder, FolderStorage(folder / "storage")
        self.documents: dict[str, DatasetDocument] = {}
        self.own: list[dict[str, Any]] = []
        self.wire = Wire()
        self._numbers = itertools.count(1)
        if not (folder / "backbones").exists():
            factories.prepared(folder / "backbones")

    def store(self, name: str, files: dict[str, bytes] | None, base: str | None = None, **changes: Any) -> None:
        """Ingests files as a dataset, perhaps on top of another one."""
        scratch = self.folder / f"ingest-{name}"
        scratch.mkdir()
        archive = None
        if files is not None:
            archive = scratch / "upload.zip"
            archive.write_bytes(factories.pack(files))
        below = None
        if base is not None:
            below = BaseDataset(base, self.folder / "storage" / f"datasets/default/{base}", **changes)
        request = IngestRequest(
            archive=archive, filename="upload.zip", dataset_id=name, scratch=scratch, seed=0, base=below
        )  # fmt: skip
        prefix = f"datasets/default/{name}"
        made = ingest(request, StoredDataset(self.storage, prefix), lambda *_: None)
        assert made.state == "ready", made.problems
        self.documents[name] = DatasetDocument(
            id=name, prefix=prefix, task="classification", digest=made.digest, seed=0,
            classes=[], splits={"train": 1, "val": 1, "test": 1},
        )  # fmt: skip

    def context(self, kind: str, dataset: str | None = None, **fields: Any) -> RunContext:
        """An attempt at a new job."""
        job = f"job_{next(self._numbers)}"
        beside = fields.pop("datasets", {})
        given = {
            "recipe": None, "seed": 0, "report_mode": "fast", "model_name": "m", "backbone": factories.BACKBONE,
            "user_backbones": self.own, "inputs": {}, **fields,
        }  # fmt: skip
        document = JobDocument(
            id=job, project="default", attempt=1, kind=kind, dataset=self.documents[dataset] if dataset else None,
            datasets={role: self.documents[name] for role, name in beside.items()}, **given,
        )  # fmt: skip
        scratch = self.folder / f"scratch-{job}"
        scratch.mkdir()
        self.wire = Wire()
        settings = Settings(
            home=self.folder, compute_threads=COMPUTE_THREADS, prepared=self.folder / "none", offline=True
        )
        return RunContext(settings, self.storage, Reporter(self.wire), document, scratch, "cpu")

    def run(self, kind: str, dataset: str | None = None, **fields: Any) -> dict[str, Any]:
        """Runs a job of that kind."""
        return RUNNERS[kind](self.context(kind, dataset, **fields))

    def transfer(self, dataset: str, method: str = "linear_probe", **fields: Any) -> dict[str, Any]:
        """A published version: what the job's supervisor would write as rows."""
        recipe = {"method": method, **fields.pop("recipe", {})}
        return self.run("transfer", dataset, recipe=recipe, **fields)

    def evaluate(self, dataset: str, *made: dict[str, Any], split: str = "test", seed: int = 0) -> dict[str, Any]:
        """The result of an evaluation of versions."""
        inputs = {"mode": "versions", "split": split, "sides": [side(one, place) for place, one in enumerate(made, 1)]}
        return self.run("evaluate", dataset, inputs=inputs, seed=seed)["result"]

    def adopt(self, name: str, made: dict[str, Any], architecture: str) -> dict[str, Any]:
        """A version's network as an own backbone; the job's whole result."""
        source = {"model": "m", "version": 1, "version_id": "ver_1", "backbone": architecture}
        ids = {"backbone_id": f"bb_{len(self.own)}", "name": name}
        inputs = {**ids, "architecture": architecture, "prefix": made["prefix"], "source": source}
        done = self.run("backbone", inputs=inputs)
        if done["failure"] is None:
            self.own.append(done["document"])
        return done


def side(made: dict[str, Any], number: int = 1, **fields: Any) -> dict[str, Any]:
    """A version as a job's inputs name it."""
    return {"model": "m", "version": number, "prefix": made["prefix"], "domain": None, "alignment": None, **fields}


def stopping(context: RunContext, after: int) -> RunContext:
    """The same attempt under a supervisor that asks it to stop after so many metrics."""

    class Stopping(Wire):
        def write(self, text: str) -> int:
            size = super().write(text)
            if len(self.events("metric")) >= after:
                reporter._request = "stop"
            return size

    reporter = Reporter(Stopping())
    if after == 0:
        reporter._request = "stop"
    return replace(context, reporter=reporter)
