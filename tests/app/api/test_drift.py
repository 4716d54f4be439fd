"""The drift of a version, as its route and Prometheus tell it."""

import io
from datetime import datetime, timedelta
from functools import cache

import numpy as np
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from app.artifact import bundle, preprocess, reference
from app.db.base import now
from app.main import create_app
from app.services import models
from tests import factories
from tests.app import onnx_factories
from tests.app.api.test_predictions import LABELS, URL, multipart
from tests.checks import problem
from tests.factories import files_below

DRIFT = "/api/v1/models/tiny/drift"


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def pictures(number, seed, brightness=1.0):
    """Flat areas of one random colour each, with some noise."""
    rng = np.random.default_rng(seed)
    colours = rng.integers(0, 256, (number, 1, 1, 3)) + rng.normal(size=(number, 24, 24, 3)) * 20
    return [png(np.clip(one * brightness, 0, 255).astype(np.uint8)) for one in colours]


@cache
def packed(version):
    """The reference of 200 pictures, as the version sees them."""
    shape = onnx_factories.preprocess()
    pixels = np.stack([preprocess.load(data, shape) for data in pictures(200, 1)])
    features = onnx_factories.backbone_reference(pixels)
    weight_CD, bias_C = factories.head_weights(version, len(LABELS))
    return reference.pack(reference.make(features, onnx_factories.softmax(features @ weight_CD.T + bias_C)))


@pytest.fixture
def served(light_client, tmp_path):
    """Version 1 with a reference, 2 without one."""
    state = light_client.app.state.graft
    with state.database.write() as session:
        of = factories.model(session, "tiny", 0)
        parts = {"reference": packed(1)}
        factories.published(session, state.storage, tmp_path / "made", of, 1, parts=parts)
        factories.published(session, state.storage, tmp_path / "made", of, 2)
    return light_client


def ask(client, images, **query):
    assert client.post(URL, params={"version": 1, **query}, **multipart(images)).status_code == 200


def gauges(client):
    return {
        (sample.name, sample.labels["version"], sample.labels.get("of", "")): sample.value
        for family in text_string_to_metric_families(client.get("/metrics").text)
        for sample in family.samples
        if sample.name.startswith("graft_drift")
    }


def test_alike_pictures_are_stable_and_darker_ones_are_not(served):
    ask(served, pictures(20, 2))
    few = served.get(DRIFT, params={"version": 1}).json()
    assert (few["verdict"], few["num_images"], few["num_sampled"], few["num_reference"]) == ("not_enough", 20, 20, 200)
    assert few["distances"] == {"scores": None, "labels": None, "shift": None, "spread": None}
    assert "30 more are needed" in few["reasons"][0]
    ask(served, pictures(100, 3))
    for window in ("day", "week", "start"):
        found = served.get(DRIFT, params={"version": 1, "window": window}).json()
        assert (found["verdict"], found["num_images"], found["window"]) == ("stable", 120, window)
    assert found["is_whole"]
    assert timedelta(0) <= now() - datetime.fromisoformat(found["since"]) < timedelta(minutes=15)
    assert gauges(served)["graft_drift_detected", "1", ""] == 0
    ask(served, pictures(200, 4, brightness=0.4))
    found = served.get(DRIFT, params={"version": 1}).json()
    assert (found["verdict"], found["model"], found["version"]) == ("drift", "tiny", 1)
    assert found["distances"]["shift"]["drifted"]
    assert any(reason.startswith("features: their mean lies") for reason in found["reasons"])
    told = gauges(served)
    assert told["graft_drift_detected", "1", ""] == 1
    assert told["graft_drift_images", "1", ""] == 320
    assert told["graft_drift_distance", "1", "shift"] == pytest.approx(found["distances"]["shift"]["excess"])


def test_every_door_is_observed(served):
    picture = pictures(1, 5)
    ask(served, picture)
    served.post("/api/v1/models/tiny/embed", params={"version": 1}, **multipart(picture))
    lines = served.post(URL, params={"version": 1}, headers={"Accept": "application/x-ndjson"}, **multipart(picture))
    assert lines.status_code == 200
    raw = {"Inference-Header-Content-Length": "0", "Content-Type": "application/octet-stream"}
    assert served.post("/v2/models/tiny/versions/1/infer", content=picture[0], headers=raw).status_code == 200
    assert served.get(DRIFT, params={"version": 1}).json()["num_images"] == 4


def test_a_version_without_a_reference_says_so(served):
    ask(served, pictures(60, 6), version=2)
    found = served.get(DRIFT).json()
    assert (found["version"], found["verdict"], found["num_images"]) == (2, "no_reference", 60)
    assert "published without a reference" in found["reasons"][0]
    assert found["num_reference"] is None
    assert gauges(served) == {("graft_drift_images", "2", ""): 60}


def test_a_version_with_an_added_class_has_nothing_to_be_held_against(served, tmp_path):
    state = served.app.state.graft
    added = {"label": "owl", "model": "tiny", "version": 1, "num_images": 3, "how": "centroid"}
    with state.database.write() as session:
        of = models.get(session, "default", "tiny")
        described, parts = {"added": added}, {"reference": packed(1)}
        factories.published(session, state.storage, tmp_path, of, 3, described=described, parts=parts)
    found = served.get(DRIFT, params={"version": 3}).json()
    assert found["verdict"] == "no_reference"
    assert "class 'owl' was added" in found["reasons"][0]


def stored_reference(served):
    state = served.app.state.graft
    with state.database.read() as session:
        prefix = models.version(session, "default", "tiny", 1).prefix
    return state.storage.fetch(f"{prefix}/{bundle.REFERENCE}")


@pytest.mark.parametrize("harm", [lambda path: path.write_bytes(b"no arrays"), lambda path: path.unlink()])
def test_a_damaged_reference_stops_neither_answers_nor_metrics(served, harm):
    path = stored_reference(served)
    whole = path.read_bytes()
    harm(path)
    ask(served, pictures(60, 7))
    found = served.get(DRIFT, params={"version": 1}).json()
    assert found["verdict"] == "no_reference"
    assert "damaged" in found["reasons"][0]
    assert gauges(served) == {("graft_drift_images", "1", ""): 60}
    path.write_bytes(whole)
    assert served.get(DRIFT, params={"version": 1}).json()["verdict"] != "no_reference"


def test_a_reference_that_cannot_be_read_now_is_left_out_of_the_metrics(served):
    path = stored_reference(served)
    data = path.read_bytes()
    path.unlink()
    # A file whose reading fails.
    path.symlink_to("/proc/self/mem")
    ask(served, pictures(60, 7))
    assert served.get("/metrics").status_code == 200
    assert gauges(served) == {}
    path.unlink()
    path.write_bytes(data)
    assert gauges(served)["graft_drift_images", "1", ""] == 60


def test_domains_are_apart_and_held_against_the_same_reference(served, tmp_path):
    state = served.app.state.graft
    number = onnx_factories.NUM_FEATURES
    with state.database.write() as session:
        shift = factories.fitted(session, state.storage, tmp_path, np.ones(number), np.full(number, 3.0))
        shift.backbone_digest = models.version(session, "default", "tiny", 1).spec["backbone"]["digest"]
        name = shift.id
    assert served.put("/api/v1/models/tiny/domains/camera", json={"alignment": name}).status_code == 200
    ask(served, pictures(60, 8), domain="camera")
    found = served.get(DRIFT, params={"version": 1, "domain": "camera"}).json()
    assert (found["verdict"], found["alignment"], found["num_images"]) == ("drift", name, 60)
    assert served.get(DRIFT, params={"version": 1}).json()["num_images"] == 0


def test_what_is_wrong_is_said(served):
    problem(served.get("/api/v1/models/none/drift"), 404, "not_found")
    problem(served.get(DRIFT, params={"version": 9}), 404, "not_found")
    problem(served.get(DRIFT, params={"version": 1, "alias": "production"}), 409, "ambiguous_version")
    problem(served.get(DRIFT, params={"version": 1, "domain": "none"}), 404, "unknown_domain")
    problem(served.get(DRIFT, params={"window": "month"}), 422, "invalid_payload")


def test_nothing_is_looked_at_where_the_share_is_none(light, tmp_path):
    settings = light.model_copy(update={"observed_share": 0.0})
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as client:
        state = client.app.state.graft
        with state.database.write() as session:
            of = factories.model(session, "tiny", 0)
            factories.published(session, state.storage, tmp_path, of, 1, parts={"reference": packed(1)})
        ask(client, pictures(60, 9))
        found = client.get(DRIFT).json()
        assert (found["verdict"], found["num_images"], found["num_sampled"]) == ("not_enough", 60, 0)


@pytest.fixture
def service(light, tmp_path):
    """A service with a home of its own, over one database and one storage with version 1 of a model in it."""
    shared = {"database_url": light.resolved_database_url, "storage_url": f"file://{tmp_path}/shared"}

    def made(name):
        settings = light.model_validate({**light.model_dump(), **shared, "home": tmp_path / name})
        return TestClient(create_app(settings), base_url="http://127.0.0.1")

    with made("operator") as client:
        state = client.app.state.graft
        with state.database.write() as session:
            of = factories.model(session, "tiny", 0)
            factories.published(session, state.storage, tmp_path / "made", of, 1, parts={"reference": packed(1)})
    return made


def store(client):
    client.app.state.graft.observation.saver.save()


def number(client, window="day"):
    found = client.get(DRIFT, params={"window": window}).json()
    return found["num_images"], found["is_whole"]


def test_services_see_what_the_others_have_answered_and_those_before_them(service, tmp_path):
    with service("other") as other:
        with service("one") as one:
            ask(one, pictures(60, 10))
            ask(other, pictures(30, 11))
            assert (number(one), number(other)) == ((60, True), (30, True))
            store(one)
            store(one)
            assert (number(one), number(other)) == ((60, True), (90, True))
            ask(one, pictures(5, 12))
            store(other)
            assert (number(one), number(other)) == ((95, True), (90, True))
            # A scrape tells of the service that is scraped.
            assert gauges(one)["graft_drift_images", "1", ""] == 65
        with service("one") as one:
            for client in (one, other):
                assert number(client) == number(client, "start") == (95, True)
            assert one.get(DRIFT).json()["verdict"] == "stable"
            assert gauges(one) == {}
    assert files_below(tmp_path / "one" / "scratch", tmp_path / "other" / "scratch") == []


def test_what_a_service_holds_is_told_while_storage_is_away(service, tmp_path):
    observed, away = tmp_path / "shared" / "observed", tmp_path / "away"
    with service("one") as one, service("other") as other:
        ask(one, pictures(60, 13))
        ask(other, pictures(30, 14))
        for client in (one, other):
            # The reference is read.
            number(client)
            store(client)
        observed.rename(away)
        observed.symlink_to(observed)
        ask(one, pictures(10, 15))
        store(one)
        assert number(one) == (70, False)
        assert one.get("/metrics").status_code == 200
        observed.unlink()
        away.rename(observed)
        store(one)
        assert number(other) == (100, True)


@pytest.mark.parametrize("what", ["/api/v1/models/tiny", "/api/v1/models/tiny/versions/1"])
def test_nothing_stays_of_what_is_deleted(service, tmp_path, what):
    observed = tmp_path / "shared" / "observed"
    with service("one") as one, service("other") as other:
        for client in (one, other):
            ask(client, pictures(3, 16))
            store(client)
        assert len(files_below(observed)) == 2
        ask(other, pictures(3, 17))
        assert one.delete(what).status_code == 204
        assert files_below(observed) == []
    assert files_below(observed) == []
