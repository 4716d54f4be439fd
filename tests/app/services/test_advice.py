"""Advice as rows: what a job's end does to it, what applying it makes, and who comes first."""

import pytest
from sqlalchemy import select

from app.advice import AdviceRequest, ApplyRequest
from app.db.models import Dataset, Job
from app.db.studies import Advice
from app.errors import GraftError
from app.services import advice, attempts, datasets, jobs, outcomes, studies
from tests import factories
from tests.factories import suggestion

OWNER = "w1/1"


@pytest.fixture
def dataset_id(database):
    with database.write() as session:
        return factories.dataset(session).id


def running(database, dataset_id):
    """Advice whose job a worker has taken."""
    with database.write() as session:
        made = advice.create(session, "default", dataset_id, AdviceRequest(), False)
        assert attempts.claim(session, ["cpu"], OWNER, 60).id == made.job_id
    return made.id, made.job_id


def row(database, advice_id):
    with database.read() as session:
        return session.get_one(Advice, advice_id)


def test_success_and_failure_are_told_on_the_advice(database, dataset_id):
    advice_id, job_id = running(database, dataset_id)
    with database.write() as session:
        left = outcomes.succeed(session, job_id, OWNER, {"result": {"counts": {}}, "metrics": {"num_outlier": 2}})
        assert left == [f"checkpoints/default/{job_id}"]
    found = row(database, advice_id)
    assert (found.state, found.result, found.failure_code) == ("ready", {"counts": {}}, None)
    with database.read() as session:
        assert session.get_one(Job, job_id).metrics == {"num_outlier": 2}
    failing, job_id = running(database, dataset_id)
    with database.write() as session:
        waste = outcomes.fail(session, job_id, OWNER, "dataset_invalid", "one picture")
    assert sorted(waste) == [f"checkpoints/default/{job_id}", studies.prefix("default", failing)]
    assert (row(database, failing).state, row(database, failing).failure_message) == ("failed", "one picture")


def test_the_other_dataset_is_kept_while_it_is_needed(database, dataset_id):
    with database.write() as session:
        other = factories.dataset(session).id
        made = advice.create(session, "default", dataset_id, AdviceRequest(against=other), False)
        assert {role: one.id for role, one in jobs.datasets(session, made.job_id).items()} == {"against": other}
        with pytest.raises(GraftError) as caught:
            datasets.delete(session, "default", other)
    assert caught.value.code == "in_use"


def test_lists_are_of_one_dataset_where_asked(database, dataset_id):
    with database.write() as session:
        mine = [factories.advice(session, dataset_id).id for _ in range(3)]
        factories.advice(session, "ds_other")
    with database.read() as session:
        found, more = advice.page(session, "default", 2, None, dataset_id)
        assert ([one.id for one in found], more) == (mine[:0:-1], True)
        found, more = advice.page(session, "default", 10, mine[1], dataset_id)
        assert ([one.id for one in found], more) == ([mine[0]], False)
        assert len(advice.page(session, "default", 10, None)[0]) == 4


def test_applying_makes_a_child_with_its_ingestion(database, dataset_id):
    with database.write() as session:
        findings = (
            suggestion("label_error", "relabel", "s1", label="blue"),
            suggestion("near_duplicate", "remove", "s2", "s3"),
            suggestion("outlier", "remove", "s3"),
        )
        made = factories.advice(session, dataset_id, findings)
        wish = ApplyRequest(kinds=("label_error", "near_duplicate", "outlier"), name="mended")
        child = advice.apply(session, "default", made.id, wish)
        job = session.get_one(Job, child.job_id)
    assert (child.base_id, child.name, child.state, child.seed) == (dataset_id, "mended", "ingesting", 0)
    assert job.inputs["remove"] == ["s2", "s3"]
    assert job.inputs["relabel"] == {"s1": "blue"}


def test_kinds_leave_the_test_split_alone_and_ids_do_not(database, dataset_id):
    tested = {"s2": {"path": "b", "label": "red", "split": "test"}}
    findings = tuple(suggestion("label_error", "relabel", name, label="blue") for name in ("s1", "s2"))
    with database.write() as session:
        made = factories.advice(session, dataset_id, findings, samples=tested)
        by_kind = advice.apply(session, "default", made.id, ApplyRequest(kinds=("label_error",)))
        by_id = advice.apply(session, "default", made.id, ApplyRequest(findings=("label_error-2",)))
        assert session.get_one(Job, by_kind.job_id).inputs["relabel"] == {"s1": "blue"}
        assert session.get_one(Job, by_id.job_id).inputs["relabel"] == {"s2": "blue"}
        assert by_kind.name == "colours"


def test_a_dataset_that_is_being_deleted_is_waited_for(database, second, dataset_id):
    with database.write() as session:
        made = factories.advice(session, dataset_id, (suggestion("outlier", "remove", "s1"),))
    with database.write() as session:
        datasets.delete(session, "default", dataset_id)
        waiting = second(lambda session: advice.apply(session, "default", made.id, ApplyRequest(kinds=("outlier",))))
    with pytest.raises(GraftError) as caught:
        waiting.result(30)
    assert caught.value.code == "not_found"
    with database.read() as session:
        assert session.scalars(select(Dataset.id)).all() == []
