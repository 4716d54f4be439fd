"""Alignments and domains as rows: what a job's end does to them, and two transactions at once."""

import pytest
from sqlalchemy import select

from app.alignments import parse
from app.db.alignments import Alignment, DomainBinding
from app.db.models import Job
from app.errors import GraftError
from app.services import alignments, attempts, domains, jobs, models, outcomes
from app.states import DatasetState
from tests import factories

OWNER = "w1/1"
RESULT = {
    "prefix": "bundles/default/x/attempt-2", "files": {"alignment.onnx": {"sha256": "a" * 64, "size_bytes": 3}},
    "backbone_digest": "b" * 64, "moving_backbone": None, "result": {"dims": {"taken": 6, "given": 6}},
}  # fmt: skip


@pytest.fixture
def wish(database):
    with database.write() as session:
        source, target = (factories.dataset(session).id for _ in range(2))
    return parse({"method": "coral", "source": source, "target": target, "backbone": factories.BACKBONE})


def running(database, wish):
    """An alignment whose job a worker has taken."""
    with database.write() as session:
        made = alignments.create(session, "default", wish, False)
        claimed = attempts.claim(session, ["cpu"], OWNER, 60)
        assert claimed.id == made.job_id
        claimed.attempt = 2
        assert set(jobs.datasets(session, claimed.id)) == {"target"}
    return made.id, made.job_id


def row(database, alignment_id):
    with database.read() as session:
        return session.get_one(Alignment, alignment_id)


def test_success_makes_it_ready_and_frees_what_lost_attempts_left(database, wish):
    alignment_id, job_id = running(database, wish)
    with database.write() as session:
        waste = outcomes.succeed(session, job_id, OWNER, RESULT)
    assert waste == [f"bundles/default/{job_id}/attempt-1"]
    found = row(database, alignment_id)
    assert (found.state, found.prefix, found.backbone_digest) == ("ready", RESULT["prefix"], "b" * 64)
    assert found.finished_at is not None
    with database.read() as session:
        assert session.get_one(Job, job_id).state == "succeeded"


def test_failure_and_cancelling_are_told_on_the_alignment(database, wish):
    alignment_id, job_id = running(database, wish)
    with database.write() as session:
        outcomes.fail(session, job_id, OWNER, "dataset_invalid", "too few pairs")
    found = row(database, alignment_id)
    assert (found.state, found.failure_code, found.failure_message) == ("failed", "dataset_invalid", "too few pairs")
    with database.write() as session:
        waiting = alignments.create(session, "default", wish, False)
        outcomes.cancel(session, "default", waiting.job_id)
    assert (row(database, waiting.id).state, row(database, waiting.id).failure_code) == ("failed", "cancelled")


def test_the_queue_follows_the_workers(database, wish):
    with database.write() as session:
        factories.worker(session, queues=["gpu"])
        made = alignments.create(session, "default", wish, False)
        assert session.get_one(Job, made.job_id).queue == "gpu"


def test_a_dataset_that_is_being_deleted_is_waited_for(database, second, wish):
    from app.services import datasets

    with database.write() as session:
        datasets.delete(session, "default", wish.target)
        waiting = second(lambda session: alignments.create(session, "default", wish, False))
    with pytest.raises(GraftError) as caught:
        waiting.result(30)
    assert caught.value.code == "not_found"
    with database.read() as session:
        assert session.scalars(select(Alignment.id)).all() == []


def test_numbers_are_taken_one_by_one(database, second, wish):
    with database.write() as session:
        first = alignments.create(session, "default", wish, False).number
        waiting = second(lambda session: alignments.create(session, "default", wish, False).number)
    assert (first, waiting.result(30)) == (1, 2)


@pytest.fixture
def bindable(database):
    """A model on a shared backbone, and a ready alignment for it."""
    spec = {
        **factories.SPEC, "backbone": {"name": "x", "digest": "b" * 64}, "files": {"backbone.onnx": {"key": "k"}},
    }  # fmt: skip
    with database.write() as session:
        factories.model(session, "tiny", spec=spec)
        return factories.alignment(session).id


def test_of_a_deletion_and_a_binding_one_wins(database, second, bindable):
    with database.write() as session:
        alignments.delete(session, "default", bindable)
        waiting = second(lambda session: domains.bind(session, "default", "tiny", "night", bindable).domain)
    with pytest.raises(GraftError) as caught:
        waiting.result(30)
    assert caught.value.code == "not_found"
    with database.read() as session:
        assert domains.every(session, "default", "tiny") == []


def test_of_a_binding_and_a_deletion_one_wins(database, second, bindable):
    with database.write() as session:
        domains.bind(session, "default", "tiny", "night", bindable)
        waiting = second(lambda session: alignments.delete(session, "default", bindable))
    with pytest.raises(GraftError) as caught:
        waiting.result(30)
    assert caught.value.code == "in_use"


def test_two_first_bindings_of_one_domain(database, second, bindable):
    with database.write() as session:
        domains.bind(session, "default", "tiny", "night", bindable)
        waiting = second(lambda session: domains.bind(session, "default", "tiny", "night", bindable).domain)
    assert waiting.result(30) == "night"
    with database.read() as session:
        assert len(session.scalars(select(DomainBinding)).all()) == 1
        assert len(domains.history(session, "default", "tiny", "night", 10)[1]) == 1
        version = models.resolve(session, "default", "tiny", None, None)
        assert domains.resolve(session, "default", "tiny", version, "night").id == bindable


def test_a_dataset_in_the_making_is_refused(database, wish):
    with database.write() as session:
        waiting = factories.dataset(session, state=DatasetState.INGESTING).id
    with database.write() as session, pytest.raises(GraftError) as caught:
        alignments.create(session, "default", wish.model_copy(update={"target": waiting}), False)
    assert caught.value.code == "dataset_not_ready"
