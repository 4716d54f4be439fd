"""How many bytes each project stores: what its rows tell of, now, and the rest as the last collection has found it.

Datasets, uploads, versions, own backbones and prediction logs have their sizes in their rows, and so has what is under
way. Features, checkpoints, results of jobs and the like have no row that could tell, so a collection counts them while
it looks at all of storage.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Row, func, or_, select
from sqlalchemy.orm import Session

from app.artifact import bundle
from app.backbones import OWN
from app.db.logs import PredictionLog
from app.db.models import Dataset, Job, ModelVersion, UserBackbone
from app.db.uploads import USED, Upload
from app.db.waste import Waste
from app.predict_jobs import KIND
from app.services import collections
from app.states import JobState

# Bytes by what they belong to, by project.
Bytes = dict[str, dict[str, int]]

# Rooms of storage that are counted by a collection, and what of them rows have told of already.
ROOMS = {
    "bundles": "versions",
    "backbones": "backbones",
    "features": "",
    "checkpoints": "",
    "predictions": "logs",
    "observed": "",
    "studies": "",
}
# What a client knows these by.
_NAMES = {"bundles": "results", "backbones": "backbones", "predictions": "logs", "observed": "logs"}


def every(session: Session, project: str | None = None) -> Bytes:
    """Of one project, or of all that store something."""
    found = of_rows(session, project)
    last = collections.last(session)
    counted: Bytes = last.report.get("beside", {}) if last is not None and last.report is not None else {}
    for name, rooms in counted.items():
        if project in (None, name):
            mine = found.setdefault(name, {})
            for room, size in rooms.items():
                what = _NAMES.get(room, room)
                mine[what] = mine.get(what, 0) + size
    return found


def total(session: Session, project: str) -> int:
    """All that a project stores."""
    return sum(every(session, project).get(project, {}).values())


def of_rows(session: Session, project: str | None = None) -> Bytes:
    """What rows tell of, of one project, or of all."""
    found: Bytes = {}
    for what, table, size in (
        ("datasets", Dataset, Dataset.size_bytes),
        ("uploads", Upload, func.coalesce(Upload.size_bytes, Upload.received_bytes)),
        ("versions", ModelVersion, ModelVersion.size_bytes),
        ("backbones", UserBackbone, UserBackbone.size_bytes),
        ("logs", PredictionLog, PredictionLog.size_bytes),
    ):
        query = select(table.project_id, func.sum(size)).group_by(table.project_id)
        if project is not None:
            query = query.where(table.project_id == project)
        if table is Upload:
            query = query.where(Upload.state != USED, or_(~Upload.has_expired, Upload.has_writer))
        for name, size_bytes in session.execute(query):
            found.setdefault(name, {})[what] = int(size_bytes)
    for name, size_bytes in (*_under_way(session, project), *_held(session, project)):
        mine = found.setdefault(name, {})
        mine["uploads"] = mine.get("uploads", 0) + int(size_bytes)
    for name, size_bytes in _graphs(session, project):
        found.setdefault(name, {})["graphs"] = int(size_bytes)
    return found


def _under_way(session: Session, project: str | None) -> Iterable[Row[str, int]]:
    """What comes as a form, or is stored for a row that is yet to be written."""
    query = select(Waste.project_id, func.sum(Waste.size_bytes)).where(Waste.size_bytes > 0).group_by(Waste.project_id)
    return session.execute(query if project is None else query.where(Waste.project_id == project))


def _held(session: Session, project: str | None) -> Iterable[Row[str, int]]:
    """Uploads that predictions are made of, until their job ends: whatever else is made of one has a row for it."""
    held = select(Job.project_id, func.coalesce(func.sum(Job.inputs["archive_bytes"].as_numeric(20, 0)), 0))
    held = held.where(Job.kind == KIND, Job.state.in_([JobState.QUEUED, JobState.RUNNING])).group_by(Job.project_id)
    return session.execute(held if project is None else held.where(Job.project_id == project))


def _graphs(session: Session, project: str | None) -> Iterable[Row[str, int]]:
    """Graphs that a project has brought, each once; projects that share one have each to answer for it."""
    owner, key = ModelVersion.project_id, ModelVersion.graph_key
    each = select(owner, func.max(ModelVersion.graph_bytes).label("size")).where(key.is_not(None)).group_by(owner, key)
    graph = (each if project is None else each.where(owner == project)).subquery()
    return session.execute(select(graph.c.project_id, func.sum(graph.c.size)).group_by(graph.c.project_id))


def beside(session: Session, counted: Bytes) -> Bytes:
    """Of what a collection has counted in each room, what no row tells the size of."""
    told = of_rows(session)
    return {
        project: {
            room: max(0, size - told.get(project, {}).get(ROOMS[room], 0)) for room, size in sorted(rooms.items())
        }
        for project, rooms in counted.items()
    }


def brought(spec: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The entry of a version's shared graph, where the project has brought it: by an import, or as its own backbone.

    Jobs store graphs under the digests of weights, imports under those of the graphs: a bundle may claim any weights.
    """
    graph: Mapping[str, Any] = spec["files"].get(bundle.BACKBONE, {})
    if graph.get("key") is None:
        return None
    is_own = spec["backbone"]["name"].startswith(f"{OWN}/")
    return graph if is_own or graph["key"] == bundle.shared_key(graph["sha256"]) else None


def of_version(session: Session, project: str, spec: Mapping[str, Any]) -> int:
    """What a version with that spec adds to what the project stores."""
    graph = brought(spec)
    if graph is None or session.scalar(
        select(ModelVersion.id)
        .where(ModelVersion.project_id == project, ModelVersion.graph_key == graph["key"])
        .limit(1)
    ):
        return own_files(spec)
    return own_files(spec) + int(graph["size_bytes"])


def own_files(spec: Mapping[str, Any]) -> int:
    """Bytes of a version's files as its spec lists them, without those that it shares with others."""
    return sum(file.get("size_bytes", 0) for file in spec["files"].values() if file.get("key") is None)
