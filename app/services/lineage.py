"""Where a version comes from: its job, data, backbone, alignments, the versions below it; and what its test items met.

The chain is a list of nodes, each naming the node that was made of it, from the version down to what nothing in this
project has made. What was deleted since stays in the list: its digest was written down when it was used.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.artifact import alignment as artifact
from app.artifact import bundle
from app.db.models import Dataset, Job, Model, ModelVersion, UserBackbone
from app.errors import Conflict, NotFound
from app.services import datasets, domains, models
from app.storage import Storage

OLD = "the version was published before Graft traced test items; run its job again"
NOTHING_TESTED = "the version was tested on no item"
BASE_GONE = "the version that the class was added to was deleted, and with it the trace of its test items"
ELSEWHERE = "the version was imported, and its test items are not here; evaluate it on a dataset of yours"
NO_ITEMS: dict[str, Any] = {
    "num_test": None,
    "num_seen_before": None,
    "seen_in": [],
    "num_seen_without_labels": None,
    "seen_without_labels_in": [],
}
# Writes what one thing comes from to the chain, and gives the walk below each that comes from others in turn.
Walk = Iterator["Walk"]


@dataclass(frozen=True, slots=True)
class Node:
    """One thing that a version comes from.

    Args:
        what: version, job, dataset, base, source, backbone, alignment.
        id: of it; `model/version` for versions, the name for backbones.
        digest: as it was when it was used.
        of: id of the node that was made of it; None for the version itself.
        present: whether it is still there, with that digest.
        details: more about it, JSON-ready.
    """

    what: str
    id: str
    digest: str | None
    of: str | None
    present: bool
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Lineage:
    """The document of a version."""

    chain: list[Node]
    items: dict[str, Any]
    warnings: list[str]
    unknown: str | None


def of_version(session: Session, storage: Storage, project: str, name: str, number: int) -> Lineage:
    """The chain of a version, and the trace of its test items.

    Raises:
        NotFound: no such model or version.
    """
    row = models.version(session, project, name, number)
    chain: list[Node] = []
    _go(_version(session, storage, chain, name, row, None))
    _alignments(session, chain, name, row)
    items, warnings, unknown = _trace(session, storage, row)
    return Lineage(chain, items, warnings, unknown)


def _go(walk: Walk) -> None:
    """Each walk to its end before the one above goes on, however many there are below each other."""
    under_way = [walk]
    while under_way:
        below = next(under_way[-1], None)
        if below is None:
            under_way.pop()
        else:
            under_way.append(below)


def _version(
    session: Session, storage: Storage, chain: list[Node], name: str, row: ModelVersion, of: str | None, **details: Any
) -> Walk:
    """The version and all that it comes from; a version that was met already is not told again."""
    own = f"{name}/{row.version}"
    known = any(node.what == "version" and node.id == own for node in chain)
    spec = row.spec
    # Of the file, which names the digests of all others; the row's copy may come back in another order.
    digest = hashlib.sha256(storage.fetch(f"{row.prefix}/{bundle.SPEC}").read_bytes()).hexdigest()
    files = {file: entry["sha256"] for file, entry in spec["files"].items()}
    told = {"files": files, "created_at": row.created_at.isoformat(), **details}
    if row.origin is not None:
        told |= {"origin": row.origin}
    chain.append(Node("version", own, digest, of, True, told))
    if known:
        return
    if row.origin is not None:
        _from_elsewhere(chain, spec, own)
        return
    if row.job_id is not None:
        job = session.get(Job, row.job_id)
        told = {} if job is None else {"kind": job.kind, "state": job.state, "attempt": job.attempt}
        told |= {"recipe": spec["recipe"], "seed": spec["seed"], "libraries": spec["libraries"]}
        chain.append(Node("job", row.job_id, None, own, job is not None, told))
    yield _added(session, storage, chain, row, own)
    for role in ("dataset", "source"):
        if spec.get(role) is not None:
            _dataset(session, row.project_id, chain, role, spec[role], own)
    yield _backbone(session, storage, chain, row, own)


def _from_elsewhere(chain: list[Node], spec: dict[str, Any], own: str) -> None:
    """What an imported bundle says of itself; names in it mean nothing here, even where something has the same."""
    used = {role: spec[role] for role in ("dataset", "source") if spec.get(role) is not None}
    chain += [Node(role, one["id"], one["digest"], own, False, {"splits": one["splits"]}) for role, one in used.items()]
    network = spec["files"][bundle.BACKBONE]
    told = {"graph_sha256": network["sha256"], "weights_changed": network["key"] is None}
    below = spec["backbone"]
    chain.append(Node("backbone", below["name"], below["digest"], own, False, {"licence": below["licence"], **told}))


def _added(session: Session, storage: Storage, chain: list[Node], row: ModelVersion, own: str) -> Walk:
    """The version that a class was added to."""
    added = row.spec.get("added")
    if added is None:
        return
    told = {"through": "a class was added", "label": added["label"], "num_images": added["num_images"]}
    base = _find(session, row.project_id, added["model"], added["version"])
    if base is None:
        chain.append(Node("version", f"{added['model']}/{added['version']}", None, own, False, told))
    else:
        yield _version(session, storage, chain, added["model"], base, own, **told)


def _dataset(session: Session, project: str, chain: list[Node], role: str, used: dict[str, Any], of: str) -> None:
    """A dataset as it was used, and its bases."""
    family = datasets.family(session, project, used["id"])
    row = family[0] if family else None
    told = {"splits": used["splits"], **({} if row is None else _facts(row))}
    chain.append(Node(role, used["id"], used["digest"], of, row is not None and row.digest == used["digest"], told))
    for child, base in pairwise(family):
        chain.append(Node("base", base.id, base.digest, child.id, True, {"splits": base.splits, **_facts(base)}))


def _facts(row: Dataset) -> dict[str, Any]:
    return {"name": row.name, "num_samples": row.num_samples, "created_at": row.created_at.isoformat()}


def _backbone(session: Session, storage: Storage, chain: list[Node], row: ModelVersion, of: str) -> Walk:
    """The backbone; of an own one, what it was made from."""
    used, network = row.spec["backbone"], row.spec["files"][bundle.BACKBONE]
    told = {"licence": used["licence"], "graph_sha256": network["sha256"], "weights_changed": network["key"] is None}
    yield _network(session, storage, chain, row.project_id, used, told, of)


def _network(
    session: Session,
    storage: Storage,
    chain: list[Node],
    project: str,
    used: dict[str, Any],
    told: dict[str, Any],
    of: str,
    remembered: dict[str, Any] | None = None,
) -> Walk:
    """A backbone as it was used, and the version whose trained network it is.

    Args:
        session: the open transaction.
        storage: where bundles are.
        chain: is written to.
        project: owner.
        used: its name and digest.
        told: details.
        of: the node that was made of it.
        remembered: the version behind it as a later backbone wrote it down; counts where the own one was deleted.
    """
    name = used["name"]
    own = session.scalar(select(UserBackbone).where(UserBackbone.project_id == project, UserBackbone.name == name))
    source = remembered if own is None else own.document.get("source")
    if own is not None:
        told = {**told, "own": True, "architecture": own.document["architecture"], "source": source}
        told |= {"taught_by": own.document.get("taught_by")}
    known = any(node.what == "backbone" and node.id == name for node in chain)
    present = own is not None or not name.startswith("user/")
    chain.append(Node("backbone", name, used.get("digest"), of, present, told))
    if source is None or known:
        return
    version = session.get(ModelVersion, source["version_id"])
    link = {"through": "its trained network became the backbone"}
    if version is None:
        yield _deleted(session, storage, chain, project, source, name, link)
    else:
        yield _version(session, storage, chain, session.get_one(Model, version.model_id).name, version, name, **link)


def _deleted(
    session: Session,
    storage: Storage,
    chain: list[Node],
    project: str,
    source: dict[str, Any],
    of: str,
    link: dict[str, Any],
) -> Walk:
    """A version that is gone, and what the backbone made of its network has kept of it."""
    place = f"{source['model']}/{source['version']}"
    chain.append(Node("version", place, None, of, False, {**link, "remembered_by": of}))
    if source.get("job") is not None:
        job = session.get(Job, source["job"])
        chain.append(Node("job", source["job"], None, place, job is not None, {}))
    # Backbones from before such records name the dataset and the network below, without a digest.
    old = {"dataset": {"id": source["dataset"], "digest": None, "splits": {}}} if source.get("dataset") else {}
    for role, used in source.get("data", old).items():
        _dataset(session, project, chain, role, used, place)
    below = source.get("network") or {"name": source.get("backbone")}
    if below["name"] is not None:
        told = {"licence": below["licence"]} if "licence" in below else {}
        yield _network(session, storage, chain, project, below, told, place, source.get("below"))


def _alignments(session: Session, chain: list[Node], name: str, row: ModelVersion) -> None:
    """Alignments that domains of the model are bound to, where they fit this version."""
    for bound, found in domains.every(session, row.project_id, name):
        try:
            domains.check_fits(row, name, bound.domain, found)
        except Conflict:
            # Of another version's backbone: this one is never called through it.
            continue
        recipe = found.recipe
        told = {"domain": bound.domain, "number": found.number, "method": recipe["method"]}
        told |= {"source": recipe["source"], "target": recipe.get("target") or recipe["source"]}
        digest = found.files[artifact.GRAPH]["sha256"] if found.files else None
        chain.append(Node("alignment", found.id, digest, f"{name}/{row.version}", True, told))


def _trace(session: Session, storage: Storage, row: ModelVersion) -> tuple[dict[str, Any], list[str], str | None]:
    """What the job found out about the test items; of a version with an added class, what its base's did."""
    while row.origin is None and (added := row.spec.get("added")) is not None:
        base = _find(session, row.project_id, added["model"], added["version"])
        if base is None:
            return NO_ITEMS, [], BASE_GONE
        row = base
    if row.origin is not None:
        return NO_ITEMS, [], ELSEWHERE
    report = json.loads(storage.fetch(f"{row.prefix}/{bundle.REPORT}").read_text("utf-8"))
    data = report.get("data")
    if data is None:
        old = row.spec.get("dataset") is not None
        return {**NO_ITEMS, "num_test": None if old else 0}, [], OLD if old else NOTHING_TESTED
    if "lineage" not in data:
        return NO_ITEMS, [], OLD
    found = data["lineage"]
    return found["items"], report.get("warnings", []), found["unknown"]


def _find(session: Session, project: str, name: str, number: int) -> ModelVersion | None:
    try:
        return models.version(session, project, name, number)
    except NotFound:
        return None
