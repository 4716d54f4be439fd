"""The ingest job: an uploaded archive becomes a stored dataset, or a list of reasons why it cannot."""

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from app import failpoints
from app.storage import Storage
from worker.attempt.context import RunContext
from worker.data.allocation import give_back
from worker.data.ingest import BaseDataset, IngestRequest, ingest
from worker.data.limits import Limits


class StoredDataset:
    """Takes a dataset's files into storage, and counts their bytes."""

    def __init__(self, storage: Storage, prefix: str) -> None:
        self._storage, self._prefix = storage, prefix
        self._names: set[str] = set()
        self.size_bytes = 0

    def put(self, name: str, path: Path) -> None:
        """See worker.data.ingest.DatasetStore."""
        self.size_bytes += path.stat().st_size
        self._names.add(name)
        self._storage.put(f"{self._prefix}/{name}", path)
        failpoints.reach("dataset_file_stored")

    def tidy(self) -> None:
        """Removes what an earlier attempt has stored under other names.

        Never before the own files are there: an attempt that was taken for dead, and comes back, would delete those of
        its successor. The same upload gives the same files.
        """
        for key in list(self._storage.list(self._prefix)):
            if key.removeprefix(f"{self._prefix}/") not in self._names:
                self._storage.delete(key)


def run(context: RunContext) -> dict[str, Any]:
    """Ingests the job's upload.

    Returns:
        what `services.ingestions.complete` writes.
    """
    give_back()
    document, inputs = context.document, context.document.inputs
    assert document.dataset is not None
    store = StoredDataset(context.storage, document.dataset.prefix)
    request = IngestRequest(
        archive=context.storage.fetch(inputs["archive"]) if inputs["archive"] else None,
        filename=inputs["filename"],
        dataset_id=document.dataset.id,
        format=inputs["format"],
        task=inputs.get("task", document.dataset.task),
        seed=document.dataset.seed,
        limits=Limits(max_pixels=context.settings.max_image_pixels, num_processes=context.settings.num_compute_threads),
        base=_base(context),
        scratch=context.scratch,
    )
    result = ingest(request, store, context.reporter.progress)
    store.tidy()
    return {
        "failure": None if result.failure is None else {"code": result.failure[0], "message": result.failure[1]},
        "task": result.task,
        "num_samples": result.num_samples,
        "classes": result.classes,
        "splits": result.splits,
        "digest": result.digest,
        "size_bytes": store.size_bytes,
        "problems": [asdict(problem) for problem in result.problems],
    }


def _base(context: RunContext) -> BaseDataset | None:
    """The base's files in a local folder, which is what ingestion reads."""
    document = context.document
    assert document.dataset is not None
    prefix = document.dataset.base_prefix
    if prefix is None:
        return None
    folder = context.scratch / "base"
    for key in context.storage.list(prefix):
        target = folder / key.removeprefix(f"{prefix}/")
        target.parent.mkdir(parents=True, exist_ok=True)
        source = context.storage.fetch(key)
        try:
            target.hardlink_to(source)
        except OSError:
            shutil.copyfile(source, target)
    return BaseDataset(
        dataset_id=document.inputs["base_id"],
        folder=folder,
        remove=tuple(document.inputs["remove"]),
        relabel=dict(document.inputs["relabel"]),
    )
