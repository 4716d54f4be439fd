"""How many bytes each project stores: what its rows tell of, now, and the rest as the last collection has found it.

Datasets, uploads, versions and own backbones have their sizes in their rows. Features, logs, checkpoints, results of
jobs and the like have no row that could tell, so a collection counts them while it looks at all of storage.
"""

from collections.abc import Iterable

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.db.models import Dataset, Job, ModelVersion, UserBackbone
from app.db.uploads import USED, Upload
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
    "predictions": "",
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
    ):
        query = select(table.project_id, func.sum(size)).group_by(table.project_id)
        if project is not None:
            query = query.where(table.project_id == project)
        if table is Upload:
            query = query.where(Upload.state != USED)
        for name, size_bytes in session.execute(query):
            found.setdefault(name, {})[what] = int(size_bytes)
    # Whatever else is made of an upload has a row with its bytes; predictions of one hold them until their job ends.
    held = select(Job.project_id, func.coalesce(func.sum(Job.inputs["archive_bytes"].as_numeric(20, 0)), 0))
    held = held.where(Job.kind == KIND, Job.state.in_([JobState.QUEUED, JobState.RUNNING])).group_by(Job.project_id)
    for name, size_bytes in session.execute(held if project is None else held.where(Job.project_id == project)):
        mine = found.setdefault(name, {})
        mine["uploads"] = mine.get("uploads", 0) + int(size_bytes)
    return found


def beside(session: Session, counted: Bytes) -> Bytes:
    """Of what a collection has counted in each room, what no row tells the size of."""
    told = of_rows(session)
    return {
        project: {
            room: max(0, size - told.get(project, {}).get(ROOMS[room], 0)) for room, size in sorted(rooms.items())
        }
        for project, rooms in counted.items()
    }


def own_files(files: Iterable[dict[str, object]]) -> int:
    """Bytes of a version's files as its spec lists them, without those that it shares with others."""
    return sum(int(str(file.get("size_bytes", 0))) for file in files if file.get("key") is None)
