"""A project with one of everything, real files included, for tests of who may see it."""

import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from app import backbones
from app.advice import THUMBNAILS
from app.db.models import Project, Report, UserBackbone
from app.db.studies import Evaluation, Ranking
from app.services import datasets, keys, studies
from app.services.aliases import Target, point
from app.services.domains import bind
from app.services.logs import keep
from app.serving import log_records
from tests import factories
from tests.app import bundle_factories, onnx_factories
from tests.app.api.callers import key
from worker.data.ingest import IngestRequest, ingest
from worker.ingestion import StoredDataset

DAY = "2026-11-20"
SHARED = ("cat", "dog", "owl")


@dataclass(frozen=True)
class World:
    """What a project has, by what a route calls it; `owner` holds a key with every scope."""

    ids: dict[str, str]
    owner: keys.Made


def make(state: Any, folder: Path, project: str = "default") -> World:
    """A project with one of everything."""
    folder.mkdir(parents=True, exist_ok=True)
    owner = key(state, project=project)
    with state.database.write() as session:
        own: dict[str, Any] = {"project_id": project}
        ready = _dataset(session, state.storage, folder, project)
        factories.problem(session, ready.id, 1, project_id=project)
        other = factories.dataset(session, classes=_classes(), **own)
        done = factories.job(session, state="succeeded", dataset_id=ready.id, recipe={"method": "linear_probe"}, **own)
        session.add(Report(job_id=done.id, project_id=project, document={"verdict": None}))
        jobs = {
            "done": done.id,
            "queued": factories.job(session, **own).id,
            "running": factories.job(session, state="running", **own).id,
            "failed": factories.job(session, state="failed", **own).id,
            "predict": _made(session, state.storage, folder, ready.id, project, "predict"),
            "extract": _made(session, state.storage, folder, ready.id, project, "extract"),
        }
        model = _model(session, state.storage, folder, done, ready, project)
        session.add(UserBackbone(id=f"bb_{project}", name="user/mine", state="ready", document=_backbone(), **own))
        aligned = factories.fitted(
            session, state.storage, folder, [1.0] * 6, [0.0] * 6, number=1, **own
        )  # fmt: skip
        aligned.recipe = {**aligned.recipe, "source": ready.id, "target": other.id}
        unbound = factories.fitted(session, state.storage, folder, [1.0] * 6, [0.0] * 6, number=2, **own)
        session.get_one(Project, project).last_alignment = 2
        bind(session, project, model, "night", aligned.id)
        finding = factories.suggestion("near_duplicate", "remove", "s1")
        advice = factories.advice(session, ready.id, (finding,), **own)
        state.storage.put(f"{studies.prefix(project, advice.id)}/{THUMBNAILS}", _pictures(folder))
        for table, name in ((Ranking, f"rnk_{project}"), (Evaluation, f"evl_{project}")):
            session.add(table(id=name, state="ready", request={"dataset": ready.id}, result={}, **own))
        uploads = _uploads(session, state.storage, folder, project)
        hook = factories.webhook(session, **own)
        delivery = factories.delivery(session, hook)
        session.flush()
        ids = {
            "dataset": ready.id, "other": other.id, "model": model, "alignment": aligned.id, "unbound": unbound.id,
            "advice": advice.id, "ranking": f"rnk_{project}", "evaluation": f"evl_{project}",
            "key": owner.row.id, "backbone": "mine", "webhook": hook.id, "delivery": delivery.id, **jobs, **uploads,
        }  # fmt: skip
    return World(ids, owner)


def _classes() -> list[dict[str, Any]]:
    return [{"name": name, "num_samples": 5} for name in SHARED]


def _dataset(session: Any, storage: Any, folder: Path, project: str) -> Any:
    """Really ingested, so that its samples can be read."""
    row = factories.dataset(session, project_id=project)
    archive, scratch = folder / "data.zip", folder / "scratch"
    scratch.mkdir()
    pictures = factories.pictures(4, dict(zip(SHARED, factories.COLOURS.values(), strict=True)))
    archive.write_bytes(factories.pack(pictures))
    request = IngestRequest(archive=archive, filename="data.zip", dataset_id=row.id, scratch=scratch, task=None)
    result = ingest(request, StoredDataset(storage, datasets.prefix(project, row.id)), lambda *_: None)
    assert result.failure is None, result.failure
    row.digest, row.classes, row.splits = result.digest, result.classes, result.splits
    row.num_samples = result.num_samples
    return row


def _model(session: Any, storage: Any, folder: Path, job: Any, dataset: Any, project: str) -> str:
    """Two versions, an alias with a history, and a log of a day; the name says whose it is."""
    name = f"tiny-{project}"
    of = factories.model(session, name, 0, project_id=project)
    used = {"id": dataset.id, "digest": dataset.digest, "splits": dataset.splits}
    for number in (1, 2):
        made = {"job_id": job.id} if number == 1 else {}
        row = bundle_factories.publish(session, storage, folder / project, of, number, **made)
        row.spec = {**row.spec, "dataset": used}
    of.last_version = 2
    for number in (1, 2):
        point(session, project, name, "production", Target(number))
    keep(session, project, name, 1.0, 7, False)
    path = folder / "log.parquet"
    pq.write_table(pa.Table.from_pylist([], schema=log_records.schema()), path)
    storage.put(f"{log_records.prefix(project, of.id)}/{DAY}/part.parquet", path)
    return name


def _made(session: Any, storage: Any, folder: Path, dataset_id: str, project: str, kind: str) -> str:
    request = {"dataset": dataset_id, "model": f"tiny-{project}", "version": 1, "alignment": None, "format": "jsonl"}
    row = factories.job(
        session, kind=kind, state="succeeded", dataset_id=dataset_id, project_id=project,
        inputs={"request": request, "file": ""},
    )  # fmt: skip
    file = f"bundles/{project}/{row.id}/attempt-1/made.jsonl"
    row.inputs = {**row.inputs, "file": file}
    path = folder / "made.jsonl"
    path.write_bytes(b'{"label": "theirs"}\n')
    storage.put(file, path)
    return str(row.id)


def _uploads(session: Any, storage: Any, folder: Path, project: str) -> dict[str, str]:
    """One that waits to be used, and one of which nothing has come."""
    file = folder / "upload"
    file.write_bytes(b"theirs")
    whole = factories.upload(
        session, state="complete", size_bytes=6, received_bytes=6, sha256="a" * 64, project_id=project
    )
    storage.put(f"incoming/{project}/{whole.id}", file)
    return {"upload": whole.id, "half": factories.upload(session, size_bytes=10, project_id=project).id}


def _pictures(folder: Path) -> Path:
    path = folder / THUMBNAILS
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("s1.jpg", factories.png())
    return path


def _backbone() -> dict[str, Any]:
    known = backbones.find(factories.BACKBONE)
    assert known is not None
    document = {**asdict(known), "name": "user/mine", "preprocess": asdict(onnx_factories.preprocess())}
    return {"architecture": factories.BACKBONE, "backbone": document}
