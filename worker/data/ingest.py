"""From an uploaded file to a checked, split, stored dataset, told in order.

    read      every member once, into the spool, hashed, while the decoders check the images behind
    assign    labels and given splits, by the detected format
    check     classes with enough good images
    group     copies of one picture, and the splits by group
    store     shards, index, description; nothing is stored for an invalid dataset

Warnings never make a dataset invalid, errors always do; every finding is in the result.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.data import base, duplicates, grouping, shards
from worker.data.base import BaseDataset
from worker.data.checks import check_class_names, check_samples
from worker.data.decoding import Decoders
from worker.data.formats import Assigned
from worker.data.labels import TooManyLabels
from worker.data.limits import Limits
from worker.data.problems import Problem, Problems, Rejected
from worker.data.reading import Reader
from worker.data.records import Records
from worker.data.row_groups import Samples
from worker.data.shards import INDEX, DatasetStore
from worker.data.splits import SPLITS
from worker.data.spool import Spool

__all__ = ["BaseDataset", "DatasetStore", "IngestRequest", "IngestResult", "Limits", "Problem", "ingest"]

TASKS = ("classification", "multi_label", "regression", "multi_task")
_READ_SHARE, _GROUP_SHARE = 0.8, 0.85
_SECONDS_BETWEEN_PROGRESS = 0.2


@dataclass(frozen=True, slots=True)
class IngestRequest:
    """One upload to ingest.

    Args:
        archive: the uploaded file; None for a child dataset that only removes and relabels.
        filename: as the client named it; for messages only, the kind is sniffed.
        dataset_id: of the dataset to be.
        format: auto, folders, manifest, parquet or unlabelled.
        task: classification, multi_label, regression or multi_task; None to take what the labels have the form of.
        seed: the dataset's, which makes the split.
        limits: bounds on the upload.
        base: the dataset that this one is a child of.
        scratch: an empty folder with room for the unpacked upload, its records, the index and one shard; what is put
            there is removed.
    """

    archive: Path | None
    filename: str
    dataset_id: str
    scratch: Path
    format: str = "auto"
    task: str | None = None
    seed: int = 0
    limits: Limits = field(default_factory=Limits)
    base: BaseDataset | None = None


@dataclass(frozen=True, slots=True)
class IngestResult:
    """What became of an upload. `failure` is None, and the rest filled, exactly when `state` is ready.

    `classes` are those of the first label column; a dataset without labels, or of numbers, has none.
    """

    state: str
    failure: tuple[str, str] | None
    problems: list[Problem]
    task: str
    modality: str = "image"
    num_samples: int = 0
    classes: list[dict[str, Any]] = field(default_factory=list)
    splits: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SPLITS, 0))
    digest: str | None = None
    files: list[str] = field(default_factory=list)


def ingest(request: IngestRequest, store: DatasetStore, progress: Callable[[float, str], None]) -> IngestResult:
    """Reads, checks, splits and stores an upload.

    Raises:
        OSError: the disk or the store is full; files already put are the caller's to remove.
    """
    problems = Problems()
    report = _throttled(progress)
    with Spool(request.scratch / "members") as spool, Records(request.scratch) as records:
        try:
            samples, task = _prepare(request, records, spool, problems, report)
        except Rejected:
            return _invalid(request, problems)
        except TooManyLabels as error:
            problems.add("too_many_labels", limit=error.limit, found=error.found)
            return _invalid(request, problems)
        if problems.has_errors:
            return _invalid(request, problems)
        return _store(request, samples, task, spool, store, problems, report)


def _prepare(
    request: IngestRequest, records: Records, spool: Spool, problems: Problems, report: Callable[[float, str], None]
) -> tuple[Samples, str]:
    """Everything up to the splits, and the task.

    Raises:
        Rejected: the dataset is invalid.
        TooManyLabels: it is as well.
    """
    old = base.read(request.base, records, spool, problems) if request.base else None
    first_new = len(records)
    new = _read(request, records, spool, problems, report)
    assigned = _merge(old, new, problems)
    report(_READ_SHARE, "grouping")
    good_N = records.is_good[assigned.rows]
    check_samples(assigned, good_N, len(records), problems)
    if problems.has_errors:
        raise Rejected("samples")
    assigned = assigned.take(np.flatnonzero(good_N))
    keys_N, fresh = _keys(assigned, records, first_new, problems)
    assigned = assigned.take(fresh).without_empty()
    check_class_names(assigned.columns, problems)
    if problems.has_errors:
        raise Rejected("classes")
    group_N, split_N = grouping.split(request.seed, assigned, old, records, first_new, problems)
    return Samples(records, assigned.rows, keys_N, assigned.columns, split_N, group_N), assigned.task


def _read(
    request: IngestRequest, records: Records, spool: Spool, problems: Problems, report: Callable[[float, str], None]
) -> Assigned | None:
    if request.archive is None:
        return None
    with Decoders(spool.fd, request.limits) as decoders:
        reader = Reader(
            records,
            spool,
            decoders,
            request.limits,
            problems,
            request.scratch,
            lambda share: report(_READ_SHARE * share, "reading"),
        )
        return reader.read(request.archive, request.filename, request.format, request.task)


def _merge(old: base.Old | None, new: Assigned | None, problems: Problems) -> Assigned:
    if old is not None and new is not None:
        return base.merge(old.assigned, new, problems)
    if old is not None:
        return old.assigned
    if new is not None:
        return new
    raise ValueError("expected an archive or a base dataset; found neither")


def _keys(
    assigned: Assigned, records: Records, first_new: int, problems: Problems
) -> tuple[NDArray[np.bytes_], NDArray[np.int64]]:
    """Keys of the samples that are kept, and their places: the first of each key."""
    rows_N = assigned.rows
    keys_N = np.fromiter((one.key for one in records.each(rows_N)), "S10", len(rows_N))
    copy, original, kept = duplicates.repeated(keys_N)
    for row, first in zip(rows_N[copy].tolist(), rows_N[original].tolist(), strict=True):
        problems.add("already_in_base" if first < first_new else "duplicate_name", records.path(row))
    kept = np.sort(kept)
    return keys_N[kept], kept


def _store(
    request: IngestRequest,
    samples: Samples,
    task: str,
    spool: Spool,
    store: DatasetStore,
    problems: Problems,
    report: Callable[[float, str], None],
) -> IngestResult:
    written = shards.write(
        samples,
        spool,
        store,
        request.scratch,
        lambda share: report(_GROUP_SHARE + (1 - _GROUP_SHARE) * share, "storing"),
    )
    digest = shards.digest(samples)
    first = samples.columns[0]
    classes = [
        {"name": name, "num_samples": int(num)}
        for name, num in zip(first.names, first.count if first.names else (), strict=True)
    ]
    counts = np.bincount(samples.split, minlength=len(SPLITS))
    split_counts = {name: int(count) for name, count in zip(SPLITS, counts, strict=True)}
    description = {
        "id": request.dataset_id,
        "task": task,
        "modality": "image",
        "num_samples": len(samples.rows),
        "classes": classes,
        "label_columns": [
            {"name": column.name, "kind": column.kind, "names": list(column.names)} for column in samples.columns
        ],
        "splits": split_counts,
        "digest": digest,
        "seed": request.seed,
        "base": request.base.dataset_id if request.base else None,
        "files": written,
    }
    files = [*written, INDEX, shards.write_description(description, store, request.scratch)]
    return IngestResult(
        "ready", None, list(problems), task, "image", len(samples.rows), classes, split_counts, digest, files
    )


def _invalid(request: IngestRequest, problems: Problems) -> IngestResult:
    return IngestResult("invalid", problems.failure, list(problems), request.task or "classification")


def _throttled(progress: Callable[[float, str], None]) -> Callable[[float, str], None]:
    """Passes on a few reports a second: a hundred thousand would only be noise."""
    last, last_stage = 0.0, ""

    def report(fraction: float, stage: str) -> None:
        nonlocal last, last_stage
        now = time.monotonic()
        if stage != last_stage or now - last >= _SECONDS_BETWEEN_PROGRESS:
            last, last_stage = now, stage
            progress(min(1.0, fraction), stage)

    return report
