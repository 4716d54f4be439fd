"""Rankings as rows: what a job's end does to them."""

import pytest
from sqlalchemy import select

from app.db.models import Job
from app.db.studies import Ranking
from app.errors import GraftError
from app.rankings import RankingIn
from app.services import attempts, datasets, outcomes, rankings, studies
from tests import factories

OWNER = "w1/1"
RESULT = {"result": {"candidates": []}, "metrics": {"expected_accuracy": 0.5}}


@pytest.fixture
def wish(database):
    with database.write() as session:
        return RankingIn(dataset=factories.dataset(session).id, backbones=[factories.BACKBONE], seed=3)


def running(database, wish):
    """A ranking whose job a worker has taken."""
    with database.write() as session:
        made = rankings.create(session, "default", wish, False)
        claimed = attempts.claim(session, ["cpu"], OWNER, 60)
        assert claimed.id == made.job_id
        assert claimed.inputs == {"request": wish.model_dump(mode="json"), "study_id": made.id}
        assert (claimed.kind, claimed.dataset_id, claimed.seed) == ("rank", wish.dataset, 3)
    return made.id, made.job_id


def row(database, ranking_id):
    with database.read() as session:
        return session.get_one(Ranking, ranking_id)


def test_success_makes_it_ready(database, wish):
    ranking_id, job_id = running(database, wish)
    with database.write() as session:
        assert outcomes.succeed(session, job_id, OWNER, RESULT) == [f"checkpoints/default/{job_id}"]
    found = row(database, ranking_id)
    assert (found.state, found.result) == ("ready", RESULT["result"])
    with database.read() as session:
        job = session.get_one(Job, job_id)
        assert (job.state, job.metrics) == ("succeeded", RESULT["metrics"])
        assert studies.ready(session, Ranking, "default", ranking_id).id == ranking_id


def test_failure_and_cancelling_are_told(database, wish):
    ranking_id, job_id = running(database, wish)
    with database.write() as session:
        outcomes.fail(session, job_id, OWNER, "timed_out", "no time")
    assert (row(database, ranking_id).state, row(database, ranking_id).failure_message) == ("failed", "no time")
    with database.write() as session:
        waiting = rankings.create(session, "default", wish, False)
        outcomes.cancel(session, "default", waiting.job_id)
    assert (row(database, waiting.id).state, row(database, waiting.id).failure_code) == ("failed", "cancelled")


def test_the_queue_follows_the_workers(database, wish):
    with database.write() as session:
        factories.worker(session, queues=["gpu"])
        made = rankings.create(session, "default", wish, False)
        assert session.get_one(Job, made.job_id).queue == "gpu"


def test_a_dataset_that_is_being_deleted_is_waited_for(database, second, wish):
    with database.write() as session:
        datasets.delete(session, "default", wish.dataset)
        waiting = second(lambda session: rankings.create(session, "default", wish, False))
    with pytest.raises(GraftError) as caught:
        waiting.result(30)
    assert caught.value.code == "not_found"
    with database.read() as session:
        assert session.scalars(select(Ranking.id)).all() == []
