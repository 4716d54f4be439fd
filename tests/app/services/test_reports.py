"""Full reports: the job that follows a transfer, what a reader is told meanwhile, and what it fills in."""

import pytest
from sqlalchemy import func, select

from app.db.models import Job, ModelVersion, Report
from app.db.studies import Evaluation
from app.errors import NotFound
from app.services import attempts, datasets, evaluations, jobs, limits, models, outcomes, reports
from app.services.attempts import LeaseLost
from app.services.limits import Limits
from tests import factories

OWNER = "me"
FILLS = ["verdict", "verdicts.vs_scratch", "baselines.scratch", "curve", "robustness", "forecast.more_images"]
REPORT = {
    "verdict": None, "verdicts": {"vs_scratch": None, "vs_frozen": "none"},
    "baselines": {"scratch": None, "frozen": {}}, "baselines_skipped": {"scratch": "later"},
    "curve": None, "robustness": None, "flags": [{"code": "few"}],
    "forecast": {"expected": 0.8, "low": 0.7, "high": 0.9, "found": 0.8, "method": "linear_probe", "num_images": 9,
                 "more_images": None, "more_images_skipped": "later"},
    "decisions": [{"step": "a"}], "not_computed": {**dict.fromkeys(FILLS, "later"), "estimate": "too few"},
    "follow_up": {"job": None, "state": None, "fills": FILLS},
}  # fmt: skip
RESULT = {"prefix": "bundles/a", "spec": factories.SPEC, "metrics": {"test_accuracy": 0.9}, "report": REPORT}
FOUND = {
    "mode": "report", "flags": [{"code": "negative_transfer"}], "decisions": [{"step": "b"}], "not_computed": {},
    "filled": {"verdict": "positive", "verdicts.vs_scratch": "positive", "baselines.scratch": {"value": 0.5},
               "baselines_skipped": {}, "curve": {"points": []}, "robustness": {"accuracy": 0.9},
               "forecast.more_images": [], "forecast.more_images_skipped": None},
}  # fmt: skip


@pytest.fixture
def made(database):
    """A transfer that has just ended, and the job that follows it."""
    return ended(database)


def ended(database, **fields):
    with database.write() as session:
        dataset_id = fields.pop("dataset_id", None) or factories.dataset(session).id
        fields = {"dataset_id": dataset_id, "report_mode": "full", "seed": 5, "backbone": "timm/a", **fields}
        job_id = factories.job(session, recipe={"method": "linear_probe"}, **fields).id
        assert attempts.claim(session, ["cpu"], OWNER, 60).id == job_id
    with database.write() as session:
        outcomes.succeed(session, job_id, OWNER, RESULT)
    with database.read() as session:
        return job_id, reports.follow_up(session.get_one(Job, job_id))


def read(database, job_id):
    with database.read() as session:
        return reports.read(session, "default", job_id)


def claim(database, job_id):
    with database.write() as session:
        assert attempts.claim(session, ["cpu"], OWNER, 60).id == job_id


def test_what_was_beside_the_dataset_is_beside_the_job_that_follows(database):
    with database.write() as session:
        other = factories.dataset(session).id
    _, follower_id = ended(database, datasets={"unlabelled": other})
    with database.read() as session:
        assert {role: row.id for role, row in jobs.datasets(session, follower_id).items()} == {"unlabelled": other}


def test_the_transfer_is_published_and_another_job_follows_it(database, made):
    job_id, follower_id = made
    with database.read() as session:
        job, follower = session.get_one(Job, job_id), session.get_one(Job, follower_id)
        version = session.scalars(select(ModelVersion)).one()
        study = session.scalars(select(Evaluation)).one()
        assert job.state == "succeeded"
        assert (follower.kind, follower.state, follower.priority) == ("evaluate", "queued", job.priority - 1)
        assert (follower.dataset_id, follower.backbone, follower.recipe, follower.seed) == (
            job.dataset_id, job.backbone, job.recipe, 5,
        )  # fmt: skip
        assert (reports.follows(follower), reports.follows(job), reports.follow_up(follower)) == (job_id, None, None)
        assert follower.inputs["side"]["prefix"] == version.prefix
        assert (study.job_id, study.request["mode"], study.request["version"]) == (follower_id, "report", 1)
        logged = jobs.events(session, job_id, 0, 100)[0]
        assert logged[-2].data == {"follow_up": follower_id}
        assert logged[-1].data["state"] == "succeeded"


def test_a_fast_report_is_followed_by_nothing(database):
    with database.write() as session:
        job_id = factories.job(session).id
        attempts.claim(session, ["cpu"], OWNER, 60)
    plain = {name: value for name, value in REPORT.items() if name != "follow_up"}
    with database.write() as session:
        outcomes.succeed(session, job_id, OWNER, {**RESULT, "report": plain})
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(Job)) == 1
        assert reports.follow_up(session.get_one(Job, job_id)) is None
        assert reports.read(session, "default", job_id) == plain


def test_the_outcome_and_what_follows_are_one_transaction(database):
    with database.write() as session:
        job_id = factories.job(session, report_mode="full").id
        attempts.claim(session, ["cpu"], OWNER, 60)

    with database.write() as session:
        outcomes.succeed(session, job_id, OWNER, RESULT)
        session.rollback()
    with pytest.raises(LeaseLost), database.write() as session:
        outcomes.succeed(session, job_id, "somebody else", RESULT)
    with database.read() as session:
        assert session.scalars(select(Job.id)).all() == [job_id]
        assert session.scalar(select(func.count()).select_from(Report)) == 0


def test_no_limit_of_the_project_keeps_a_report_from_being_filled_in(database):
    with database.write() as session:
        limits.put(session, "default", Limits(max_jobs=1))
    job_id, follower_id = ended(database)
    with database.write() as session:
        assert session.get_one(Job, follower_id).state == "queued"
        # It has the transfer's place, so another job has none.
        with pytest.raises(Exception, match="fewer than 1 jobs"):
            jobs.create(session, "default", jobs.NewJob(kind="transfer", model_name="m"))
    assert job_id


def test_the_lowest_priority_stays_one_that_can_be_asked_for(database):
    _, follower_id = ended(database, priority=-100)
    with database.read() as session:
        assert session.get_one(Job, follower_id).priority == -100


def test_a_reader_is_told_who_fills_it_in(database, made):
    job_id, follower_id = made
    for state in ("queued", "running"):
        if state == "running":
            claim(database, follower_id)
        found = read(database, job_id)
        assert found["follow_up"] == {"job": follower_id, "state": state, "fills": FILLS}
        told = f"not computed yet: job {follower_id} fills it in"
        assert {found["not_computed"][path] for path in FILLS} == {told}
        assert found["baselines_skipped"]["scratch"] == found["forecast"]["more_images_skipped"] == told
        assert found["not_computed"]["estimate"] == "too few"


def test_what_was_found_is_in_the_report_from_the_moment_that_the_job_has_succeeded(database, made):
    job_id, follower_id = made
    claim(database, follower_id)
    found = {**FOUND, "job": job_id}
    with pytest.raises(LeaseLost), database.write() as session:
        outcomes.succeed(session, follower_id, "somebody else", {"result": found, "metrics": {}})
    assert read(database, job_id)["verdict"] is None
    with database.write() as session:
        outcomes.succeed(session, follower_id, OWNER, {"result": found, "metrics": {}})
    report = read(database, job_id)
    assert (report["verdict"], report["verdicts"]) == ("positive", {"vs_scratch": "positive", "vs_frozen": "none"})
    assert report["baselines"] == {"scratch": {"value": 0.5}, "frozen": {}}
    assert (report["curve"], report["robustness"]) == ({"points": []}, {"accuracy": 0.9})
    assert (report["forecast"]["more_images"], report["forecast"]["more_images_skipped"]) == ([], None)
    assert report["baselines_skipped"] == {}
    assert report["not_computed"] == {"estimate": "too few"}
    assert [flag["code"] for flag in report["flags"]] == ["few", "negative_transfer"]
    assert [row["step"] for row in report["decisions"]] == ["a", "b"]
    assert report["follow_up"]["state"] == "succeeded"
    with database.read() as session:
        study = session.scalars(select(Evaluation)).one()
        assert (study.state, study.result) == ("ready", found)
    # Another attempt's word has no effect any more.
    with pytest.raises(LeaseLost), database.write() as session:
        outcomes.succeed(session, follower_id, OWNER, {"result": found, "metrics": {}})
    assert read(database, job_id) == report


def test_a_job_that_failed_or_was_cancelled_is_named_and_may_be_tried_again(database, made):
    job_id, follower_id = made
    claim(database, follower_id)
    with database.write() as session:
        outcomes.fail(session, follower_id, OWNER, "version_deleted", "it was deleted")
    told = read(database, job_id)["not_computed"]["curve"]
    assert follower_id in told
    assert "failed (it was deleted)" in told
    with database.write() as session:
        outcomes.retry(session, "default", follower_id)
    assert read(database, job_id)["not_computed"]["curve"] == f"not computed yet: job {follower_id} fills it in"
    with database.write() as session:
        outcomes.cancel(session, "default", follower_id)
    found = read(database, job_id)
    assert "was cancelled" in found["not_computed"]["curve"]
    assert found["follow_up"]["state"] == "cancelled"
    with database.read() as session:
        assert session.scalars(select(Evaluation)).one().state == "failed"
        assert models.resolve(session, "default", "colours", None, None).version == 1


def test_the_dataset_stays_until_the_report_is_whole(database):
    with database.write() as session:
        dataset_id = factories.dataset(session).id
    job_id, follower_id = ended(database, dataset_id=dataset_id)
    with pytest.raises(Exception, match=follower_id), database.write() as session:
        datasets.delete(session, "default", dataset_id)
    with database.write() as session:
        outcomes.cancel(session, "default", follower_id)
        datasets.delete(session, "default", dataset_id)
    assert "was cancelled" in read(database, job_id)["not_computed"]["curve"]
    with pytest.raises(Exception, match="deleted"), database.write() as session:
        outcomes.retry(session, "default", follower_id)


def test_other_projects_see_neither(database, made):
    with database.write() as session:
        other = factories.project(session, "other")
    with database.read() as session:
        for job_id in made:
            with pytest.raises(NotFound):
                reports.read(session, other, job_id)
            with pytest.raises(NotFound):
                jobs.get(session, other, job_id)


def test_what_follows_cannot_be_reproduced_and_the_transfer_can(database, made, monkeypatch):
    job_id, follower_id = made
    with database.write() as session, pytest.raises(Exception, match="kind evaluate"):
        evaluations.reproduce(session, "default", follower_id, offline=False)
    with database.write() as session:
        monkeypatch.setattr("app.services.backbones.check_usable", lambda *_: None)
        row = evaluations.reproduce(session, "default", job_id, offline=False)
        assert session.get_one(Job, row.job_id).report_mode == "fast"
