"""Routes of jobs, on both databases."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select
from starlette.testclient import TestClient

from app.db.models import IdempotencyKey, Job, Report
from app.main import create_app
from app.services import datasets, transfers
from tests import factories
from tests.app.api.made_jobs import BACKBONE, CLIP, STATES, URL, body, make_job, num_jobs, told
from tests.checks import problem
from tests.conftest import wait_until
from tests.factories import files_below


def test_create(client, database, home, dataset_id):
    wish = body(dataset_id, seed=5, report="full", priority=7, recipe={"method": "fine_tune", "epochs": 3})
    answer = client.post(URL, json=wish)
    job = answer.json()
    assert answer.status_code == 202
    assert answer.headers["Location"] == f"{URL}/{job['id']}"
    assert client.get(answer.headers["Location"]).json() == job
    shown = ("kind", "state", "queue", "priority", "attempt", "dataset", "backbone", "seed")
    assert {name: job[name] for name in shown} == {
        "kind": "transfer", "state": "queued", "queue": "cpu", "priority": 7, "attempt": 0, "dataset": dataset_id,
        "backbone": BACKBONE, "seed": 5,
    }  # fmt: skip
    assert job["progress"] == {"fraction": 0.0, "stage": "queued", "eta_seconds": None}
    assert [job[name] for name in ("model", "metrics", "failure", "started_at", "finished_at")] == [None] * 5
    # Defaults are written down, so that a later version's defaults do not change what this job is.
    assert job["recipe"] == {
        "method": "fine_tune", "scope": "last_stage", "epochs": 3, "resolution": None, "max_minutes": None,
        "layer_decay": None, "l2_sp": 0.0, "soup": True, "wise": False, "mixup": None, "augment": None,
        "fallback": False, "rank": 8,
    }  # fmt: skip
    assert len(files_below(home / "broker" / "messages")) == 1
    with database.read() as session:
        assert session.get_one(Job, job["id"]).report_mode == "full"


REFUSED = {
    "unknown kind": ({"kind": "rank"}, 400, "unknown_kind"),
    "unknown method": ({"recipe": {"method": "magic"}}, 400, "unknown_recipe"),
    "no dataset": ({"dataset": None}, 422, "invalid_payload"),
    "no method": ({"recipe": {}}, 400, "unknown_recipe"),
    "method that is no name": ({"recipe": {"method": ["linear_probe"]}}, 400, "unknown_recipe"),
    "unknown recipe field": ({"recipe": {"method": "linear_probe", "c": 1}}, 422, "invalid_payload"),
    "lora without attention": ({"recipe": {"method": "fine_tune", "scope": "lora"}}, 400, "unsupported_scope"),
    "recipe field out of bounds": ({"recipe": {"method": "fine_tune", "epochs": 0}}, 422, "invalid_payload"),
    "unknown backbone": ({"backbone": "timm/nothing"}, 404, "unknown_backbone"),
    "unknown dataset": ({"dataset": "ds_0"}, 404, "not_found"),
    "unknown dependency": ({"depends_on": ["job_0"]}, 404, "not_found"),
    "bad model name": ({"model": "a/b"}, 422, "invalid_payload"),
    "no model name": ({"model": None}, 422, "invalid_payload"),
    "unknown field": ({"colour": 1}, 422, "invalid_payload"),
    "negative seed": ({"seed": -1}, 422, "invalid_payload"),
    "too urgent": ({"priority": 101}, 422, "invalid_payload"),
    "unknown report": ({"report": "long"}, 422, "invalid_payload"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_job_leaves_nothing_behind(client, database, home, dataset_id, case):
    overrides, status, code = REFUSED[case]
    headers = {"Idempotency-Key": "abc"}
    problem(client.post(URL, json=body(dataset_id, **overrides), headers=headers), status, code)
    assert num_jobs(database) == 0
    assert files_below(home / "broker" / "messages") == []
    with database.read() as session:
        assert session.scalars(select(IdempotencyKey)).all() == []


@pytest.mark.parametrize(
    ("kind", "call"),
    [("rank", "/rankings"), ("evaluate", "/evaluations"), ("advise", "/datasets/{id}/advice"), ("align", "/alignments"),
     ("ingest", "/datasets"), ("backbone", "/backbones")],
)  # fmt: skip
def test_kinds_with_a_call_of_their_own_are_sent_there(client, dataset_id, kind, call):
    found = problem(client.post(URL, json=body(dataset_id, kind=kind)), 400, "unknown_kind")
    assert f"POST /api/v1{call}" in found["detail"]


def test_refused_fields_are_pointed_at(client, dataset_id):
    found = problem(
        client.post(URL, json=body(dataset_id, recipe={"method": "fine_tune", "epochs": 0, "c": 1})),
        422,
        "invalid_payload",
    )
    assert {item["pointer"] for item in found["errors"]} == {"/body/recipe/epochs", "/body/recipe/c"}
    found = problem(client.post(URL, json=body(dataset_id, model="a/b")), 422, "invalid_payload")
    assert [item["pointer"] for item in found["errors"]] == ["/body/model"]
    lax = {"seed": "3", "allow_label_change": "yes", "backbone": 1}
    found = problem(client.post(URL, json=body(dataset_id, **lax)), 422, "invalid_payload")
    assert {item["pointer"] for item in found["errors"]} == {f"/body/{name}" for name in lax}
    fitting = body(dataset_id, recipe={"method": "auto", "max_minutes": 3})
    assert client.post(URL, json=fitting).status_code == 202
    problem(client.post(URL, content=b"{", headers={"Content-Type": "application/json"}), 422, "invalid_payload")
    problem(client.post(URL, json=["a"]), 422, "invalid_payload")


def test_dataset_that_cannot_be_used(client, database):
    with database.write() as session:
        busy = factories.dataset(session, state="ingesting").id
        invalid = factories.dataset(session, state="invalid", failure_message="only one class").id
        regression = factories.dataset(session, task="regression").id
        unlabelled = factories.dataset(session, classes=[]).id
    problem(client.post(URL, json=body(busy)), 409, "dataset_not_ready")
    found = problem(client.post(URL, json=body(invalid)), 409, "dataset_not_ready")
    assert "only one class" in found["detail"]
    problem(client.post(URL, json=body(regression)), 400, "unsupported_task")
    problem(client.post(URL, json=body(unlabelled)), 400, "labels_missing")


def test_changed_labels_need_permission(client, database, dataset_id):
    with database.write() as session:
        factories.model(session, "colours", spec={**factories.SPEC, "labels": ["blue", "green"]})
        factories.model(session, "same")
        factories.model(session, "task", spec={**factories.SPEC, "task": "multi_label"})
    found = problem(client.post(URL, json=body(dataset_id)), 409, "label_change")
    assert "green" in found["detail"]
    assert "red" in found["detail"]
    problem(client.post(URL, json=body(dataset_id, model="task")), 409, "label_change")
    assert client.post(URL, json=body(dataset_id, model="same")).status_code == 202
    assert client.post(URL, json=body(dataset_id, allow_label_change=True)).status_code == 202


def test_offline_refuses_weights_that_nobody_has(light):
    app = create_app(light.model_copy(update={"offline": True}))
    with TestClient(app, base_url="http://127.0.0.1") as client:
        with client.app.state.graft.database.write() as session:
            wanted = factories.dataset(session).id
            factories.worker(session, backbones=["timm/tf_efficientnet_lite1"])
        found = problem(client.post(URL, json=body(wanted)), 400, "weights_unavailable")
        assert "timm/tf_efficientnet_lite1" in found["detail"]
        assert client.post(URL, json=body(wanted, backbone="timm/tf_efficientnet_lite1")).status_code == 202
        assert client.post(URL, json=body(wanted, backbone="auto")).status_code == 202
        wish = body(None, **told("a", "b"), **CLIP)
        found = problem(client.post(URL, json=wish), 400, "weights_unavailable")
        assert "timm/tf_efficientnet_lite1" in found["detail"]


def test_same_key_gets_the_same_answer_once(client, database, home, dataset_id):
    headers = {"Idempotency-Key": "abc"}
    first, second = (client.post(URL, json=body(dataset_id), headers=headers) for _ in range(2))
    assert (second.status_code, second.json()) == (202, first.json())
    assert second.headers["Location"] == first.headers["Location"]
    assert second.headers["Idempotent-Replayed"] == "true"
    assert num_jobs(database) == 1
    assert len(files_below(home / "broker" / "messages")) == 1
    problem(client.post(URL, json=body(dataset_id, seed=1), headers=headers), 422, "idempotency_mismatch")
    assert num_jobs(database) == 1
    client.post(URL, json=body(dataset_id))
    assert num_jobs(database) == 2


def test_keys_of_different_routes_do_not_meet(client, dataset_id):
    headers = {"Idempotency-Key": "abc"}
    upload = {"files": {"file": ("a.zip", factories.pack(factories.pictures(1)))}, "data": {"name": "a"}}
    assert client.post("/api/v1/datasets", headers=headers, **upload).status_code == 202
    assert client.post(URL, json=body(dataset_id), headers=headers).status_code == 202


def test_list_is_newest_first_in_pages_with_filters(client, database, dataset_id):
    with database.write() as session:
        ids = [factories.job(session, state=state, dataset_id=dataset_id).id for state in STATES]
        other = factories.job(session).id
        hidden = factories.job(session, project_id=factories.project(session, "other")).id
    newest = sorted([*ids, other], reverse=True)

    def found(**query):
        page = client.get(URL, params=query).json()
        return [row["id"] for row in page["data"]], page["has_more"]

    assert found() == (newest, False)
    assert found(limit=2) == (newest[:2], True)
    assert found(limit=4, after=newest[1]) == (newest[2:], False)
    assert found(state="failed") == ([ids[STATES.index("failed")]], False)
    assert found(dataset=dataset_id, limit=1, after=ids[1]) == ([ids[0]], False)
    problem(client.get(URL, params={"state": "lost"}), 422, "invalid_payload")
    problem(client.get(URL, params={"limit": 0}), 422, "invalid_payload")
    problem(client.get(f"{URL}/{hidden}"), 404, "not_found")


def test_unknown_job(light_client):
    for method, path in [("GET", ""), ("GET", "/events"), ("GET", "/report")]:
        problem(light_client.request(method, f"{URL}/job_0{path}"), 404, "not_found")
    for action in ("cancel", "stop", "retry"):
        problem(light_client.post(f"{URL}/job_0/{action}"), 404, "not_found")


def test_report_as_json_and_as_a_page(client, database):
    job_id = make_job(database, state="succeeded")
    problem(client.get(f"{URL}/{job_id}/report"), 404, "no_report")
    document = {"verdict": "positive", "served": {"what": "<script>alert(1)</script>"}}
    with database.write() as session:
        session.add(Report(job_id=job_id, project_id="default", document=document))
    assert client.get(f"{URL}/{job_id}/report").json() == document
    page = client.get(f"{URL}/{job_id}/report", headers={"Accept": "text/html,*/*"})
    assert page.headers["content-type"].startswith("text/html")
    assert page.headers["content-security-policy"].startswith("sandbox")
    assert "<script>" not in page.text
    assert "&lt;script&gt;" in page.text


def test_the_page_of_an_adaptation_shows_it_among_the_others(client, database):
    metrics = {"domain_distance": 1.5, "test_accuracy": 0.6, "source_only_accuracy": 0.5}
    made = {"state": "succeeded", "recipe": {"method": "adapt", "source": "ds_x"}, "metrics": metrics}
    own, other = make_job(database, **made), make_job(database, **made)
    document = {"domain": {"before": {"proxy_a": 1.5}}}
    with database.write() as session:
        session.add(Report(job_id=own, project_id="default", document=document))
    page = client.get(f"{URL}/{own}/report", headers={"Accept": "text/html"}).text
    assert "gain over distance" in page
    assert f"{other}: distance 1.500, gain +10.0 points" in page


def test_published_version_is_named(client, database):
    with database.write() as session:
        job = factories.job(session, state="succeeded", metrics={"test_accuracy": 0.5, "ece": None})
        of = factories.model(session, "colours", 1)
        factories.version(session, of, 2, job_id=job.id)
    found = client.get(f"{URL}/{job.id}").json()
    assert found["model"] == {"name": "colours", "version": 2}
    assert found["metrics"] == {"test_accuracy": 0.5, "ece": None}
    assert client.get(URL).json()["data"][0] == found


def test_bells_go_to_the_gpu_where_one_is(client, database, home, dataset_id):
    with database.write() as session:
        factories.worker(session, queues=["cpu", "gpu"])
    client.post(URL, json=body(dataset_id))
    wait_until(lambda: files_below(home / "broker" / "messages"), "a message")
    (message,) = files_below(home / "broker" / "messages")
    assert message.endswith(".gpu.msg")


def wish(dataset_id):
    return transfers.Wish(
        dataset_id=dataset_id, backbone=BACKBONE, recipe={"method": "linear_probe"}, model="colours", seed=0,
        report="fast", depends_on=(), allow_label_change=False,
    )  # fmt: skip


def test_dataset_that_is_about_to_be_used_is_in_use(client, database, dataset_id):
    with ThreadPoolExecutor(1) as pool:
        with database.write() as session:
            transfers.create(session, "default", wish(dataset_id), False)
            deletion = pool.submit(client.delete, f"/api/v1/datasets/{dataset_id}")
        problem(deletion.result(30), 409, "in_use")


def test_dataset_that_is_about_to_go_is_gone(client, database, dataset_id):
    lost = make_job(database, state="failed", dataset_id=dataset_id)
    with ThreadPoolExecutor(2) as pool:
        with database.write() as session:
            datasets.delete(session, "default", dataset_id)
            creation = pool.submit(client.post, URL, json=body(dataset_id))
            again = pool.submit(client.post, f"{URL}/{lost}/retry")
        problem(creation.result(30), 404, "not_found")
        problem(again.result(30), 409, "invalid_state")
