"""What is refused before an adaptation becomes a job, and what the job then names."""

from dataclasses import replace

import pytest

from app.errors import BadRequest, Conflict, NotFound
from app.services import jobs, transfers
from tests import factories


@pytest.fixture
def session(database):
    """One open transaction."""
    with database.write() as session:
        yield session


def wish(target, source, **fields):
    recipe = {"method": "adapt", "source": source, **fields}
    return transfers.Wish(target, factories.BACKBONE, recipe, "m", 0, "fast", (), False)


def create(session, target, source, **fields):
    return transfers.create(session, "default", wish(target, source, **fields), False)


def classes(*names):
    return [{"name": name, "num_samples": 5} for name in names]


def test_the_job_names_its_source(session):
    source = factories.dataset(session, classes=classes("blue", "red", "white"))
    target = factories.dataset(session)
    job = create(session, target.id, source.id)
    assert job.dataset_id == target.id
    assert {role: row.id for role, row in jobs.datasets(session, job.id).items()} == {"source": source.id}
    assert job.recipe["target_labels"] is False


def test_what_is_to_be_published_with_it_travels_to_the_worker(session):
    target, source = factories.dataset(session), factories.dataset(session)
    plain = {"sample": True, "int8": False, "fp16": False}
    for fields in ({}, {"sample": False, "int8": True}, {"fp16": True}):
        asked = replace(wish(target.id, source.id), **fields)
        assert transfers.create(session, "default", asked, False).inputs == {**plain, **fields}


def test_a_target_without_labels_is_welcome(session):
    target = factories.dataset(session, classes=[])
    assert create(session, target.id, factories.dataset(session).id).dataset_id == target.id


@pytest.mark.parametrize(
    ("source", "target", "fields", "code"),
    [
        ({"classes": []}, {}, {}, "labels_missing"),
        ({"classes": []}, {"classes": []}, {}, "labels_missing"),
        ({}, {"classes": classes("blue", "pink")}, {}, "classes_differ"),
        ({}, {"classes": classes("blue")}, {"target_labels": True}, "labels_missing"),
        ({}, {"classes": []}, {"target_labels": True}, "labels_missing"),
        ({"task": "regression"}, {}, {}, "task_mismatch"),
        ({"task": "regression"}, {"task": "regression"}, {}, "unsupported_task"),
    ],
)
def test_domains_that_do_not_fit_are_refused(session, source, target, fields, code):
    rows = factories.dataset(session, **target), factories.dataset(session, **source)
    with pytest.raises(BadRequest) as caught:
        create(session, rows[0].id, rows[1].id, **fields)
    assert caught.value.code == code


def test_what_cannot_be_tested_is_refused(session):
    untested = {"splits": {"train": 18, "val": 2, "test": 0}}
    whole = factories.dataset(session)
    for target, source in (
        (factories.dataset(session, **untested), whole),
        (whole, factories.dataset(session, **untested)),
    ):
        with pytest.raises(BadRequest, match="expected a dataset with a test split") as caught:
            create(session, target.id, source.id)
        assert caught.value.code == "no_test_items"


def test_one_dataset_is_no_two_domains(session):
    only = factories.dataset(session)
    with pytest.raises(BadRequest) as caught:
        create(session, only.id, only.id)
    assert caught.value.code == "same_domain"


def test_a_source_that_is_not_there_or_not_ready_is_refused(session):
    target = factories.dataset(session)
    with pytest.raises(NotFound):
        create(session, target.id, "ds_none")
    foreign = factories.dataset(session, project_id=factories.project(session, "others"))
    with pytest.raises(NotFound):
        create(session, target.id, foreign.id)
    with pytest.raises(Conflict):
        create(session, target.id, factories.dataset(session, state="ingesting").id)


def test_a_model_keeps_the_labels_of_the_source(session):
    source, target = factories.dataset(session), factories.dataset(session, classes=classes("blue"))
    other = factories.dataset(session, classes=classes("cat", "dog"))
    factories.model(session, "m")
    create(session, target.id, source.id)
    with pytest.raises((BadRequest, Conflict)):
        create(session, factories.dataset(session, classes=classes("cat")).id, other.id)


def auto(session, target, **fields):
    wanted = transfers.Wish(target, "auto", {"method": "auto", **fields}, "m", 0, "fast", (), False)
    return transfers.create(session, "default", wanted, False)


def test_a_job_of_auto_names_what_it_uses_beside_its_dataset(session):
    target, source, more = (factories.dataset(session) for _ in range(3))
    job = auto(session, target.id, source=source.id, unlabelled=more.id)
    found = {role: row.id for role, row in jobs.datasets(session, job.id).items()}
    assert found == {"source": source.id, "unlabelled": more.id}
    bare = factories.dataset(session, classes=[])
    assert auto(session, bare.id, source=source.id).dataset_id == bare.id


@pytest.mark.parametrize(
    ("target", "other", "role", "code"),
    [
        ({}, {"classes": []}, "source", "labels_missing"),
        ({"classes": []}, {}, "unlabelled", "labels_missing"),
        ({"classes": classes("blue", "pink")}, {}, "source", "classes_differ"),
        ({}, {"task": "regression"}, "source", "task_mismatch"),
        ({}, {"task": "regression"}, "unlabelled", "task_mismatch"),
    ],
)
def test_what_auto_cannot_use_is_refused(session, target, other, role, code):
    rows = factories.dataset(session, **target), factories.dataset(session, **other)
    with pytest.raises(BadRequest) as caught:
        auto(session, rows[0].id, **{role: rows[1].id})
    assert caught.value.code == code
    if code == "labels_missing":
        # The one that has no labels, by the field in which it was named.
        place = 1 if role == "source" else 0
        field = "source" if role == "source" else "dataset"
        assert f"labelled dataset as {field} for auto; found {rows[place].id}" in caught.value.detail


def test_auto_takes_no_images_twice(session):
    target, source = factories.dataset(session), factories.dataset(session)
    copy = factories.dataset(session, digest=target.digest)
    for fields in ({"source": target.id}, {"unlabelled": target.id}, {"unlabelled": copy.id}, {"source": copy.id}):
        with pytest.raises(BadRequest) as caught:
            auto(session, target.id, **fields)
        assert caught.value.code == "same_domain"
    with pytest.raises(NotFound):
        auto(session, target.id, source=source.id, unlabelled="ds_none")
    with pytest.raises(Conflict):
        auto(session, target.id, unlabelled=factories.dataset(session, state="ingesting").id)
