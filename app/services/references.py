"""What in storage belongs to a row: for each room of storage, which of some places are named by the database.

A place is as much of a key as one owner has: `datasets/PROJECT/ID`, `bundles/PROJECT/JOB/ATTEMPT`. Whatever lies below
stays or goes with it. Chunks of features have many owners: see `feature_chunks`.
"""

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from sqlalchemy import and_, or_, select
from sqlalchemy.orm import Session

from app.artifact import bundle
from app.db.alignments import Alignment
from app.db.logs import PredictionLog
from app.db.models import Dataset, Job, ModelVersion, UserBackbone
from app.db.uploads import USED, Upload
from app.services import jobs, studies
from app.states import FINAL, DatasetState, JobState
from app.storage import DRAFTS

Place = tuple[str, ...]
Named = Callable[[Session, Collection[Place]], set[Place]]

FEATURES = "features"


@dataclass(frozen=True, slots=True)
class Room:
    """One of the folders at the top of storage.

    Args:
        depth: parts of a key that make a place.
        last: what a place's parts behind the project look like, so that nothing else is taken for Graft's own.
        named: which of some places rows name.
        has_project: whether the project comes before them.
        is_shared: whether a row may name a place long after it was stored, so that it is removed under the lock of
            `shared` alone.
    """

    depth: int
    last: str
    named: Named
    has_project: bool = True
    is_shared: bool = False

    @property
    def first(self) -> int:
        """The first part that `last` is about."""
        return 2 if self.has_project else 1


def place(key: str) -> Place | None:
    """The place that a key belongs to; None where it is none of Graft's."""
    parts = key.split("/")
    room = ROOMS.get(parts[0])
    if room is None:
        return None
    own = parts[room.first : room.depth]
    return tuple(parts[: room.depth]) if re.fullmatch(room.last, "/".join(own)) else None


def is_ours(key: str) -> bool:
    """Whether a key lies in one of the rooms, in whatever place, or where objects are before they get their name."""
    return key.partition("/")[0] in {DRAFTS, *ROOMS}


def named(session: Session, places: Iterable[Place]) -> set[Place]:
    """Which of the places rows name, now."""
    by_room: dict[str, set[Place]] = {}
    for one in places:
        by_room.setdefault(one[0], set()).add(one)
    found: set[Place] = set()
    for room, wanted in by_room.items():
        found |= ROOMS[room].named(session, wanted) & wanted
    return found


def _ids(places: Collection[Place], part: int = 2) -> set[str]:
    return {one[part] for one in places}


def _datasets(session: Session, places: Collection[Place]) -> set[Place]:
    query = select(Dataset.project_id, Dataset.id).where(
        Dataset.id.in_(_ids(places)), Dataset.state != DatasetState.INVALID
    )
    return {("datasets", project, name) for project, name in session.execute(query)}


def _incoming(session: Session, places: Collection[Place]) -> set[Place]:
    """Uploads that nothing was made of yet, and files that a job is to read."""
    query = select(Upload.project_id, Upload.id).where(Upload.id.in_(_ids(places)), Upload.state != USED)
    found = {("incoming", project, name) for project, name in session.execute(query)}
    return found | {tuple(key.split("/")) for key in sent(session)}


def sent(session: Session) -> set[str]:
    """Keys of the files that clients have sent and jobs are yet to read, or to read again."""
    active = and_(Job.kind.in_(("ingest", "backbone", "predict")), Job.state.not_in(FINAL))
    unchecked = and_(UserBackbone.id.is_not(None), Job.state == JobState.FAILED, Job.failure_code != jobs.REFUSED)
    # One statement: between two a job may be tried again, and be seen by neither.
    query = select(Job.inputs).outerjoin(UserBackbone, UserBackbone.job_id == Job.id).where(or_(active, unchecked))
    keys = {inputs.get(name) for inputs in session.scalars(query) for name in ("archive", "file")}
    return {key for key in keys if key}


def _uploads(session: Session, places: Collection[Place]) -> set[Place]:
    query = select(Upload.project_id, Upload.id).where(Upload.id.in_(_ids(places)))
    return {("uploads", project, name) for project, name in session.execute(query)}


def _bundles(session: Session, places: Collection[Place]) -> set[Place]:
    """Attempts of jobs that run, files of predictions, and what versions and alignments are made of."""
    owners = _ids(places)
    query = select(Job.id, Job.state, Job.inputs).where(Job.id.in_(owners))
    running, keys = set(), []
    for job_id, state, inputs in session.execute(query):
        if state not in FINAL:
            running.add(job_id)
        keys.append(str(inputs.get("file", "")))
    # A version's prefix has its job's id in it, or its own; both are indexed.
    versions = select(ModelVersion.prefix).where(or_(ModelVersion.job_id.in_(owners), ModelVersion.id.in_(owners)))
    prefixes = ["/".join(one) for one in places]
    keys += session.scalars(versions)
    keys += session.scalars(select(Alignment.prefix).where(Alignment.prefix.in_(prefixes)))
    return {tuple(key.split("/")[:4]) for key in keys} | {one for one in places if one[2] in running}


def _checkpoints(session: Session, places: Collection[Place]) -> set[Place]:
    """Those of jobs that run, and of those that may be tried again."""
    query = select(Job.project_id, Job.id, Job.state, Job.kind, Job.inputs, Job.failure_code)
    found: set[Place] = set()
    for project, job_id, state, kind, inputs, code in session.execute(query.where(Job.id.in_(_ids(places)))):
        again = state == JobState.FAILED and jobs.is_retried(kind, inputs, code) and "deleted_dataset" not in inputs
        if again or state not in FINAL:
            found.add(("checkpoints", project, job_id))
    return found


def _predictions(session: Session, places: Collection[Place]) -> set[Place]:
    query = select(PredictionLog.project_id, PredictionLog.model_id).where(PredictionLog.model_id.in_(_ids(places)))
    return {("predictions", project, model) for project, model in session.execute(query)}


def _observed(session: Session, places: Collection[Place]) -> set[Place]:
    query = select(ModelVersion.project_id, ModelVersion.id).where(ModelVersion.id.in_(_ids(places)))
    return {("observed", project, name) for project, name in session.execute(query)}


def _studies(session: Session, places: Collection[Place]) -> set[Place]:
    found: set[Place] = set()
    for table, _ in studies.TABLES.values():
        query = select(table.project_id, table.id).where(table.id.in_(_ids(places)))
        found |= {("studies", project, name) for project, name in session.execute(query)}
    return found


def _backbones(session: Session, places: Collection[Place]) -> set[Place]:
    """Those that are ready, or being made."""
    query = select(UserBackbone.project_id, UserBackbone.id).where(
        UserBackbone.id.in_(_ids(places)), UserBackbone.state != "invalid"
    )
    return {("backbones", project, name) for project, name in session.execute(query)}


def _graphs(session: Session, places: Collection[Place]) -> set[Place]:
    """Of versions of every project, and of alignments whose features come from another backbone."""
    keys = [bundle.shared_key(digest) for digest in _ids(places, 1)]
    of_version = ModelVersion.spec[("files", bundle.BACKBONE, "key")].as_string()
    of_alignment = Alignment.moving_backbone[("graph", "key")].as_string()
    found = {*session.scalars(select(of_version).where(of_version.in_(keys)).distinct())}
    found |= {*session.scalars(select(of_alignment).where(of_alignment.in_(keys)).distinct())}
    return {tuple(key.split("/")[:2]) for key in found}


_ID = "[0-9a-hjkmnp-tv-z]{20}"
_SHA256 = "[0-9a-f]{64}"
ROOMS: dict[str, Room] = {
    "datasets": Room(3, f"ds_{_ID}", _datasets),
    "incoming": Room(3, f"(ds|up)_{_ID}|[0-9a-f]{{32}}", _incoming),
    "uploads": Room(3, f"up_{_ID}", _uploads),
    "bundles": Room(4, rf"[a-z]+_{_ID}/(attempt-\d+|added|imported)", _bundles),
    "checkpoints": Room(3, f"job_{_ID}", _checkpoints),
    "predictions": Room(3, f"mdl_{_ID}", _predictions),
    "observed": Room(3, f"ver_{_ID}", _observed),
    "studies": Room(3, f"(rnk|evl|adv)_{_ID}", _studies),
    "backbones": Room(3, f"bb_{_ID}", _backbones, is_shared=True),
    "graphs": Room(2, _SHA256, _graphs, has_project=False, is_shared=True),
    # Content-addressed: which images they are of decides, see `feature_chunks`.
    FEATURES: Room(3, "[0-9a-f]{40}", lambda _session, _places: set()),
    # What `GET /readyz` writes to see whether it can.
    "health": Room(2, "probe", lambda _session, _places: set(), has_project=False),
}
