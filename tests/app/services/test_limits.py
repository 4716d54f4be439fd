"""What a project may have at once."""

import pytest

from app.errors import NotFound, TooMany
from app.services import datasets, jobs, limits, outcomes
from app.services.limits import Limits
from app.states import JobState
from tests import factories

NEW = jobs.NewJob(kind="transfer", model_name="m")


def upload(session, size_bytes, name="ds_new", project="default"):
    new = datasets.NewDataset(name="a", archive="incoming/x", filename="a.zip", size_bytes=size_bytes)
    return datasets.create(session, project, name, new)


def test_jobs_that_wait_or_run_count_and_others_do_not(database):
    with database.write() as session:
        other = factories.project(session, "other")
        limits.put(session, "default", Limits(max_jobs=2))
        for state in ("succeeded", "failed", "cancelled"):
            ended = factories.job(session, state=state).id
        factories.job(session, state="running")
        waiting = jobs.create(session, "default", NEW)
        for ask in (lambda: jobs.create(session, "default", NEW), lambda: outcomes.retry(session, "default", ended)):
            with pytest.raises(TooMany) as caught:
                ask()
            assert (caught.value.code, caught.value.extra["retry_after_seconds"]) == ("too_many_jobs", 30)
        jobs.create(session, other, NEW)
        jobs.move(session, waiting, JobState.CANCELLED)
        jobs.create(session, "default", NEW)


def test_bytes_count_from_the_upload_on(database):
    with database.write() as session:
        limits.put(session, "default", Limits(max_bytes=1000))
        factories.dataset(session, size_bytes=500)
        factories.dataset(session, size_bytes=5000, project_id=factories.project(session, "other"))
        assert upload(session, 400).size_bytes == 400
        with pytest.raises(TooMany) as caught:
            upload(session, 101, "ds_more")
        assert caught.value.code == "too_many_bytes"
        upload(session, 100, "ds_fits")


def test_limits_are_set_as_a_whole_and_taken_away(database):
    with database.write() as session:
        limits.put(session, "default", Limits(10, 1, 0.5))
        assert limits.every(session) == [("default", Limits(10, 1, 0.5))]
        limits.put(session, "default", Limits(max_jobs=3))
        assert limits.every(session) == [("default", Limits(None, 3, None))]
        with pytest.raises(NotFound):
            limits.put(session, "none", Limits())
