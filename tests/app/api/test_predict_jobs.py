"""Jobs of kind predict: what is pinned, what is refused, and how their file is handed out and given up."""

import pytest
from sqlalchemy import func, select

from app.db.models import IdempotencyKey, Job
from app.services import attempts, outcomes
from app.services.aliases import Target, point
from tests import factories
from tests.app.api.made_files import finish
from tests.app.api.test_evaluations import SPEC
from tests.checks import problem

URL = "/api/v1/jobs"


@pytest.fixture
def database(light_client):
    return light_client.app.state.graft.database


@pytest.fixture
def given(database):
    """A dataset without test images, and a model of two versions."""
    with database.write() as session:
        dataset = factories.dataset(session, splits={"train": 18, "val": 2, "test": 0}).id
        factories.model(session, "colours", num_versions=2, spec=SPEC)
    return {"kind": "predict", "dataset": dataset, "model": "colours"}


def row(database, job_id):
    with database.read() as session:
        return session.get_one(Job, job_id)


def test_a_job_is_pinned_to_what_the_names_mean_now(light_client, database, given):
    with database.write() as session:
        alignment = factories.alignment(session, prefix="bundles/default/aln/attempt-1").id
        other = factories.alignment(session, 2, prefix="bundles/default/aln2/attempt-1").id
    models = "/api/v1/models/colours"
    with light_client.app.state.graft.database.write() as session:
        point(session, "default", "colours", "staging", Target(1))
    light_client.put(f"{models}/domains/night", json={"alignment": alignment})
    wish = {**given, "alias": "staging", "domain": "night", "splits": ["val", "train"], "top_k": 3, "format": "jsonl"}
    answer = light_client.post(URL, json=wish)
    made = answer.json()
    assert (answer.status_code, answer.headers["Location"]) == (202, f"{URL}/{made['id']}")
    assert made["request"] == {
        "dataset": given["dataset"], "upload_id": None, "model": "colours", "version": 1, "alias": "staging",
        "domain": "night", "alignment": alignment, "splits": ["val", "train"], "top_k": 3, "features": False,
        "format": "jsonl",
    }  # fmt: skip
    assert (made["kind"], made["state"], made["dataset"]) == ("predict", "queued", given["dataset"])
    assert made["model"] == {"name": "colours", "version": 1}
    with light_client.app.state.graft.database.write() as session:
        point(session, "default", "colours", "staging", Target(2))
    light_client.put(f"{models}/domains/night", json={"alignment": other})
    assert light_client.get(f"{URL}/{made['id']}").json() == made
    version = row(database, made["id"]).inputs["version"]
    assert (version["version"], version["alignment"]["id"], version["alignment"]["number"]) == (1, alignment, 1)


def test_defaults_are_those_of_predict(light_client, given):
    assert light_client.post(URL, json=given).json()["request"].items() >= {
        "version": 2, "alias": None, "splits": None, "top_k": 100, "features": False, "format": "parquet",
    }.items()  # fmt: skip
    with light_client.app.state.graft.database.write() as session:
        point(session, "default", "colours", "production", Target(1))
    assert light_client.post(URL, json=given).json()["request"]["version"] == 1
    assert light_client.post(URL, json={**given, "version": 2}).json()["request"]["version"] == 2


def test_the_same_key_asks_once(light_client, given):
    first, again = (light_client.post(URL, json=given, headers={"Idempotency-Key": "k"}) for _ in range(2))
    assert first.json() == again.json()
    changed = light_client.post(URL, json={**given, "top_k": 1}, headers={"Idempotency-Key": "k"})
    problem(changed, 422, "idempotency_mismatch")


REFUSED = {
    "no dataset": ({"dataset": ...}, 422, "invalid_payload"),
    "no model": ({"model": ...}, 422, "invalid_payload"),
    "a field of transfers": ({"recipe": {"method": "auto"}}, 422, "invalid_payload"),
    "text for a number": ({"top_k": "3"}, 422, "invalid_payload"),
    "no class": ({"top_k": 0}, 422, "invalid_payload"),
    "unknown format": ({"format": "csv"}, 422, "invalid_payload"),
    "unknown split": ({"splits": ["all"]}, 422, "invalid_payload"),
    "no split": ({"splits": []}, 422, "invalid_payload"),
    "a split twice": ({"splits": ["val", "val"]}, 422, "invalid_payload"),
    "a split without images": ({"splits": ["test"]}, 400, "no_images"),
    "unknown dataset": ({"dataset": "ds_0"}, 404, "not_found"),
    "unknown model": ({"model": "none"}, 404, "not_found"),
    "unknown version": ({"version": 7}, 404, "not_found"),
    "unknown alias": ({"alias": "none"}, 404, "not_found"),
    "version and alias": ({"version": 1, "alias": "a"}, 409, "ambiguous_version"),
    "unknown domain": ({"domain": "none"}, 404, "unknown_domain"),
    "another task": ({"model": "numbers"}, 400, "unsupported_task"),
    "not ready": ({"dataset": "WAITING"}, 409, "dataset_not_ready"),
}


def test_refused_jobs_leave_nothing_behind(light_client, database, given):
    with database.write() as session:
        waiting = factories.dataset(session, state="ingesting").id
        factories.model(session, "numbers", spec={**SPEC, "task": "regression"})
    for case, (changes, status, code) in REFUSED.items():
        body = {name: value for name, value in {**given, **changes}.items() if value is not ...}
        if body.get("dataset") == "WAITING":
            body["dataset"] = waiting
        answer = light_client.post(URL, json=body, headers={"Idempotency-Key": case})
        found = problem(answer, status, code)
        if status == 422:
            (named,) = changes
            # What is wrong with a field by itself is told before what is wrong with the whole.
            whole = case in ("a split twice", "no dataset")
            assert found["errors"][0]["pointer"].startswith("/body" if whole else f"/body/{named}"), case
    with database.read() as session:
        assert [session.scalar(select(func.count()).select_from(table)) for table in (Job, IdempotencyKey)] == [0, 0]


@pytest.mark.parametrize(("form", "kind"), [("parquet", "application/vnd.apache.parquet"),
                                            ("jsonl", "application/x-ndjson")])  # fmt: skip
def test_the_file_is_handed_out_and_given_up(light_client, database, given, form, kind):
    made = light_client.post(URL, json={**given, "format": form}).json()
    place = f"{URL}/{made['id']}/predictions"
    for method in ("GET", "DELETE"):
        assert (
            "queued; wait for it"
            in problem(light_client.request(method, place), 409, "predictions_not_ready")["detail"]
        )
    waste = finish(light_client, made["id"], "predictions", b"rows")
    assert waste == [f"checkpoints/default/{made['id']}"]
    ended = light_client.get(f"{URL}/{made['id']}").json()
    assert (ended["state"], ended["metrics"], ended["request"]) == ("succeeded", {"num_samples": 20}, made["request"])
    answer = light_client.get(place)
    assert (answer.status_code, answer.content, answer.headers["Content-Type"]) == (200, b"rows", kind)
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{made["id"]}-predictions.{form}"'
    # It is the job's: neither the dataset nor the model take it along.
    assert light_client.delete(f"/api/v1/datasets/{given['dataset']}").status_code == 204
    assert light_client.delete("/api/v1/models/colours").status_code == 204
    assert light_client.get(place).content == b"rows"
    assert light_client.delete(place).status_code == 204
    assert "deleted" in problem(light_client.get(place), 404, "no_predictions")["detail"]
    assert light_client.get(f"{URL}/{made['id']}").json()["state"] == "succeeded"


def test_other_jobs_have_none(light_client, database):
    with database.write() as session:
        other = factories.job(session, state="succeeded").id
    problem(light_client.get(f"{URL}/{other}/predictions"), 404, "no_predictions")
    problem(light_client.delete(f"{URL}/{other}/predictions"), 404, "no_predictions")
    problem(light_client.get(f"{URL}/job_0/predictions"), 404, "not_found")
    assert light_client.get(f"{URL}/{other}").json()["request"] is None


def test_a_dataset_is_in_use_and_chunks_go_when_the_job_is_cancelled(light_client, database, given, home):
    made = light_client.post(URL, json=given).json()
    found = problem(light_client.delete(f"/api/v1/datasets/{given['dataset']}"), 409, "in_use")
    assert found["users"] == [made["id"]]
    chunk = (
        home / "storage" / "checkpoints" / "default" / made["id"] / "predictions" / "000000000000-000000000001.parquet"
    )
    chunk.parent.mkdir(parents=True)
    chunk.write_bytes(b"rows")
    light_client.post(f"{URL}/{made['id']}/cancel")
    assert not chunk.exists()
    detail = problem(light_client.get(f"{URL}/{made['id']}/predictions"), 409, "predictions_not_ready")["detail"]
    assert "cancelled; retry it" in detail
    assert light_client.post(f"{URL}/{made['id']}/retry").json()["state"] == "queued"


def test_a_failed_job_keeps_its_chunks_for_a_retry(database, light_client, given):
    made = light_client.post(URL, json=given).json()
    with database.write() as session:
        attempts.claim(session, ["cpu"], "me", 60)
        assert outcomes.fail(session, made["id"], "me", "timed_out", "late") == []
    detail = problem(light_client.get(f"{URL}/{made['id']}/predictions"), 409, "predictions_not_ready")["detail"]
    assert "failed: late; retry it" in detail
    assert light_client.post(f"{URL}/{made['id']}/retry").status_code == 202


def test_a_running_job_can_be_stopped(database, light_client, given):
    made = light_client.post(URL, json=given).json()
    with database.write() as session:
        attempts.claim(session, ["cpu"], "me", 60)
    assert light_client.post(f"{URL}/{made['id']}/stop").status_code == 200
    assert row(database, made["id"]).request == "stop"
