"""Routes of jobs, on both databases."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import func, select
from starlette.testclient import TestClient

from app.db.models import IdempotencyKey, Job, Report
from app.main import create_app
from app.services import attempts, datasets, jobs, transfers
from app.states import JobState
from tests import factories
from tests.checks import problem
from tests.conftest import wait_until
from tests.factories import files_below

URL = "/api/v1/jobs"
BACKBONE = "timm/tf_efficientnet_lite0"
STATES = [str(state) for state in JobState]


@pytest.fixture
def dataset_id(database):
    with database.write() as session:
        return factories.dataset(session).id


def body(dataset_id, **overrides):
    recipe = {"method": "linear_probe"}
    return {"dataset": dataset_id, "backbone": BACKBONE, "recipe": recipe, "model": "colours", **overrides}


def num_jobs(database):
    with database.read() as session:
        return session.scalar(select(func.count()).select_from(Job))


def make_job(database, **fields):
    with database.write() as session:
        return factories.job(session, **fields).id


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


def told(*classes, **fields):
    """A job that tells its classes: names, or whole classes."""
    classes = [{"name": one} if isinstance(one, str) else one for one in classes]
    return {"recipe": {"method": "zero_shot", "classes": classes, **fields}}


MOBILENET = {"backbone": "torchvision/mobilenet_v2"}
CLIP = {"backbone": "open_clip/ViT-B-32.openai"}
ONE, TWO = {"name": "a", "attributes": [1.0, 0.0]}, {"name": "b", "attributes": [1.0, 1.0]}
UNTOLD = {
    "no classes": ({"recipe": {"method": "zero_shot"}}, 422, "invalid_payload"),
    "empty classes": (told(), 422, "invalid_payload"),
    "one class": (told("a"), 422, "invalid_payload"),
    "a name twice": (told("a", "b", "a"), 422, "invalid_payload"),
    "a name twice but for its spaces": (told("a b", "a_b"), 422, "invalid_payload"),
    "an empty name": (told("a", ""), 422, "invalid_payload"),
    "a name of spaces": (told("a", " _ "), 422, "invalid_payload"),
    "a name too long": (told("a", "b" * 201), 422, "invalid_payload"),
    "too many classes": (told(*map(str, range(1001))), 422, "invalid_payload"),
    "an unknown field of a class": (told("a", {"name": "b", "colour": 1}), 422, "invalid_payload"),
    "attributes of two lengths": (told(ONE, {"name": "b", "attributes": [2.0]}), 422, "invalid_payload"),
    "attributes of some": (told(ONE, "b"), 422, "invalid_payload"),
    "attributes of nothing but zeros": (told(ONE, {"name": "b", "attributes": [0.0, 0.0]}), 422, "invalid_payload"),
    "attributes in one direction": (told(ONE, {"name": "b", "attributes": [3.0, 0.0]}), 422, "invalid_payload"),
    "attributes that are no numbers": (told(ONE, {"name": "b", "attributes": ["NaN", 1.0]}), 422, "invalid_payload"),
    "attributes without images": (told(ONE, TWO), 400, "seen_classes_missing"),
    "an unknown approach": (told("a", "b", approach="magic"), 422, "invalid_payload"),
    "images needed": (told("a", "b", approach="eszsl"), 400, "seen_classes_missing"),
    "a mean of no images": (told("a", "b", centre="dataset"), 400, "dataset_missing"),
    "unknown backbone": ({**told("a", "b"), "backbone": "timm/nothing"}, 404, "unknown_backbone"),
    "a backbone without a classifier": ({**told("a", "b"), **MOBILENET}, 400, "classifier_missing"),
    "a way that needs a classifier": ({**told("a", "b", approach="conse"), **CLIP}, 400, "classifier_missing"),
    "clip without a text tower": (told("a", "b", approach="clip"), 400, "text_tower_missing"),
    "clip on whatever is best": ({**told("a", "b", approach="clip"), "backbone": "auto"}, 400, "text_tower_missing"),
    "clip with attributes": ({**told(ONE, TWO, approach="clip"), **CLIP}, 400, "attributes_not_text"),
    "attributes for a text tower": ({**told(ONE, TWO), **CLIP}, 400, "seen_classes_missing"),
    "clip with a mean": ({**told("a", "b", centre="shipped"), **CLIP}, 400, "centre_unused"),
}


@pytest.mark.parametrize("case", UNTOLD)
def test_classes_that_are_badly_told_leave_nothing_behind(client, database, home, case):
    overrides, status, code = UNTOLD[case]
    problem(client.post(URL, json=body(None, **overrides)), status, code)
    assert num_jobs(database) == 0
    assert files_below(home / "broker" / "messages") == []


def test_told_classes_need_no_dataset(client, database):
    wish = body(None, **told("a", {"name": "b", "description": "flies"}))
    del wish["dataset"]
    answer = client.post(URL, json=wish)
    assert answer.status_code == 202, answer.text
    assert answer.json()["dataset"] is None
    assert answer.json()["recipe"]["classes"][1] == {"name": "b", "description": "flies", "attributes": None}
    assert client.get(f"{URL}/{answer.json()['id']}").json()["dataset"] is None


@pytest.mark.parametrize("approach", ["auto", "clip"])
def test_a_text_tower_needs_no_classifier(client, approach):
    assert client.post(URL, json=body(None, **told("a", "b", approach=approach), **CLIP)).status_code == 202


def test_told_classes_and_seen_ones(client, dataset_id):
    """The dataset has blue and red."""
    fits = [
        told("a", "b"),
        told("blue", "b", approach="eszsl"),
        {**told("a", "b"), **MOBILENET},
        told({"name": "blue", "attributes": [0.0, 1.0]}, {"name": "red", "attributes": [-1.0, 1.0]}, ONE),
    ]
    for number, overrides in enumerate(fits):
        assert client.post(URL, json=body(dataset_id, **overrides, model=f"m{number}")).status_code == 202
    lacking = told({"name": "blue", "attributes": [0.0, 1.0]}, ONE, TWO)
    problem(client.post(URL, json=body(dataset_id, **lacking)), 400, "seen_classes_missing")
    words = told(
        {"name": "blue", "attributes": [0.0, 1.0]}, {"name": "red", "attributes": [-1.0, 1.0]}, approach="conse"
    )
    problem(client.post(URL, json=body(dataset_id, **words)), 400, "attributes_not_text")
    bare = {**told("a", "b", approach="conse"), **MOBILENET}
    problem(client.post(URL, json=body(dataset_id, **bare)), 400, "classifier_missing")


def test_dataset_without_labels_lends_its_mean(client, database):
    with database.write() as session:
        unlabelled = factories.dataset(session, classes=[]).id
    assert client.post(URL, json=body(unlabelled, **told("a", "b"))).status_code == 202
    problem(client.post(URL, json=body(unlabelled)), 400, "labels_missing")
    problem(client.post(URL, json=body(unlabelled, **told("a", "b", approach="devise"))), 400, "seen_classes_missing")


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


ACTIONS = {
    ("cancel", "queued"): "cancelled",
    ("cancel", "running"): "running",
    ("stop", "running"): "running",
    ("retry", "failed"): "queued",
    ("retry", "cancelled"): "queued",
}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("action", ["cancel", "stop", "retry"])
def test_actions_in_every_state(client, database, action, state):
    job_id = make_job(database, state=state)
    answer = client.post(f"{URL}/{job_id}/{action}")
    wanted = ACTIONS.get((action, state))
    if wanted is None:
        problem(answer, 409, "invalid_state")
        wanted = state
    else:
        assert answer.status_code == (202 if action == "retry" else 200)
        assert answer.json()["state"] == wanted
    assert client.get(f"{URL}/{job_id}").json()["state"] == wanted
    with database.read() as session:
        request = session.get_one(Job, job_id).request
    assert request == (action if wanted == state == "running" and action != "retry" else None)


@pytest.mark.parametrize("action", ["cancel", "stop", "retry", "reproduce"])
def test_actions_take_no_body(client, database, action):
    job_id = make_job(database, state="running")
    refused = problem(client.post(f"{URL}/{job_id}/{action}", json={"seed": 7}), 422, "invalid_payload")
    assert [one["pointer"] for one in refused["errors"]] == ["/body/seed"]
    assert client.get(f"{URL}/{job_id}").json()["state"] == "running"
    expected = 409 if action in ("retry", "reproduce") else 200
    assert client.post(f"{URL}/{job_id}/{action}", json={}).status_code == expected


def test_stop_after_cancel_is_refused(client, database):
    job_id = make_job(database, state="running")
    client.post(f"{URL}/{job_id}/cancel")
    assert "being cancelled" in problem(client.post(f"{URL}/{job_id}/stop"), 409, "invalid_state")["detail"]


def test_retry_forgets_the_failure(client, database, home):
    with database.write() as session:
        job = factories.job(session, state="running", losses=2)
        attempts.fail(session, job, "diverged", "not finite")
    failed = client.get(f"{URL}/{job.id}").json()
    assert failed["failure"] == {"code": "diverged", "message": "not finite"}
    assert failed["finished_at"]
    key = {"Idempotency-Key": "once"}
    answer = client.post(f"{URL}/{job.id}/retry", headers=key)
    again = answer.json()
    assert (answer.status_code, answer.headers["location"]) == (202, f"{URL}/{job.id}")
    assert (again["failure"], again["finished_at"]) == (None, None)
    replayed = client.post(f"{URL}/{job.id}/retry", headers=key)
    assert (replayed.status_code, replayed.headers["location"], replayed.json()) == (
        202,
        answer.headers["location"],
        again,
    )
    problem(client.post(f"{URL}/{job.id}/retry"), 409, "invalid_state")
    with database.read() as session:
        assert session.get_one(Job, job.id).losses == 0
    assert len(files_below(home / "broker" / "messages")) == 1


@pytest.mark.parametrize("kind", ["ingest", "backbone"])
def test_jobs_whose_input_is_gone_cannot_be_retried(client, database, kind):
    job_id = make_job(database, kind=kind, state="failed", inputs={"file": "a", "backbone_id": "b"})
    problem(client.post(f"{URL}/{job_id}/retry"), 400, "not_retryable")


def test_cancelled_ingestion_leaves_no_upload_and_no_waiting_dataset(client, home):
    archive = factories.pack(factories.pictures(1))
    made = client.post("/api/v1/datasets", files={"file": ("a.zip", archive)}, data={"name": "a"}).json()
    assert client.post(f"{URL}/{made['job_id']}/cancel").json()["state"] == "cancelled"
    found = client.get(f"/api/v1/datasets/{made['id']}").json()
    assert found["state"] == "invalid"
    assert found["failure"]["code"] == "cancelled"
    assert files_below(home / "storage") == []


def test_cancel_drops_what_waits_for_it(client, database, dataset_id):
    first = client.post(URL, json=body(dataset_id)).json()["id"]
    second = client.post(URL, json=body(dataset_id, depends_on=[first, first])).json()["id"]
    third = client.post(URL, json=body(dataset_id, depends_on=[second])).json()["id"]
    free = client.post(URL, json=body(dataset_id)).json()["id"]
    client.post(f"{URL}/{first}/cancel")
    states = [client.get(f"{URL}/{job}").json()["state"] for job in (first, second, third, free)]
    assert states == ["cancelled", "cancelled", "cancelled", "queued"]
    last = client.get(f"{URL}/{second}/events").json()["data"][-1]
    assert first in last["message"]


def test_a_job_cannot_wait_for_one_that_has_failed(client, database, dataset_id):
    for state in ("failed", "cancelled"):
        lost = make_job(database, state=state)
        found = problem(client.post(URL, json=body(dataset_id, depends_on=[lost])), 409, "invalid_state")
        assert lost in found["detail"]
    done = make_job(database, state="succeeded")
    waiting = client.post(URL, json=body(dataset_id, depends_on=[done]))
    assert waiting.status_code == 202


def test_a_dropped_job_is_retried_after_what_it_waits_for(client, database, dataset_id):
    first = client.post(URL, json=body(dataset_id)).json()["id"]
    second = client.post(URL, json=body(dataset_id, depends_on=[first])).json()["id"]
    client.post(f"{URL}/{first}/cancel")
    problem(client.post(f"{URL}/{second}/retry"), 409, "invalid_state")
    assert client.post(f"{URL}/{first}/retry").status_code == 202
    assert client.post(f"{URL}/{second}/retry").status_code == 202


def test_events_in_pages(client, database):
    with database.write() as session:
        job = factories.job(session)
        for number in range(4):
            jobs.log(session, job, "metric", f"step {number}", loss=number / 2)
    url = f"{URL}/{job.id}/events"
    first = client.get(url, params={"limit": 2}).json()
    assert ([row["id"] for row in first["data"]], first["has_more"]) == ([1, 2], True)
    assert (first["data"][0]["type"], first["data"][0]["message"]) == ("state", "queued")
    second = client.get(url, params={"after": 2}).json()
    assert ([row["id"] for row in second["data"]], second["has_more"]) == ([3, 4, 5], False)
    assert second["data"][-1].items() >= {
        "level": "info", "type": "metric", "message": "step 3", "data": {"loss": 1.5}
    }.items()  # fmt: skip
    problem(client.get(url, params={"after": -1}), 422, "invalid_payload")


def parse_stream(text):
    """(id, event, data) of each message of a stream."""
    messages = []
    for block in text.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "data" in fields:
            messages.append((fields.get("id"), fields["event"], json.loads(fields["data"])))
    return messages


def stream(client, job_id, **headers):
    answer = client.get(f"{URL}/{job_id}/events", headers={"Accept": "text/event-stream", **headers})
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-store"
    return parse_stream(answer.text)


def test_stream_replays_and_resumes(client, database):
    job_id = make_job(database, state="succeeded")
    messages = stream(client, job_id)
    logged = [(int(number), data["id"]) for number, _, data in messages if number]
    assert logged == [(1, 1), (2, 2), (3, 3)]
    assert [kind for number, kind, _ in messages if number] == ["state"] * 3
    assert messages[-1][:2] == (None, "progress")
    told = messages[-1][2]
    assert told.keys() == messages[0][2].keys()
    assert (told["id"], told["level"], told["type"]) == (None, "info", "progress")
    assert told["message"] == told["data"]["stage"]
    assert told["data"].keys() == {"fraction", "stage", "eta_seconds"}
    assert [number for number, *_ in stream(client, job_id, **{"Last-Event-ID": "2"}) if number] == ["3"]
    # Browsers would ask again and again for a stream that has ended.
    headers = {"Accept": "text/event-stream", "Last-Event-ID": "3"}
    assert client.get(f"{URL}/{job_id}/events", headers=headers).status_code == 204


def test_stream_follows_a_job_to_its_end(client, database):
    job_id = make_job(database)
    received = []
    reader = threading.Thread(target=lambda: received.extend(stream(client, job_id)))
    reader.start()
    with database.write() as session:
        attempts.claim(session, ["cpu"], "me", 60)
    for number in range(3):
        entry = {"type": "log", "message": f"line {number}"}
        progress = {"fraction": number / 3, "stage": "features", "eta_seconds": None}
        with database.write() as session:
            attempts.record(session, job_id, "me", [entry], progress)
    with database.write() as session:
        jobs.move(session, session.get_one(Job, job_id), JobState.SUCCEEDED)
    reader.join(30)
    assert not reader.is_alive()
    logged = [(int(number), data["message"]) for number, _, data in received if number]
    assert logged == [
        (1, "queued"), (2, "attempt 1 started"), (3, "line 0"), (4, "line 1"), (5, "line 2"), (6, "succeeded")
    ]  # fmt: skip
    assert [data["data"]["fraction"] for number, _, data in received if number is None][-1] == 2 / 3


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


@pytest.mark.parametrize("given", ["\u0662", "\u00b2", "2147483648", "9" * 5000, "-1", "x", ""])
def test_stream_starts_anew_after_a_number_that_is_none_of_ours(client, database, given):
    job_id = make_job(database, state="succeeded")
    found = stream(client, job_id, **{"Last-Event-ID": given.encode()})
    assert [number for number, *_ in found if number] == ["1", "2", "3"]


@pytest.mark.parametrize("kind", ["ingest", "backbone"])
def test_only_transfers_can_be_stopped(client, database, kind):
    job_id = make_job(database, kind=kind, state="running")
    found = problem(client.post(f"{URL}/{job_id}/stop"), 409, "invalid_state")
    assert kind in found["detail"]


def test_retry_begins_at_the_beginning(client, database):
    job_id = make_job(database, state="failed", progress={"fraction": 0.7, "stage": "train", "eta_seconds": 3.0})
    wanted = {"fraction": 0.0, "stage": "queued", "eta_seconds": None}
    assert client.post(f"{URL}/{job_id}/retry").json()["progress"] == wanted
    assert client.get(f"{URL}/{job_id}").json()["progress"] == wanted


def test_retry_without_its_dataset_is_refused(client, database, dataset_id):
    job_id = make_job(database, state="failed", dataset_id=dataset_id)
    assert client.delete(f"/api/v1/datasets/{dataset_id}").status_code == 204
    found = problem(client.post(f"{URL}/{job_id}/retry"), 409, "invalid_state")
    assert dataset_id in found["detail"]


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
