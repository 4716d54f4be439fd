"""Evaluations as rows: what a job's end does to them, and a dataset that is being deleted at the same moment."""

import pytest
from pydantic import TypeAdapter

from app.db.models import Job
from app.db.studies import Evaluation
from app.errors import GraftError
from app.evaluations import AnyEvaluation
from app.services import attempts, datasets, evaluations, outcomes
from tests import factories

OWNER = "w1/1"
BODY = TypeAdapter(AnyEvaluation)


@pytest.fixture
def wish(database):
    with database.write() as session:
        dataset = factories.dataset(session).id
        factories.model(session, spec={**factories.SPEC, "dataset": None, "source": None})
    return BODY.validate_python({"dataset": dataset, "model": "colours"})


def running(database, wish):
    """An evaluation whose job a worker has taken."""
    with database.write() as session:
        made = evaluations.create(session, "default", wish, False)
        claimed = attempts.claim(session, ["cpu"], OWNER, 60)
        assert claimed.id == made.job_id
    return made.id, made.job_id


def row(database, evaluation_id):
    with database.read() as session:
        return session.get_one(Evaluation, evaluation_id)


def test_success_makes_it_ready_and_frees_what_methods_left(database, wish):
    evaluation_id, job_id = running(database, wish)
    with database.write() as session:
        waste = outcomes.succeed(session, job_id, OWNER, {"result": {"a": 1}, "metrics": {"accuracy": 0.5}})
    assert waste == [f"checkpoints/default/{job_id}"]
    found = row(database, evaluation_id)
    assert (found.state, found.result) == ("ready", {"a": 1})
    assert found.finished_at is not None
    with database.read() as session:
        assert session.get_one(Job, job_id).metrics == {"accuracy": 0.5}


def test_failure_is_told_on_the_evaluation(database, wish):
    evaluation_id, job_id = running(database, wish)
    with database.write() as session:
        waste = outcomes.fail(session, job_id, OWNER, "version_deleted", "gone")
    assert f"checkpoints/default/{job_id}" in waste
    found = row(database, evaluation_id)
    assert (found.state, found.failure_code, found.failure_message) == ("failed", "version_deleted", "gone")


def test_a_dataset_that_is_being_deleted_is_waited_for(database, second, wish):
    with database.write() as session:
        datasets.delete(session, "default", wish.dataset)
        waiting = second(lambda session: evaluations.create(session, "default", wish, False))
    with pytest.raises(GraftError) as caught:
        waiting.result(30)
    assert caught.value.code == "not_found"


def test_the_family_of_a_dataset(database):
    with database.write() as session:
        base = factories.dataset(session).id
        child = factories.dataset(session, base_id=base).id
        grandchild = factories.dataset(session, base_id=child).id
        assert [one.id for one in datasets.family(session, "default", grandchild)] == [grandchild, child, base]
        assert datasets.family(session, "default", "ds_gone") == []
