"""The routes of evaluations: ask, look, delete, reproduce, and everything that is refused."""

import pytest
from sqlalchemy import func, select

from app.db.models import Job, UserBackbone
from app.db.studies import Evaluation
from app.services import datasets
from app.services.aliases import Target, point
from tests import factories
from tests.checks import problem

URL = "/api/v1/evaluations"
SPEC = {
    **factories.SPEC, "recipe": {"method": "linear_probe"}, "seed": 0, "added": None, "source": None,
    "backbone": {"name": factories.BACKBONE, "digest": "b" * 64, "licence": "Apache-2.0", "feature_dim": 6},
    "files": {"backbone.onnx": {"key": "graphs/x", "sha256": "a" * 64, "size_bytes": 1}},
}  # fmt: skip


@pytest.fixture
def given(database):
    """A dataset, and a model with two versions, the first of which was made from it."""
    with database.write() as session:
        dataset = factories.dataset(session).id
        made_from = {"id": dataset, "digest": "d" * 64, "splits": {}}
        of = factories.model(session, "colours", num_versions=0)
        for number, origin in ((1, made_from), (2, {**made_from, "id": "ds_gone"})):
            factories.version(session, of, number, spec={**SPEC, "dataset": origin})
        of.last_version = 2
    return {"dataset": dataset, "model": "colours"}


def counts(database):
    with database.read() as session:
        return tuple(session.scalar(select(func.count()).select_from(table)) for table in (Evaluation, Job))


def inputs(database, found):
    with database.read() as session:
        return session.get_one(Job, found["job_id"]).inputs


def test_asking_makes_a_job_and_fills_the_defaults_in(client, database, given):
    answer = client.post(URL, json={**given, "version": 1})
    body = answer.json()
    assert (answer.status_code, answer.headers["Location"]) == (202, f"{URL}/{body['id']}")
    assert body["request"] == {
        **given, "mode": "versions", "version": 1, "alias": None, "against": None, "split": "test", "domain": None,
        "seed": 0,
    }  # fmt: skip
    assert (body["state"], body["result"], body["failure"]) == ("running", None, None)
    job = client.get(f"/api/v1/jobs/{body['job_id']}").json()
    assert (job["kind"], job["state"], job["dataset"]) == ("evaluate", "queued", given["dataset"])
    found = inputs(database, body)
    assert (found["mode"], found["split"], found["study_id"]) == ("versions", "test", body["id"])
    assert found["sides"][0].keys() == {"model", "version", "prefix", "domain", "alignment"}
    assert client.get(f"{URL}/{body['id']}").json() == body
    second = client.post(URL, json={**given, "mode": "versions"}).json()
    # The newest, which was made from other data: all of this dataset is new to it.
    assert (second["request"]["version"], second["request"]["split"]) == (2, "all")
    listed = client.get(URL, params={"limit": 1}).json()
    assert ([row["id"] for row in listed["data"]], listed["has_more"]) == ([second["id"]], True)


def test_a_relative_of_the_versions_dataset_is_judged_on_its_test_split(client, database, given):
    with database.write() as session:
        child = factories.dataset(session, base_id=given["dataset"]).id
        sibling = factories.dataset(session, base_id=given["dataset"]).id
        stranger = factories.dataset(session).id
        of = factories.model(session, "of_child", num_versions=0)
        factories.version(session, of, 1, spec={**SPEC, "dataset": {"id": child, "digest": "d" * 64, "splits": {}}})
    splits = {
        name: client.post(URL, json={"dataset": dataset, "model": "of_child"}).json()["request"]["split"]
        for name, dataset in (("own", child), ("base", given["dataset"]), ("sibling", sibling), ("other", stranger))
    }
    assert splits == {"own": "test", "base": "test", "sibling": "test", "other": "all"}
    asked = client.post(URL, json={"dataset": child, "model": "of_child", "split": "all"}).json()
    assert asked["request"]["split"] == "all"


def test_two_versions(client, database, given):
    body = client.post(URL, json={**given, "version": 2, "against": {"model": "colours", "version": 1}}).json()
    sides = inputs(database, body)["sides"]
    assert [(one["model"], one["version"]) for one in sides] == [("colours", 2), ("colours", 1)]
    assert body["request"]["against"] == {"model": "colours", "version": 1, "alias": None, "domain": None}
    assert body["request"]["split"] == "test"
    with client.app.state.graft.database.write() as session:
        point(session, "default", "colours", "production", Target(1))
    assert client.post(URL, json=given).json()["request"]["version"] == 1


def test_domains_bring_their_alignment(client, database, given):
    with database.write() as session:
        row = factories.alignment(session, prefix="bundles/default/aln/attempt-1")
    client.put("/api/v1/models/colours/domains/night", json={"alignment": row.id})
    body = client.post(URL, json={**given, "domain": "night", "against": {"model": "colours"}}).json()
    first, second = inputs(database, body)["sides"]
    assert first["alignment"] == {"id": row.id, "number": 1, "prefix": row.prefix, "moving_backbone": None}
    assert second["alignment"] is None
    problem(client.post(URL, json={**given, "domain": "day"}), 404, "unknown_domain")


def test_the_same_key_asks_once(client, database, given):
    headers = {"Idempotency-Key": "k1"}
    first, again = (client.post(URL, json=given, headers=headers) for _ in range(2))
    assert first.json() == again.json()
    assert again.headers["Location"] == first.headers["Location"]
    problem(client.post(URL, json={**given, "seed": 1}, headers=headers), 422, "idempotency_mismatch")
    assert counts(database) == (1, 1)


REFUSED = {
    "unknown mode": ({"mode": "magic"}, 422, "invalid_payload"),
    "reproduce has a route of its own": ({"mode": "reproduce"}, 422, "invalid_payload"),
    "unknown field": ({"folds": 3}, 422, "invalid_payload"),
    "no dataset": ({"dataset": ...}, 422, "invalid_payload"),
    "text for a number": ({"version": "1"}, 422, "invalid_payload"),
    "unknown split": ({"split": "train"}, 422, "invalid_payload"),
    "unknown dataset": ({"dataset": "ds_0"}, 404, "not_found"),
    "unknown model": ({"model": "none"}, 404, "not_found"),
    "unknown version": ({"version": 7}, 404, "not_found"),
    "unknown alias": ({"alias": "none"}, 404, "not_found"),
    "version and alias": ({"version": 1, "alias": "production"}, 409, "ambiguous_version"),
    "unknown other model": ({"against": {"model": "none"}}, 404, "not_found"),
    "unknown field of the other": ({"against": {"model": "colours", "split": "all"}}, 422, "invalid_payload"),
    "itself": ({"against": {"model": "colours", "version": 2}}, 400, "nothing_to_compare"),
    "nothing in common": ({"dataset": "STRANGE"}, 400, "no_common_labels"),
    "two versions without labels": (
        {"dataset": "UNLABELLED", "against": {"model": "colours", "version": 1}},
        400,
        "labels_missing",
    ),
    "another task": ({"dataset": "NUMBERS"}, 400, "unsupported_task"),
    "not ready": ({"dataset": "WAITING"}, 409, "dataset_not_ready"),
}


def test_one_version_without_labels_is_estimated(client, database, given):
    with database.write() as session:
        bare = factories.dataset(session, classes=[]).id
    response = client.post(URL, json={**given, "dataset": bare})
    assert response.status_code == 202, response.text
    assert inputs(database, response.json())["split"] == "all"


@pytest.mark.parametrize("case", REFUSED)
def test_refused(client, database, given, case):
    changes, status, code = REFUSED[case]
    with database.write() as session:
        odd = {
            "STRANGE": factories.dataset(session, classes=[{"name": "dog", "num_samples": 9}]).id,
            "UNLABELLED": factories.dataset(session, classes=[]).id,
            "NUMBERS": factories.dataset(session, task="regression", classes=[]).id,
            "WAITING": factories.dataset(session, state="ingesting").id,
        }
    body = {name: value for name, value in {**given, **changes}.items() if value is not ...}
    body["dataset"] = odd.get(body.get("dataset"), body.get("dataset")) if "dataset" in body else ...
    body = {name: value for name, value in body.items() if value is not ...}
    problem(client.post(URL, json=body), status, code)
    assert counts(database) == (0, 0)


def test_what_is_wrong_is_pointed_at_where_the_client_wrote_it(client, given):
    body = {**given, "version": "1", "against": {"model": "a b"}}
    found = problem(client.post(URL, json=body), 422, "invalid_payload")
    assert {item["pointer"] for item in found["errors"]} == {"/body/version", "/body/against/model"}
    found = problem(client.post(URL, json={"mode": "folds", "dataset": "x"}), 422, "invalid_payload")
    assert {item["pointer"] for item in found["errors"]} == {"/body/recipe"}


@pytest.fixture
def folds(given):
    return {"mode": "folds", "dataset": given["dataset"], "backbone": factories.BACKBONE,
            "recipe": {"method": "linear_probe"}}  # fmt: skip


def test_folds_of_a_recipe(client, database, folds):
    body = client.post(URL, json={**folds, "against": {"method": "few_shot"}}).json()
    assert (body["request"]["folds"], body["request"]["repeats"], body["request"]["seed"]) == (5, 3, 0)
    job = client.get(f"/api/v1/jobs/{body['job_id']}").json()
    assert (job["kind"], job["recipe"], job["backbone"]) == ("evaluate", folds["recipe"], factories.BACKBONE)
    found = inputs(database, body)
    assert (found["mode"], found["folds"], found["repeats"]) == ("folds", 5, 3)
    assert found["against"] == {"method": "few_shot"}


REFUSED_FOLDS = {
    "too many": ({"folds": 11}, 422, "invalid_payload"),
    "one": ({"folds": 1}, 422, "invalid_payload"),
    "repeats": ({"repeats": 21}, 422, "invalid_payload"),
    "the same": ({"against": {"method": "linear_probe"}}, 422, "invalid_payload"),
    "the same with its defaults": (
        {"recipe": {"method": "fine_tune"}, "against": {"method": "fine_tune", "epochs": 20}}, 400,
        "nothing_to_compare",
    ),
    "unknown recipe": ({"recipe": {"method": "magic"}}, 400, "unknown_recipe"),
    "a field out of bounds": ({"recipe": {"method": "fine_tune", "epochs": 0}}, 422, "invalid_payload"),
    "two datasets": ({"recipe": {"method": "adapt", "source": "ds_1"}}, 400, "unsupported_recipe"),
    "no images": ({"against": {"method": "zero_shot", "classes": [{"name": "a"}, {"name": "b"}]}}, 400,
                  "unsupported_recipe"),
    "unknown backbone": ({"backbone": "timm/none"}, 404, "unknown_backbone"),
    "no attention": ({"recipe": {"method": "fine_tune", "scope": "lora"}}, 400, "unsupported_scope"),
    "unknown dataset": ({"dataset": "ds_0"}, 404, "not_found"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED_FOLDS)
def test_refused_folds(client, database, folds, case):
    changes, status, code = REFUSED_FOLDS[case]
    problem(client.post(URL, json={**folds, **changes}), status, code)
    assert counts(database) == (0, 0)


def test_only_folds_can_be_stopped(client, database, given, folds):
    for body, status in ((given, 409), (folds, 200)):
        made = client.post(URL, json=body).json()
        with database.write() as session:
            session.get_one(Job, made["job_id"]).state = "running"
        assert client.post(f"/api/v1/jobs/{made['job_id']}/stop").status_code == status


def test_deletion_and_datasets_in_use(client, given):
    made = client.post(URL, json=given).json()
    assert problem(client.delete(f"{URL}/{made['id']}"), 409, "in_use")["users"] == [made["job_id"]]
    assert problem(client.delete(f"/api/v1/datasets/{given['dataset']}"), 409, "in_use")["users"] == [made["job_id"]]
    client.post(f"/api/v1/jobs/{made['job_id']}/cancel")
    ended = client.get(f"{URL}/{made['id']}").json()
    assert (ended["state"], ended["failure"]["code"]) == ("failed", "cancelled")
    assert client.delete(f"{URL}/{made['id']}").status_code == 204
    problem(client.get(f"{URL}/{made['id']}"), 404, "not_found")


def test_another_projects_evaluation_is_not_seen(client, database):
    with database.write() as session:
        owner = factories.project(session, "other")
        session.add(Evaluation(id="evl_1", project_id=owner, state="ready", request={}))
    problem(client.get(f"{URL}/evl_1"), 404, "not_found")
    assert client.get(URL).json()["data"] == []


@pytest.fixture
def finished(database, given):
    """A succeeded transfer with its version."""
    with database.write() as session:
        job = factories.job(
            session, state="succeeded", dataset_id=given["dataset"], backbone=factories.BACKBONE, seed=3,
            recipe={"method": "linear_probe"}, model_name="again",
        )  # fmt: skip
        of = factories.model(session, "again", num_versions=0)
        factories.version(session, of, 1, job_id=job.id, spec={**SPEC, "dataset": None})
        of.last_version = 1
        return job.id


def reproduce(client, job_id, **headers):
    return client.post(f"/api/v1/jobs/{job_id}/reproduce", headers=headers)


def test_a_job_is_carried_out_again(client, database, given, finished):
    answer = reproduce(client, finished)
    body = answer.json()
    assert (answer.status_code, answer.headers["Location"]) == (202, f"{URL}/{body['id']}")
    assert body["request"] == {
        "mode": "reproduce", "job": finished, "model": "again", "version": 1, "dataset": given["dataset"],
        "backbone": factories.BACKBONE, "recipe": {"method": "linear_probe"}, "seed": 3,
    }  # fmt: skip
    job = client.get(f"/api/v1/jobs/{body['job_id']}").json()
    assert (job["kind"], job["recipe"], job["seed"], job["backbone"]) == (
        "evaluate", {"method": "linear_probe"}, 3, factories.BACKBONE,
    )  # fmt: skip
    assert inputs(database, body)["original"]["job"] == finished
    assert client.get(answer.headers["Location"]).json() == body


def test_the_same_key_reproduces_once(client, finished):
    first, again = (reproduce(client, finished, **{"Idempotency-Key": "k"}).json() for _ in range(2))
    assert first["id"] == again["id"]


def test_what_cannot_be_reproduced(client, database, given, finished):
    problem(reproduce(client, "job_0"), 404, "not_found")
    with database.write() as session:
        waiting = factories.job(session, dataset_id=given["dataset"]).id
        failed = factories.job(session, state="failed").id
        other = factories.job(session, kind="ingest", state="succeeded").id
        session.get_one(Job, finished).backbone = "user/gone"
    for job in (waiting, failed, other):
        assert "found a job of kind" in problem(reproduce(client, job), 409, "not_reproducible")["detail"]
    problem(reproduce(client, finished), 404, "unknown_backbone")
    with database.write() as session:
        session.get_one(Job, finished).backbone = factories.BACKBONE
        session.get_one(Job, waiting).state = "cancelled"
    assert client.delete("/api/v1/models/again/versions/1").status_code == 204
    assert "version" in problem(reproduce(client, finished), 409, "not_reproducible")["detail"]
    with database.write() as session:
        datasets.delete(session, "default", given["dataset"])
    assert given["dataset"] in problem(reproduce(client, finished), 409, "not_reproducible")["detail"]
    assert counts(database)[0] == 0


def test_a_version_becomes_a_backbone(client, database, given):
    own = {**SPEC, "dataset": {"id": given["dataset"], "digest": "d" * 64, "splits": {}}, "files": {
        "backbone.onnx": {"key": None, "sha256": "a" * 64, "size_bytes": 1},
        "backbone.safetensors": {"key": None, "sha256": "c" * 64, "size_bytes": 1},
    }}  # fmt: skip
    old = {**own, "files": {"backbone.onnx": own["files"]["backbone.onnx"]}}
    with database.write() as session:
        of = factories.model(session, "tuned", num_versions=0)
        versions = [factories.version(session, of, place, spec=spec) for place, spec in ((1, own), (2, old))]
    wish = {"name": "mine", "model": "tuned", "version": 1}
    url = "/api/v1/backbones"
    frozen = problem(client.post(url, json={**wish, "model": "colours"}), 409, "backbone_unchanged")
    assert f"start from {factories.BACKBONE} itself" in frozen["detail"]
    problem(client.post(url, json={**wish, "version": 2}), 409, "weights_missing")
    problem(client.post(url, json={**wish, "version": 9}), 404, "not_found")
    problem(client.post(url, json={**wish, "architecture": "x"}), 422, "invalid_payload")
    problem(client.post(url, json={**wish, "name": "a/b"}), 422, "invalid_payload")
    problem(client.post(url, json={"name": "mine"}), 415, "unsupported_media_type")
    assert counts(database) == (0, 0)
    answer = client.post(url, json=wish)
    body = answer.json()
    assert (answer.status_code, answer.headers["Location"]) == (202, f"{url}/own/mine")
    assert (body["name"], body["architecture"], body["state"]) == ("user/mine", factories.BACKBONE, "checking")
    assert body["source"].items() >= {"model": "tuned", "version": 1, "dataset": given["dataset"]}.items()
    with database.read() as session:
        job = session.get_one(Job, body["job_id"])
        assert (job.kind, job.inputs["prefix"]) == ("backbone", versions[0].prefix)
    problem(client.post(url, json=wish), 409, "name_taken")
    # Its end must not take the version's files away.
    client.post(f"/api/v1/jobs/{body['job_id']}/cancel")
    assert client.get(f"{url}/own/mine").json()["state"] == "invalid"
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(UserBackbone)) == 1
