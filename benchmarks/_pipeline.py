"""The real pipeline without the service around it: ingest and transfer in this process, on a home of their own."""

import io
from pathlib import Path
from typing import Any

from app.settings import Settings
from app.storage import FolderStorage
from worker import transfer
from worker.attempt.context import RunContext
from worker.attempt.document import DatasetDocument, JobDocument
from worker.attempt.progress import Reporter
from worker.data.ingest import IngestRequest, ingest
from worker.ingestion import StoredDataset


def stored(home: Path, archive: Path, name: str, seed: int = 0) -> DatasetDocument:
    """Ingests an archive."""
    scratch = home / f"ingest-{name}"
    scratch.mkdir(parents=True)
    prefix = f"datasets/default/{name}"
    store = StoredDataset(FolderStorage(home / "storage"), prefix)
    request = IngestRequest(archive=archive, filename=archive.name, dataset_id=name, scratch=scratch, seed=seed)
    result = ingest(request, store, lambda *_: None)
    if result.state != "ready":
        raise SystemExit(f"{archive}: {result.failure}")
    return DatasetDocument(
        id=name,
        prefix=prefix,
        task=result.task,
        digest=result.digest,
        seed=seed,
        classes=result.classes,
        splits=result.splits,
    )


def attempt(
    home: Path,
    dataset: DatasetDocument | None,
    recipe: dict[str, Any],
    backbone: str,
    device: str = "cpu",
    *,
    seed: int = 0,
    datasets: dict[str, DatasetDocument] | None = None,
) -> RunContext:
    """One attempt at a job; `datasets` are those beside its own, by role."""
    work = home / f"job-{len(list(home.glob('job-*')))}"
    work.mkdir()
    document = JobDocument(
        id=work.name.replace("-", "_"),
        project="default",
        attempt=1,
        kind="transfer",
        recipe=recipe,
        seed=seed,
        report_mode="fast",
        model_name="benchmark",
        backbone=backbone,
        user_backbones=[],
        dataset=dataset,
        inputs={},
        datasets=datasets or {},
    )
    storage = FolderStorage(home / "storage")
    return RunContext(Settings(home=home), storage, Reporter(io.StringIO()), document, work, device)


def run(
    home: Path, dataset: DatasetDocument | None, recipe: dict[str, Any], backbone: str, device: str = "cpu", **more: Any
) -> dict[str, Any]:
    """Carries a recipe out; returns what the job would publish. For the rest see `attempt`."""
    return transfer.run(attempt(home, dataset, recipe, backbone, device, **more))
