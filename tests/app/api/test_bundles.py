"""A version goes from one home to another; and what is no bundle, or a hostile one, leaves nothing behind."""

import json
from hashlib import sha256
from pathlib import Path

import pytest
import yaml
from sqlalchemy import func, select
from starlette.testclient import TestClient

from app.artifact import bundle
from app.db.models import IdempotencyKey, Model, ModelVersion
from app.db.waste import Waste
from app.errors import Conflict
from app.main import create_app
from app.services import imports, limits, publications, stored_bytes
from app.services.limits import Limits
from app.settings import Settings
from tests import factories
from tests.app import bundle_factories, onnx_factories
from tests.app.bundle_factories import read
from tests.checks import problem
from tests.factories import files_below
from tests.hostile import bundles as hostile
from tests.hostile.bundles import MARKUP

PICTURES = [factories.png((40 * number, 250 - 40 * number, 90), seed=number) for number in range(5)]


@pytest.fixture(scope="module")
def origin(sqlite_template, tmp_path_factory):
    """The home that a version comes from."""
    yield from running(sqlite_template, tmp_path_factory)


@pytest.fixture(scope="module")
def target(sqlite_template, tmp_path_factory):
    """A home that refuses everything that it is sent."""
    yield from running(sqlite_template, tmp_path_factory)


def running(sqlite_template, tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    (home / "graft.db").write_bytes(sqlite_template.read_bytes())
    with TestClient(create_app(Settings(home=home)), base_url="http://127.0.0.1") as client:
        yield client


def url(name="tiny", number=None, what="bundle"):
    return f"/api/v1/models/{name}/versions" + (f"/{number}/{what}" if number else "")


def publish(client, tmp_path, name="tiny", num=1, **fields):
    state = client.app.state.graft
    with state.database.write() as session:
        of = factories.model(session, name, 0)
        for number in range(1, num + 1):
            bundle_factories.publish(session, state.storage, tmp_path / name, of, number, **fields)
        of.last_version = num


@pytest.fixture(scope="module")
def content(origin, tmp_path_factory):
    """The bundle of one version."""
    publish(origin, tmp_path_factory.mktemp("made"), num=2)
    answer = origin.get(url(number=1))
    assert answer.headers["Content-Type"] == "application/zip"
    assert 'filename="tiny-1-bundle.zip"' in answer.headers["Content-Disposition"]
    return answer.content


@pytest.fixture(scope="module")
def files(content):
    return read(content)


def send(client, data, name="tiny", headers=None, **fields):
    return client.post(url(name), files={"file": ("b.zip", data)}, data=fields, headers=headers)


def home_of(client):
    return client.app.state.graft.settings.home_path


def kept(client):
    """Files, rows and processes."""
    state = client.app.state.graft
    with state.database.read() as session:
        rows = [
            session.scalar(select(func.count()).select_from(table))
            for table in (Model, ModelVersion, IdempotencyKey, Waste)
        ]
    paths = {path for path in files_below(home_of(client)) if "/graft.db" not in path}
    children = [task.read_text() for task in Path("/proc/self/task").glob("*/children")]
    return paths, rows, sorted("".join(children).split())


def predict(client, name, version):
    fields = [("file", (str(place), data)) for place, data in enumerate(PICTURES)]
    answer = client.post(f"/api/v1/models/{name}/predict", files=fields, params={"version": version})
    assert answer.status_code == 200, answer.text
    return [{item["label"]: item["score"] for item in row["scores"]} for row in answer.json()["predictions"]]


def same(found, wanted):
    for one, other in zip(found, wanted, strict=True):
        assert one == pytest.approx(other, abs=1e-4)


def test_an_import_counts_once_with_the_graph_that_it_brought(client, content, files):
    state = client.app.state.graft
    own = sum(len(data) for name, data in files.items() if name not in ("backbone.onnx", "spec.json"))
    with state.database.write() as session:
        # Room for the request, and not for it and what is made of it side by side.
        limits.put(session, "default", Limits(max_bytes=len(content) + 2000))
    key = {"Idempotency-Key": "once"}
    first = send(client, content, headers=key)
    assert first.status_code == 201
    with state.database.write() as session:
        expected = {"versions": own, "graphs": len(files["backbone.onnx"])}
        assert stored_bytes.of_rows(session)["default"] == expected
        limits.put(session, "default", Limits(max_bytes=1))
    problem(send(client, content), 429, "too_many_bytes")
    again = send(client, content, headers=key)
    assert (again.status_code, again.json()) == (201, first.json())
    problem(send(client, content + b"more", headers=key), 422, "idempotency_mismatch")
    assert len(list(state.storage.list("graphs"))) == 1
    assert client.delete("/api/v1/models/tiny").status_code == 204
    with state.database.read() as session:
        assert stored_bytes.total(session, "default") == 0
    # Nobody would count it until a collection.
    assert list(state.storage.list("graphs")) == []


def test_a_graph_that_was_brought_goes_with_the_last_version_on_it(client, content):
    state = client.app.state.graft
    for name in ("one", "one", "two"):
        assert send(client, content, name).status_code == 201
    for path in ("one/versions/1", "one"):
        assert client.delete(f"/api/v1/models/{path}").status_code == 204
        assert len(list(state.storage.list("graphs"))) == 1
    assert len(predict(client, "two", 1)) == len(PICTURES)
    assert client.delete("/api/v1/models/two").status_code == 204
    assert list(state.storage.list("graphs")) == []


def test_of_an_import_that_is_refused_at_its_end_no_graph_is_left(client, content, monkeypatch):
    state = client.app.state.graft

    def full(session, *_given, **_fields):
        assert len(list(state.storage.list("graphs"))) == 1
        raise Conflict("expected another moment; found this one")

    monkeypatch.setattr(publications, "admit", full)
    problem(send(client, content), 409, "invalid_state")
    assert list(state.storage.list("graphs")) == list(state.storage.list("bundles")) == []


def test_a_bundle_is_whole_and_the_same_each_time(origin, content, files):
    assert list(files) == [
        "spec.json",
        *(name for name in bundle.FILES if name not in (bundle.STATE, *bundle.SECOND.values())),
    ]
    assert origin.get(url(number=1)).content == content
    described = json.loads(files["spec.json"])
    assert described["files"]["backbone.onnx"]["key"] == "backbone.onnx"
    assert files["backbone.onnx"] == onnx_factories.backbone_bytes()
    problem(origin.get(url(number=9)), 404, "not_found")
    problem(origin.get(url("none", 1)), 404, "not_found")


def test_round_trip(origin, content, light_client):
    for number in (1, 2):
        answer = send(light_client, origin.get(url(number=number)).content, "moved")
        assert answer.status_code == 201, answer.text
        made = answer.json()
        assert answer.headers["Location"] == url("moved") + f"/{number}"
        assert (made["model"], made["version"], made["served_by_default"]) == ("moved", number, True)
        assert (made["metrics"]["test_accuracy"], made["metrics_from"]) == (0.75, "origin")
        assert made["checks"]["num_predictions"] == 6
        assert max(made["checks"]["head_max_abs"], made["checks"]["predictions_mean_abs"]) < 1e-3
        same(predict(origin, "tiny", number), predict(light_client, "moved", number))
        # The other side's own hand gives the same bytes.
        assert light_client.get(url("moved", number)).content == origin.get(url(number=number)).content
    found = light_client.get(url("moved") + "/2").json()
    assert found["job_id"] is None
    sent = origin.get(url(number=2)).content
    assert found["origin"] == {"how": "imported", "bundle_sha256": sha256(sent).hexdigest(), "size_bytes": len(sent)}
    # Two versions, one backbone.
    graphs = [path for path in files_below(home_of(light_client)) if path.endswith("/backbone.onnx")]
    assert len(graphs) == 1
    lineage = light_client.get(url("moved", 1, "lineage")).json()
    assert [(node["what"], node["present"]) for node in lineage["chain"]] == [
        ("version", True), ("dataset", False), ("backbone", False),
    ]  # fmt: skip
    assert "imported" in lineage["unknown"]


def test_a_network_of_its_own_travels_along(light_client, tmp_path):
    publish(light_client, tmp_path, "own", shared=False)
    made = send(light_client, light_client.get(url("own", 1)).content, "copy")
    assert made.status_code == 201, made.text
    same(predict(light_client, "own", 1), predict(light_client, "copy", 1))
    spec = light_client.get(url("copy") + "/1").json()["spec"]
    assert spec["files"]["backbone.onnx"]["key"] is None


def test_on_both_databases_an_import_is_sent_once(client, content):
    first = send(client, content, headers={"Idempotency-Key": "k"})
    assert first.status_code == 201, first.text
    again = send(client, content, headers={"Idempotency-Key": "k"})
    assert (again.status_code, again.json(), again.headers["Idempotent-Replayed"]) == (201, first.json(), "true")
    problem(send(client, content, "other", headers={"Idempotency-Key": "k"}), 422, "idempotency_mismatch")
    assert [row["version"] for row in client.get("/api/v1/models/tiny").json()["versions"]] == [1]
    assert client.delete("/api/v1/models/tiny").status_code == 204
    assert not [path for path in files_below(home_of(client)) if "/bundles/" in path]


def test_other_labels_must_be_allowed(light_client, tmp_path, content):
    publish(light_client, tmp_path, labels=("cat", "dog", "emu"))
    before = kept(light_client)
    assert "owl" in problem(send(light_client, content), 409, "label_change")["detail"]
    assert kept(light_client) == before
    assert send(light_client, content, allow_label_change="true").json()["version"] == 2


def test_a_claimed_backbone_does_not_take_the_place_of_a_proven_one(light_client, content, files):
    state = light_client.app.state.graft
    proven = bundle.shared_key(json.loads(files["spec.json"])["backbone"]["digest"])
    assert send(light_client, content).status_code == 201
    assert not list(state.storage.list(proven.rpartition("/")[0]))
    other = home_of(light_client) / "scratch" / "other.onnx"
    other.write_bytes(onnx_factories.backbone_bytes(seed=5))
    state.storage.put(proven, other)
    assert send(light_client, content, "second").status_code == 201
    assert state.storage.fetch(proven).read_bytes() == other.read_bytes()
    same(predict(light_client, "second", 1), predict(light_client, "tiny", 1))
    other.write_bytes(files["backbone.onnx"])
    state.storage.put(proven, other)
    third = send(light_client, content, "third").json()
    assert (
        light_client.get(url("third") + f"/{third['version']}").json()["spec"]["files"]["backbone.onnx"]["key"]
        == proven
    )


def test_labels_that_a_dataset_takes_travel(light_client, tmp_path):
    """Datasets take them byte for byte; JSON leaves what YAML forbids or folds as it is."""
    labels = (
        "a\tb",
        "cat\r",
        "a\x7fb",
        "two\u0085lines",
        "\u2028",
        "\ufffe\uffff",
        '\x1b"\\',
        "\U0001f600\u200d\U0001f525",
    )
    publish(light_client, tmp_path, "source", labels=labels)
    sent = light_client.get(url("source", 1)).content
    answer = send(light_client, sent, "moved")
    assert answer.status_code == 201, answer.text
    assert light_client.get(url("moved", 1)).content == sent
    same(predict(light_client, "source", 1), predict(light_client, "moved", 1))
    assert light_client.get(url("moved") + "/1").json()["spec"]["labels"] == [*labels]
    folder = read(light_client.get(url("moved", 1, "mlflow")).content)
    assert yaml.safe_load(folder["moved-1/MLmodel"])["metadata"]["graft"]["labels"] == [*labels]


def test_names_with_markup_are_text_everywhere(light_client, tmp_path):
    publish(light_client, tmp_path, "source", labels=(MARKUP, "b"))
    content = light_client.get(url("source", 1)).content
    assert send(light_client, content, "marked").status_code == 201
    for place in ("", "/files/report.json", "/files/README.md", "/files/spec.json", "/lineage"):
        answer = light_client.get(url("marked") + "/1" + place)
        assert answer.status_code == 200
        kind = answer.headers["content-type"]
        assert kind == "application/json" or answer.headers["content-disposition"].startswith("attachment")
    assert "html" not in light_client.get(url("marked", 1, "bundle")).headers["content-type"]


def test_no_more_than_a_few_at_once(target, content):
    for _ in range(imports.NUM_AT_ONCE):
        assert imports._places.acquire(blocking=False)
    try:
        answer = send(target, content)
        problem(answer, 503, "overloaded")
        assert answer.headers["Retry-After"] == str(imports.RETRY_SECONDS)
    finally:
        for _ in range(imports.NUM_AT_ONCE):
            imports._places.release()


def test_a_full_disk_is_said_and_leaves_nothing(target, content, fill_disk):
    before = kept(target)
    fill_disk()
    problem(send(target, content), 507, "insufficient_storage")
    assert kept(target) == before


def test_forms_that_are_none(target, content):
    problem(
        target.post(url(), content=content, headers={"Content-Type": "application/zip"}), 415, "unsupported_media_type"
    )
    problem(target.post(url(), data={"allow_label_change": "true"}, files={"other": content}), 400, "file_missing")
    problem(send(target, content, extra="1"), 422, "invalid_payload")
    problem(send(target, content, name="a b"), 422, "invalid_payload")


@pytest.mark.parametrize("name", [*hostile.OUTSIDE, *hostile.COSTLY, "a pickle", "a custom operator"])
def test_hostile_bundles_leave_nothing(target, files, name):
    """What only the child sees is told case by case in serving/test_admission.py; the way out is the same for all."""
    make, code, words = (hostile.OUTSIDE | hostile.COSTLY | hostile.INSIDE)[name]
    data = make(files)
    before = kept(target)
    assert words in problem(send(target, data), 400, code)["detail"]
    assert kept(target) == before
