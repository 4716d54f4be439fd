"""What happens is told in the transaction in which it happens, on both databases."""

import json

import pytest
from sqlalchemy import select

from app.db.webhooks import WebhookDelivery
from app.errors import Conflict
from app.services import aliases, attempts, jobs, outcomes, webhooks
from app.services.aliases import Target
from tests import factories
from tests.app.services.test_outcomes import OWNER, RESULT, running


def told(database, hook_id=None):
    """(type, data) of everything that waits, oldest first."""
    with database.read() as session:
        query = select(WebhookDelivery).order_by(WebhookDelivery.id)
        rows = session.scalars(query.where(WebhookDelivery.webhook_id == hook_id) if hook_id else query).all()
    bodies = [json.loads(row.body) for row in rows]
    assert [(body["id"], body["type"]) for body in bodies] == [(row.event_id, row.type) for row in rows]
    return sorted(((body["type"], body["data"]) for body in bodies), key=lambda one: one[1].get("seq", 0))


def listening(database, **fields):
    with database.write() as session:
        return factories.webhook(session, **fields).id


def test_life_of_a_transfer(database):
    listening(database)
    job_id = running(database)
    with database.write() as session:
        outcomes.succeed(session, job_id, OWNER, RESULT)
    (published, model), (started, begun), (succeeded, ended) = told(database)
    assert (published, started, succeeded) == ("model.version_published", "job.started", "job.succeeded")
    assert model == {"model": "colours", "version": 1, "job_id": job_id, "metrics": {"test_accuracy": 0.9}}
    assert (begun["id"], begun["state"], begun["attempt"], begun["model"]) == (job_id, "running", 1, None)
    assert ended == {
        "id": job_id, "kind": "transfer", "state": "succeeded", "seq": 3, "attempt": 1, "dataset": None,
        "model": {"name": "colours", "version": 1}, "metrics": {"test_accuracy": 0.9}, "failure": None,
    }  # fmt: skip
    with database.read() as session:
        log, _ = jobs.events(session, job_id, 0, 100)
    assert [event.seq for event in log if event.data.get("state")] == [begun["seq"], ended["seq"]]


def test_failures_and_those_that_waited_for_them(database):
    listening(database)
    job_id = running(database)
    with database.write() as session:
        other = factories.job(session, depends_on=(job_id,)).id
    with database.write() as session:
        outcomes.fail(session, job_id, OWNER, "out_of_memory", "too large")
    assert [(kind, data["id"]) for kind, data in told(database)] == [
        ("job.started", job_id), ("job.cancelled", other), ("job.failed", job_id),
    ]  # fmt: skip
    assert told(database)[-1][1]["failure"] == {"code": "out_of_memory", "message": "too large"}


def test_what_is_rolled_back_is_not_told(database):
    listening(database)
    one, other = running(database), running(database)
    with database.write() as session:
        outcomes.succeed(session, one, OWNER, RESULT)
    before = len(told(database))
    changed = {**RESULT, "spec": {**factories.SPEC, "labels": ["green"]}}
    with database.write() as session, pytest.raises(Conflict), session.begin_nested():
        outcomes.succeed(session, other, OWNER, changed)
    with pytest.raises(attempts.LeaseLost), database.write() as session:
        outcomes.fail(session, one, "somebody else", "internal", "late")
    assert len(told(database)) == before


def test_datasets_and_their_end(database):
    listening(database, events=["dataset.ready", "dataset.invalid"])
    with database.write() as session:
        ids = [factories.dataset(session, state="ingesting").id for _ in range(2)]
    good = running(database, kind="ingest", dataset_id=ids[0])
    found = {
        "failure": None, "task": "classification", "num_samples": 3, "classes": [], "splits": {}, "digest": "d",
        "size_bytes": 1, "problems": [],
    }  # fmt: skip
    with database.write() as session:
        outcomes.succeed(session, good, OWNER, found)
    bad = running(database, kind="ingest", dataset_id=ids[1])
    with database.write() as session:
        outcomes.fail(session, bad, OWNER, "worker_lost", "gone")
    heard = dict(told(database))
    assert {kind: (data["id"], data["state"]) for kind, data in heard.items()} == {
        "dataset.ready": (ids[0], "ready"), "dataset.invalid": (ids[1], "invalid"),
    }  # fmt: skip
    assert heard["dataset.invalid"]["failure"] == {"code": "worker_lost", "message": "gone"}


def test_promotion_and_rollback(database):
    listening(database, events=["model.alias_moved"])
    with database.write() as session:
        factories.model(session, num_versions=2)
        for version in (1, 1, 2):
            aliases.point(session, "default", "colours", "production", Target(version))
        aliases.roll_back(session, "default", "colours", "production", Target(1))
        aliases.remove(session, "default", "colours", "production")
    moves = [(data["how"], data["before"], data["version"]) for _, data in told(database)]
    assert sorted(moves, key=str) == sorted(
        [("pointed", None, 1), ("pointed", 1, 2), ("rolled_back", 2, 1), ("removed", 1, None)], key=str
    )


def test_only_those_hear_who_listen(database):
    everything, failures = listening(database), listening(database, events=["job.failed"])
    listening(database, enabled=False)
    with database.write() as session:
        foreign = factories.webhook(session, project_id=factories.project(session, "mine")).id
    job_id = running(database)
    with database.write() as session:
        outcomes.fail(session, job_id, OWNER, "internal", "bad")
    assert [kind for kind, _ in told(database, everything)] == ["job.started", "job.failed"]
    assert [kind for kind, _ in told(database, failures)] == ["job.failed"]
    assert told(database, foreign) == []
    with database.read() as session:
        ids = session.scalars(select(WebhookDelivery.event_id).where(WebhookDelivery.type == "job.failed")).all()
    assert len(set(ids)) == 1, "one event is one event, whoever hears of it"
    assert len(ids) == 2


def test_a_job_ends_while_its_receiver_is_deleted(database, second):
    hook = listening(database)
    job_id = running(database)
    with database.write() as session:
        outcomes.fail(session, job_id, OWNER, "internal", "bad")
        gone = second(lambda session: webhooks.delete(session, "default", hook))
    gone.result(30)
    other = running(database)
    hook = listening(database)
    with database.write() as session:
        webhooks.delete(session, "default", hook)
        failed = second(lambda session: outcomes.fail(session, other, OWNER, "internal", "bad"))
    failed.result(30)
    assert told(database) == []
    with database.read() as session:
        assert jobs.get(session, "default", other).state == "failed"
