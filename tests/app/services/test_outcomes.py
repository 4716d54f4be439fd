"""Results that become rows, on both databases."""

import pytest
from sqlalchemy import func, select

from app.backbones import InputChanges
from app.db.forecasts import ForecastRow
from app.db.models import Dataset, Job, Model, ModelVersion, Problem, Project, Report, UserBackbone
from app.errors import Conflict
from app.services import (
    aliases,
    attempts,
    datasets,
    job_requests,
    jobs,
    limits,
    models,
    outcomes,
    own_backbones,
    stored_bytes,
)
from app.services.aliases import Target
from app.states import FINAL
from tests import factories

OWNER = "me"
RESULT = {"prefix": "bundles/a", "spec": factories.SPEC, "metrics": {"test_accuracy": 0.9}, "report": {"verdict": None}}


def running(database, **fields):
    with database.write() as session:
        job_id = factories.job(session, **fields).id
        assert attempts.claim(session, ["cpu"], OWNER, 60).id == job_id
    return job_id


def succeed(database, job_id, result=RESULT):
    with database.write() as session:
        return outcomes.succeed(session, job_id, OWNER, result)


def test_transfer_publishes_its_model(database):
    numbers = []
    for _ in range(2):
        job_id = running(database, model_name="colours")
        assert succeed(database, job_id) == [f"checkpoints/default/{job_id}"]
        with database.read() as session:
            job = session.get_one(Job, job_id)
            assert (job.state, job.metrics, job.progress["fraction"]) == ("succeeded", {"test_accuracy": 0.9}, 1.0)
            assert session.get_one(Report, job_id).document == {"verdict": None}
            name, number = models.of_jobs(session, [job_id])[job_id]
            assert name == "colours"
            numbers.append(number)
            last = jobs.events(session, job_id, 0, 100)[0][-1]
            assert last.data == {"state": "succeeded", "model": "colours", "version": number}
    assert numbers == [1, 2]


def test_numbers_are_never_given_out_again(database):
    for _ in range(2):
        succeed(database, running(database))
    with database.write() as session:
        version_id = models.version(session, "default", "colours", 2).id
        gone = models.delete_version(session, "default", "colours", 2)
    assert gone == ["bundles/a", f"observed/default/{version_id}"]
    succeed(database, running(database))
    with database.read() as session:
        assert session.scalars(select(ModelVersion.version).order_by(ModelVersion.version)).all() == [1, 3]


def test_two_jobs_that_make_one_model_at_once(database, second):
    one, other = running(database), running(database)
    with database.write() as session:
        outcomes.succeed(session, one, OWNER, RESULT)
        waiting = second(lambda session: outcomes.succeed(session, other, OWNER, RESULT))
    waiting.result(30)
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(Model)) == 1
        assert models.of_jobs(session, [one, other]) == {one: ("colours", 1), other: ("colours", 2)}


def test_labels_that_changed_meanwhile_are_refused(database, second):
    one, other = running(database), running(database)
    changed = {**RESULT, "spec": {**factories.SPEC, "labels": ["green"]}}
    with database.write() as session:
        outcomes.succeed(session, one, OWNER, RESULT)
        waiting = second(lambda session: outcomes.succeed(session, other, OWNER, changed))
    with pytest.raises(Conflict) as caught:
        waiting.result(30)
    assert caught.value.code == "label_change"
    with database.read() as session:
        assert session.get_one(Job, other).state == "running"
        assert session.scalars(select(ModelVersion.version)).all() == [1]


def test_labels_may_change_where_it_was_allowed(database):
    succeed(database, running(database))
    changed = {**RESULT, "spec": {**factories.SPEC, "labels": ["green"]}}
    succeed(database, running(database, allow_label_change=True), changed)
    with database.read() as session:
        assert models.resolve(session, "default", "colours", None, None).spec["labels"] == ["green"]


def ingestion(database, **fields):
    with database.write() as session:
        dataset_id = factories.dataset(session, state="ingesting", digest=None, num_samples=0, classes=[], splits={}).id
    return dataset_id, running(database, kind="ingest", dataset_id=dataset_id, **fields)


FINDING = {"severity": "warning", "code": "duplicate", "path": "a.png", "message": "twice", "fix": "remove one"}
INGESTED = {
    "failure": None, "task": "classification", "num_samples": 4, "classes": [{"name": "red", "num_samples": 4}],
    "splits": {"train": 2, "val": 1, "test": 1}, "digest": "e" * 64, "size_bytes": 99, "problems": [FINDING, FINDING],
}  # fmt: skip


def test_ingestion_makes_the_dataset_ready(database):
    dataset_id, job_id = ingestion(database)
    assert succeed(database, job_id, INGESTED) == [f"incoming/default/{dataset_id}"]
    with database.read() as session:
        row = session.get_one(Dataset, dataset_id)
        assert (row.state, row.num_samples, row.num_problems, row.digest) == ("ready", 4, 2, "e" * 64)
        assert (row.failure_code, row.size_bytes, row.splits["val"]) == (None, 99, 1)
        assert [item.seq for item in session.scalars(select(Problem).order_by(Problem.seq))] == [1, 2]
        assert session.get_one(Job, job_id).state == "succeeded"


def test_refused_data_is_the_datasets_and_the_jobs_failure(database):
    dataset_id, job_id = ingestion(database)
    failure = {"code": "one_class", "message": "expected two classes; found one"}
    waste = succeed(database, job_id, {**INGESTED, "failure": failure})
    assert set(waste) == {f"incoming/default/{dataset_id}", f"datasets/default/{dataset_id}"}
    with database.read() as session:
        row, job = session.get_one(Dataset, dataset_id), session.get_one(Job, job_id)
    assert (row.state, row.failure_code) == ("invalid", "one_class")
    assert (job.state, job.failure_code, job.failure_message) == ("failed", "dataset_invalid", failure["message"])


def test_a_dataset_that_is_larger_than_it_came_is_refused_where_there_is_no_room(database):
    dataset_id, job_id = ingestion(database)
    with database.write() as session:
        session.get_one(Dataset, dataset_id).size_bytes = 50
        limits.put(session, "default", limits.Limits(max_bytes=98))
    waste = succeed(database, job_id, INGESTED)
    assert set(waste) == {f"incoming/default/{dataset_id}", f"datasets/default/{dataset_id}"}
    with database.read() as session:
        row, job = session.get_one(Dataset, dataset_id), session.get_one(Job, job_id)
    assert (row.state, row.failure_code, row.size_bytes, row.num_samples) == ("invalid", "too_many_bytes", 0, 0)
    assert "found 50, and 49 more to come" in row.failure_message
    assert (job.state, job.failure_code, job.failure_message) == ("failed", "dataset_invalid", row.failure_message)


def test_an_ingestion_ends_while_somebody_makes_a_job_that_waits_for_it(database, second):
    """Who makes one holds the project and then wants the row of the job that is to end."""
    dataset_id, job_id = ingestion(database)
    with database.write() as session:
        session.get_one(Dataset, dataset_id).size_bytes = 50
        limits.put(session, "default", limits.Limits(max_bytes=1000))
    with database.write() as session:
        limits.check_bytes(session, "default", 0)
        ending = second(lambda other: outcomes.succeed(other, job_id, OWNER, INGESTED))
        session.execute(select(Job.id).where(Job.id == job_id).with_for_update())
    ending.result(30)
    with database.read() as session:
        assert session.get_one(Dataset, dataset_id).state == "ready"


def test_a_dataset_that_fits_is_ready_in_a_full_project(database):
    dataset_id, job_id = ingestion(database)
    with database.write() as session:
        session.get_one(Dataset, dataset_id).size_bytes = 99
        limits.put(session, "default", limits.Limits(max_bytes=10))
    succeed(database, job_id, INGESTED)
    with database.read() as session:
        assert session.get_one(Dataset, dataset_id).state == "ready"


def test_failed_ingestion_leaves_no_waiting_dataset(database):
    dataset_id, job_id = ingestion(database)
    with database.write() as session:
        waste = outcomes.fail(session, job_id, OWNER, "internal", "no room")
    assert set(waste) == {f"incoming/default/{dataset_id}", f"datasets/default/{dataset_id}"}
    with database.read() as session:
        row = session.get_one(Dataset, dataset_id)
    assert (row.state, row.failure_code, row.failure_message) == ("invalid", "internal", "no room")


def cancel_while_it_runs(session, job_id):
    job_requests.cancel(session, "default", job_id)
    attempts.hand_back(session, session.get_one(Job, job_id), "cancelled", 3)
    outcomes.clear(session, session.get_one(Job, job_id), "cancelled", "cancelled")


def cancel_before_it_starts(session, job_id):
    attempts.hand_back(session, session.get_one(Job, job_id), "the worker shuts down", 3, counts=False)
    outcomes.cancel(session, "default", job_id)


def lose(session, job_id):
    attempts.hand_back(session, session.get_one(Job, job_id), "fell silent", 1)
    outcomes.clear(session, session.get_one(Job, job_id), "worker_lost", "fell silent")


NOTHING = {**INGESTED, "num_samples": 0, "digest": None, "size_bytes": 0,
           "failure": {"code": "one_class", "message": "expected two"}}  # fmt: skip
ENDS = {
    "ready": (lambda session, job_id: outcomes.succeed(session, job_id, OWNER, INGESTED), 99),
    "invalid": (lambda session, job_id: outcomes.succeed(session, job_id, OWNER, NOTHING), 0),
    "failed": (lambda session, job_id: outcomes.fail(session, job_id, OWNER, "internal", "no room"), 0),
    "cancelled": (cancel_while_it_runs, 0),
    "never started": (cancel_before_it_starts, 0),
    "lost": (lose, 0),
}


@pytest.mark.parametrize("end", ENDS)
def test_what_an_ingestion_leaves_is_what_counts(database, end):
    """Whatever was sent is given up, and does not count for ever."""
    dataset_id, job_id = ingestion(database)
    finish, size_bytes = ENDS[end]
    with database.write() as session:
        session.get_one(Dataset, dataset_id).size_bytes = 1000
        assert stored_bytes.of_rows(session, "default")["default"]["datasets"] == 1000
        finish(session, job_id)
    with database.read() as session:
        assert session.get_one(Job, job_id).state in FINAL
        assert stored_bytes.of_rows(session, "default")["default"]["datasets"] == size_bytes


def test_what_a_job_says_of_strange_text_is_stored_as_it_is_spelled(database):
    dataset_id, job_id = ingestion(database)
    with database.write() as session:
        attempts.record(session, job_id, OWNER, [{"type": "log", "message": "a\0"}], None)
        outcomes.fail(session, job_id, OWNER, "weights_unavailable", "found \ud800")
    with database.read() as session:
        row, job = session.get_one(Dataset, dataset_id), session.get_one(Job, job_id)
        said = [one.message for one in jobs.events(session, job_id, 0, 100)[0]]
    assert (row.failure_message, job.failure_message) == ("found \\ud800",) * 2
    assert said[-2:] == ["a\\x00", "found \\ud800"]


def test_failed_transfer_keeps_its_checkpoints_for_a_retry(database):
    job_id = running(database)
    with database.write() as session:
        assert outcomes.fail(session, job_id, OWNER, "diverged", "not finite") == []


@pytest.mark.parametrize(
    ("end", "left"),
    [(None, ["b"]), ("succeed", ["b", "checkpoints"]), ("fail", ["b"]), ("cancel", ["b", "checkpoints"])],
)
def test_what_a_late_attempt_has_stored_in_vain(database, end, left):
    job_id = running(database)
    with database.write() as session:
        attempts.hand_back(session, session.get_one(Job, job_id), "fell silent", 3)
        attempts.claim(session, ["cpu"], OWNER, 60)
    if end == "succeed":
        succeed(database, job_id)
    with database.write() as session:
        if end == "fail":
            outcomes.fail(session, job_id, OWNER, "diverged", "not finite")
        elif end == "cancel":
            job_requests.cancel(session, "default", job_id)
            attempts.hand_back(session, session.get_one(Job, job_id), "cancelled", 3)
        expected = [f"checkpoints/default/{job_id}" if one == "checkpoints" else one for one in left]
        assert outcomes.late(session, job_id, 1, "b") == expected


def test_a_late_ingestion_leaves_no_files_of_a_dataset_that_is_gone(database):
    dataset_id, job_id = ingestion(database)
    succeed(database, job_id, INGESTED)
    with database.write() as session:
        assert f"datasets/default/{dataset_id}" not in outcomes.late(session, job_id, 0, "b")
        datasets.delete(session, "default", dataset_id)
        assert f"datasets/default/{dataset_id}" in outcomes.late(session, job_id, 0, "b")


def test_unknown_failure_code_is_a_mistake_of_ours():
    from app.errors import JobFailure

    with pytest.raises(ValueError, match="unknown failure code"):
        JobFailure("strange", "?")


@pytest.mark.parametrize("refused", [True, False])
def test_own_backbone(database, refused):
    with database.write() as session:
        file = own_backbones.Checkpoint("incoming/default/x", 10, InputChanges())
        row = own_backbones.add(session, "default", "mine", "timm/tf_efficientnet_lite0", file)
        attempts.claim(session, ["cpu"], OWNER, 60)
    document = {"backbone": {"name": "user/mine"}, "architecture": "timm/tf_efficientnet_lite0"}
    result = {"failure": "too few tensors" if refused else None, "mapping": {"mapped": 3}, "document": document}
    assert succeed(database, row.job_id, result) == ["incoming/default/x"]
    with database.read() as session:
        found, job = session.get_one(UserBackbone, row.id), session.get_one(Job, row.job_id)
    assert found.mapping == {"mapped": 3}
    if refused:
        assert (found.state, found.failure_message) == ("invalid", "too few tensors")
        assert (job.state, job.failure_code) == ("failed", "weights_unavailable")
    else:
        assert (found.state, found.document) == ("ready", document)
        assert job.state == "succeeded"


def test_aliases_and_removals_take_turns(database, second):
    with database.write() as session:
        factories.model(session, "colours", 2)
    with database.write() as session:
        models.delete_version(session, "default", "colours", 1)
        waiting = second(lambda session: aliases.point(session, "default", "colours", "production", Target(1)))
    with pytest.raises(Exception, match="no version 1"):
        waiting.result(30)
    with database.write() as session:
        aliases.point(session, "default", "colours", "production", Target(2))
        waiting = second(lambda session: models.delete_version(session, "default", "colours", 2))
    with pytest.raises(Conflict):
        waiting.result(30)


FORECAST = {
    "expected": 0.8, "low": 0.7, "high": 0.9, "found": 0.7, "error": -0.1, "inside": True, "method": "linear_probe",
    "num_images": 120, "what": "ridge", "more_images": None,
}  # fmt: skip


def test_a_forecast_is_kept_with_its_job_and_counted(database):
    job_id = running(database)
    succeed(database, job_id, {**RESULT, "report": {"verdict": None, "forecast": FORECAST}})
    succeed(database, running(database), {**RESULT, "report": {"verdict": None, "forecast": None}})
    with database.read() as session:
        row = session.scalars(select(ForecastRow)).one()
        assert (row.job_id, row.project_id, row.method, row.num_images) == (job_id, "default", "linear_probe", 120)
        assert (row.expected, row.low, row.high, row.found) == (0.8, 0.7, 0.9, 0.7)
        assert session.get_one(Project, "default").num_forecasts == 1


def test_a_transfer_that_is_refused_at_its_end_leaves_no_forecast(database):
    succeed(database, running(database))
    changed = {**RESULT, "spec": {**factories.SPEC, "labels": ["green"]}, "report": {"forecast": FORECAST}}
    with pytest.raises(Conflict):
        succeed(database, running(database), changed)
    with database.read() as session:
        assert session.scalars(select(ForecastRow)).all() == []
        assert session.get_one(Project, "default").num_forecasts == 0
