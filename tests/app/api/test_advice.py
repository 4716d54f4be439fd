"""The routes of advice: ask, read as JSON or page, apply, delete, and everything that is refused."""

import io
import zipfile

import pytest
from sqlalchemy import func, select

from app.advice import AGAINST, KINDS, THUMBNAILS
from app.db.models import Dataset, Job
from app.db.studies import Advice
from app.pages import advice as pages
from app.pages.render import POLICY
from app.services import studies
from tests import factories
from tests.checks import problem
from tests.factories import suggestion

URL = "/api/v1/advice"


def ask(client, dataset_id, body=None, **arguments):
    return client.post(f"/api/v1/datasets/{dataset_id}/advice", json=body or {}, **arguments)


def counts(database):
    with database.read() as session:
        return tuple(session.scalar(select(func.count()).select_from(table)) for table in (Advice, Job, Dataset))


def test_asking_makes_a_job(client, database, dataset_id):
    made = ask(client, dataset_id, {"seed": 3})
    body = made.json()
    assert (made.status_code, made.headers["Location"]) == (202, f"{URL}/{body['id']}")
    assert body["request"] == {"dataset": dataset_id, "backbone": "auto", "against": None, "seed": 3}
    assert (body["state"], body["result"], body["failure"]) == ("running", None, None)
    job = client.get(f"/api/v1/jobs/{body['job_id']}").json()
    assert (job["kind"], job["state"], job["dataset"], job["backbone"]) == ("advise", "queued", dataset_id, "auto")
    assert client.get(made.headers["Location"]).json() == body
    assert [row["id"] for row in client.get(URL, params={"dataset": dataset_id}).json()["data"]] == [body["id"]]
    assert client.get(URL, params={"dataset": "ds_other"}).json()["data"] == []


def test_the_same_key_asks_once(client, database, dataset_id):
    headers = {"Idempotency-Key": "k1"}
    first, again = (ask(client, dataset_id, headers=headers) for _ in range(2))
    assert first.json() == again.json()
    problem(ask(client, dataset_id, {"seed": 1}, headers=headers), 422, "idempotency_mismatch")
    assert counts(database) == (1, 1, 1)


REFUSED = {
    "unknown field": ({"strength": 1}, 422, "invalid_payload"),
    "seed as text": ({"seed": "1"}, 422, "invalid_payload"),
    "negative seed": ({"seed": -1}, 422, "invalid_payload"),
    "unknown backbone": ({"backbone": "timm/none"}, 404, "unknown_backbone"),
    "unknown other": ({"against": "ds_0"}, 404, "not_found"),
    "itself": ({"against": "SELF"}, 400, "same_dataset"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_questions_that_are_refused(client, database, dataset_id, case):
    body, status, code = REFUSED[case]
    body = {name: dataset_id if value == "SELF" else value for name, value in body.items()}
    problem(ask(client, dataset_id, body), status, code)
    assert counts(database) == (0, 0, 1)


def test_datasets_that_cannot_be_asked_about(client, database):
    problem(ask(client, "ds_0"), 404, "not_found")
    with database.write() as session:
        waiting = factories.dataset(session, state="ingesting").id
    problem(ask(client, waiting), 409, "dataset_not_ready")
    assert counts(database)[:2] == (0, 0)


def test_a_running_job_is_cancelled_before_its_advice_is_deleted(client, dataset_id):
    made = ask(client, dataset_id).json()
    assert problem(client.delete(f"{URL}/{made['id']}"), 409, "in_use")["users"] == [made["job_id"]]
    problem(client.post(f"{URL}/{made['id']}/apply", json={"kinds": ["outlier"]}), 409, "study_not_ready")
    client.post(f"/api/v1/jobs/{made['job_id']}/cancel")
    ended = client.get(f"{URL}/{made['id']}").json()
    assert (ended["state"], ended["failure"]["code"]) == ("failed", "cancelled")
    assert client.delete(f"{URL}/{made['id']}").status_code == 204
    problem(client.get(f"{URL}/{made['id']}"), 404, "not_found")


def test_lists_have_counts_and_no_findings(client, database, dataset_id):
    with database.write() as session:
        factories.advice(session, dataset_id, (suggestion("outlier", "remove", "s1"),))
    (row,) = client.get(URL).json()["data"]
    assert row["result"]["counts"] == {"outlier": 1}
    assert not {"findings", "samples", "drift"} & row["result"].keys()


def test_another_projects_advice_is_not_seen(client, database, dataset_id):
    with database.write() as session:
        row = factories.advice(session, dataset_id, project_id=factories.project(session, "other"))
    problem(client.get(f"{URL}/{row.id}"), 404, "not_found")
    problem(client.post(f"{URL}/{row.id}/apply", json={"kinds": ["outlier"]}), 404, "not_found")
    assert client.get(URL).json()["data"] == []


def test_applying_answers_the_child_dataset(client, database, dataset_id):
    with database.write() as session:
        made = factories.advice(session, dataset_id, (suggestion("outlier", "remove", "s1"),))
    headers = {"Idempotency-Key": "k1"}
    first, again = (
        client.post(f"{URL}/{made.id}/apply", json={"findings": ["outlier-1"]}, headers=headers) for _ in range(2)
    )
    body = first.json()
    assert (first.status_code, first.headers["Location"]) == (202, f"/api/v1/datasets/{body['id']}")
    assert again.json() == body
    assert (body["base"], body["state"], body["name"]) == (dataset_id, "ingesting", "colours")
    assert client.get(first.headers["Location"]).json() == body
    assert counts(database) == (1, 1, 2)


FINDINGS = (
    suggestion("label_error", "relabel", "s1", label="blue"),
    suggestion("label_error", "look"),
    suggestion("near_duplicate", "remove", "s1"),
    suggestion("near_duplicate", "remove", *(f"s{number}" for number in range(2, 10))),
    suggestion("near_duplicate", "remove", *(f"s{number}" for number in range(2, 12))),
    suggestion("outlier", "remove", "t1"),
    suggestion("small_class", "look"),
    suggestion("outlier", "remove", *(f"s{number}" for number in range(20))),
)
NOT_APPLIED = {
    "neither": ({}, 422, "invalid_payload"),
    "both": ({"findings": ["outlier-1"], "kinds": ["outlier"]}, 422, "invalid_payload"),
    "no finding": ({"findings": []}, 422, "invalid_payload"),
    "unknown kind": ({"kinds": ["magic"]}, 422, "invalid_payload"),
    "unknown field": ({"kinds": ["outlier"], "force": True}, 422, "invalid_payload"),
    "bad name": ({"kinds": ["outlier"], "name": "a b"}, 422, "invalid_payload"),
    "unknown finding": ({"findings": ["outlier-1", "outlier-9"]}, 400, "unknown_finding"),
    "only a look": ({"findings": ["label_error-1", "label_error-2"]}, 400, "nothing_to_apply"),
    "a kind to look at": ({"kinds": ["small_class"]}, 400, "nothing_to_apply"),
    "a kind that was not found": ({"kinds": ["drift"]}, 400, "nothing_to_apply"),
    "contradiction": ({"findings": ["label_error-1", "near_duplicate-1"]}, 409, "findings_contradict"),
    "kinds that contradict": ({"kinds": ["label_error", "near_duplicate"]}, 409, "findings_contradict"),
    "one image of a class left": ({"findings": ["near_duplicate-1", "near_duplicate-2"]}, 400, "too_little_left"),
    "one class left": ({"findings": ["near_duplicate-3"]}, 400, "too_little_left"),
    "nothing left": ({"findings": ["outlier-2"]}, 400, "too_little_left"),
}


@pytest.mark.parametrize("case", NOT_APPLIED)
def test_what_cannot_be_applied(client, database, dataset_id, case):
    body, status, code = NOT_APPLIED[case]
    samples = {"t1": {"path": "t", "label": "blue", "split": "test"}}
    with database.write() as session:
        made = factories.advice(session, dataset_id, FINDINGS, samples=samples)
    found = problem(client.post(f"{URL}/{made.id}/apply", json=body), status, code)
    if code == "findings_contradict":
        assert found["pairs"][0] == {"findings": ["near_duplicate-1", "label_error-1"], "sample": "s1"}
    if code == "unknown_finding":
        assert found["unknown"] == ["outlier-9"]
    assert counts(database) == (1, 0, 1)


def test_kinds_that_would_only_change_the_test_split_say_so(client, database, dataset_id):
    samples = {"t1": {"path": "t", "label": "red", "split": "test"}}
    with database.write() as session:
        made = factories.advice(session, dataset_id, (suggestion("outlier", "remove", "t1"),), samples=samples)
    found = problem(client.post(f"{URL}/{made.id}/apply", json={"kinds": ["outlier"]}), 400, "nothing_to_apply")
    assert "1 that would change the test split" in found["detail"]
    assert client.post(f"{URL}/{made.id}/apply", json={"findings": ["outlier-1"]}).status_code == 202


def test_a_dataset_that_was_deleted_meanwhile(client, database, dataset_id):
    with database.write() as session:
        made = factories.advice(session, dataset_id, (suggestion("outlier", "remove", "s1"),))
    assert client.delete(f"/api/v1/datasets/{dataset_id}").status_code == 204
    problem(client.post(f"{URL}/{made.id}/apply", json={"kinds": ["outlier"]}), 404, "not_found")
    assert client.get(f"{URL}/{made.id}").status_code == 200
    assert counts(database) == (1, 0, 0)


BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{ 7 * 7 }}"


def with_pictures(session, storage, tmp_path, dataset_id, **overrides):
    finding = {
        **suggestion("label_error", "relabel", "s1", label=HOSTILE), "label": HOSTILE, "message": HOSTILE,
        "confidence": 0.97,
    }  # fmt: skip
    samples = {"s1": {"path": HOSTILE, "label": HOSTILE, "split": "train"}}
    copies = suggestion("near_duplicate", "remove", "s2")
    moved = {**suggestion("drift", "look", "s1"), "samples_against": ["s1", "t2"]}
    row = factories.advice(session, dataset_id, (finding, copies, moved), samples=samples, **overrides)
    row.result = {
        **row.result,
        "samples_against": {
            "s1": {"path": "there.png", "label": HOSTILE, "split": "test"},
            "t2": {"path": HOSTILE, "label": None, "split": "val"},
        },
        "labels": {"fit": True, "estimated_share_wrong": 0.05, "possible_share_wrong": 0.07,
                   "accuracy": 0.8, "chance": 0.5,
                   "expected_share_of_listed": 0.97},
        "not_searched": {"outlier": HOSTILE}, "counts": {**row.result["counts"], "outlier": None},
    }  # fmt: skip
    path = tmp_path / THUMBNAILS
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("s1.jpg", factories.png())
        archive.writestr(f"{AGAINST}s1.jpg", factories.png((1, 2, 3)))
    storage.put(f"{studies.prefix('default', row.id)}/{THUMBNAILS}", path)
    return row.id


def test_the_page_shows_pictures_and_escapes_everything(client, database, storage, tmp_path, dataset_id):
    with database.write() as session:
        advice_id = with_pictures(session, storage, tmp_path, dataset_id)
    answer = client.get(f"{URL}/{advice_id}", headers=BROWSER)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-security-policy"] == POLICY
    page = answer.text
    assert page.count("data:image/jpeg;base64,") == 3
    assert "<script" not in page
    assert "<img src=x" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "{{ 7 * 7 }}" in page
    # One of the wrong label, and two of the drift, here and there; the second one there has no picture.
    assert page.count("<img ") == 3
    assert "there.png" in page
    assert "label_error-1: relabel" in page
    assert client.get(f"{URL}/{advice_id}").json()["result"]["findings"][0]["message"] == HOSTILE
    assert client.delete(f"{URL}/{advice_id}").status_code == 204
    assert list(storage.list("studies")) == []


@pytest.mark.parametrize(
    ("overrides", "words"),
    [({"state": "running", "result": None, "job_id": "job_1"}, "Being made by job job_1"),
     ({"state": "failed", "result": None, "failure_code": "internal", "failure_message": HOSTILE}, "&lt;script&gt;")],
)  # fmt: skip
def test_there_is_a_page_in_every_state(client, database, dataset_id, overrides, words):
    with database.write() as session:
        row = factories.advice(session, dataset_id, **overrides)
    page = client.get(f"{URL}/{row.id}", headers=BROWSER).text
    assert words in page
    assert "<script" not in page


def test_the_page_names_every_kind():
    assert set(pages.TITLES) == set(KINDS)


def test_a_page_of_thousands_stays_readable(database, dataset_id):
    findings = tuple(suggestion("label_error", "look", f"s{number}") for number in range(1000))
    with database.write() as session:
        row = factories.advice(session, dataset_id, findings)
        result = {**row.result, "counts": {"label_error": 1500}}
    result["labels"] = {"fit": True, "estimated_share_wrong": 0.05, "possible_share_wrong": 0.07,
                   "accuracy": 0.8, "chance": 0.5,
                        "expected_share_of_listed": 0.97}  # fmt: skip
    document = {"id": "adv_1", "state": "ready", "created_at": "now", "request": row.request, "failure": None,
                "job_id": None, "result": result}  # fmt: skip
    page = pages.render(document, {})
    assert page.count("<article") == pages.CARDS
    assert f"and {1500 - pages.CARDS - pages.LINES} more" in page
    assert len(io.BytesIO(page.encode()).getvalue()) < 200_000
