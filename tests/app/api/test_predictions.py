"""The prediction route: each way to send images, and each way to send something else."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from app.artifact import preprocess
from app.main import create_app
from tests import factories
from tests.app import onnx_factories
from tests.checks import problem

URL = "/api/v1/models/tiny/predict"
LABELS = ["cat", "dog", "owl"]
PICTURES = [factories.png((40 * number, 250 - 40 * number, 90), seed=number) for number in range(5)]


def prepare(client, tmp_path, num_versions=1):
    state = client.app.state.graft
    with state.database.write() as session:
        of = factories.model(session, "tiny", 0)
        for number in range(1, num_versions + 1):
            factories.published(session, state.storage, tmp_path / "made", of, number)


@pytest.fixture
def served(light_client, tmp_path):
    """The application with one published model of two versions."""
    prepare(light_client, tmp_path, 2)
    return light_client


def reference(pictures, version):
    """What the version says, in numpy."""
    shape = onnx_factories.preprocess()
    pixels = np.stack([preprocess.load(data, shape) for data in pictures])
    weight_CD, bias_C = factories.head_weights(version, len(LABELS))
    return onnx_factories.softmax(onnx_factories.backbone_reference(pixels) @ weight_CD.T + bias_C)


def check(answer, pictures, version):
    body = answer.json()
    assert answer.status_code == 200, body
    assert answer.headers["X-Graft-Version"] == str(version)
    assert (body["model"], body["version"], body["task"]) == ("tiny", version, "classification")
    assert len(body["predictions"]) == len(pictures)
    for row, found in zip(reference(pictures, version), body["predictions"], strict=True):
        order = np.argsort(-row)
        assert [score["label"] for score in found["scores"]] == [LABELS[place] for place in order]
        np.testing.assert_allclose([score["score"] for score in found["scores"]], row[order], atol=1e-5)
        assert found["label"] == LABELS[order[0]]
        assert found["score"] == found["scores"][0]["score"]


def multipart(pictures):
    return {"files": [("file", (f"{number}.png", data)) for number, data in enumerate(pictures)]}


def test_multipart_keeps_the_order_of_the_upload(served):
    check(served.post(URL, **multipart(PICTURES)), PICTURES, 2)
    check(served.post(URL, **multipart(PICTURES[::-1])), PICTURES[::-1], 2)


@pytest.mark.parametrize("kind", ["image/png", "image/jpeg", "application/octet-stream"])
def test_raw_body_is_sniffed(served, kind):
    check(served.post(URL, content=PICTURES[0], headers={"Content-Type": kind}), PICTURES[:1], 2)


def test_json_in_base64(served):
    body = {"images": [{"b64": base64.b64encode(data).decode()} for data in PICTURES]}
    check(served.post(URL, json=body), PICTURES, 2)


def test_version_alias_and_default(served):
    picture = PICTURES[:1]
    check(served.post(URL, params={"version": 1}, **multipart(picture)), picture, 1)
    served.put("/api/v1/models/tiny/aliases/production", json={"version": 1})
    served.put("/api/v1/models/tiny/aliases/canary", json={"version": 2})
    check(served.post(URL, **multipart(picture)), picture, 1)
    check(served.post(URL, params={"alias": "canary"}, **multipart(picture)), picture, 2)
    check(served.post(URL, params={"version": 2}, **multipart(picture)), picture, 2)
    served.delete("/api/v1/models/tiny/aliases/production")
    check(served.post(URL, **multipart(picture)), picture, 2)
    both = served.post(URL, params={"version": 1, "alias": "canary"}, **multipart(picture))
    problem(both, 409, "ambiguous_version")
    problem(served.post(URL, params={"alias": "nothing"}, **multipart(picture)), 404, "not_found")
    problem(served.post(URL, params={"version": 9}, **multipart(picture)), 404, "not_found")
    problem(served.post("/api/v1/models/nothing/predict", **multipart(picture)), 404, "not_found")


def test_top_k_and_threshold(served):
    found = served.post(URL, params={"top_k": 1}, **multipart(PICTURES)).json()["predictions"]
    assert [len(item["scores"]) for item in found] == [1] * 5
    found = served.post(URL, params={"threshold": 1}, **multipart(PICTURES[:1])).json()["predictions"][0]
    assert found["label"] is None
    assert len(found["scores"]) == 3
    for query in ({"top_k": 0}, {"top_k": 101}, {"threshold": 2}, {"version": 0}):
        problem(served.post(URL, params=query, **multipart(PICTURES[:1])), 422, "invalid_payload")


REFUSED = {
    "text file": ({"files": {"file": ("a.txt", b"hello, world")}}, 400, "image_unreadable"),
    "raw text": ({"content": b"hello", "headers": {"Content-Type": "image/png"}}, 400, "image_unreadable"),
    "empty image": ({"files": {"file": ("a.png", b"")}}, 400, "image_unreadable"),
    "cut off": ({"files": {"file": ("a.png", PICTURES[0][:200])}}, 400, "image_truncated"),
    "another field": ({"files": {"photo": ("a.png", PICTURES[0])}}, 400, "file_missing"),
    "no content type": ({"content": PICTURES[0]}, 415, "unsupported_media_type"),
    "other content type": (
        {"content": PICTURES[0], "headers": {"Content-Type": "text/plain"}}, 415, "unsupported_media_type"
    ),
    "form without boundary": (
        {"content": b"a", "headers": {"Content-Type": "multipart/form-data"}}, 400, "bad_request"
    ),
    "no JSON": ({"content": b"{", "headers": {"Content-Type": "application/json"}}, 422, "invalid_payload"),
    "JSON of another shape": ({"json": {"image": "a"}}, 422, "invalid_payload"),
    "no images in JSON": ({"json": {"images": []}}, 422, "invalid_payload"),
    "no base64": ({"json": {"images": [{"b64": "***"}]}}, 422, "invalid_payload"),
    "base64 of text": ({"json": {"images": [{"b64": "aGVsbG8="}]}}, 400, "image_unreadable"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused(served, home, case):
    arguments, status, code = REFUSED[case]
    problem(served.post(URL, **arguments), status, code)
    assert list((home / "scratch").glob("*")) == []


def test_bad_image_among_good_ones_is_named(served):
    files = [("file", ("a.png", PICTURES[0])), ("file", ("b.txt", b"hello")), ("file", ("c.png", PICTURES[1]))]
    found = problem(served.post(URL, files=files), 400, "image_unreadable")
    assert found["index"] == 1


def test_what_is_no_base64_is_pointed_at(served):
    body = {"images": [{"b64": base64.b64encode(PICTURES[0]).decode()}, {"b64": "data:image/png;base64,aaaa"}]}
    found = problem(served.post(URL, json=body), 422, "invalid_payload")
    assert [error["pointer"] for error in found["errors"]] == ["/body/images/1/b64"]


def test_limits(light, tmp_path):
    changed = light.model_copy(
        update={"max_predict_images": 2, "max_predict_bytes": 4000, "max_predict_pixels": 10_000}
    )
    with TestClient(create_app(changed), base_url="http://127.0.0.1") as client:
        prepare(client, tmp_path)
        small = io.BytesIO()
        Image.new("RGB", (4, 4)).save(small, "PNG")
        one = ("file", ("a.png", small.getvalue()))
        assert client.post(URL, files=[one, one]).status_code == 200
        problem(client.post(URL, files=[one, one, one]), 413, "too_many_images")
        wide = io.BytesIO()
        Image.new("1", (101, 100)).save(wide, "PNG")
        answer = client.post(URL, files=[one, ("file", ("b.png", wide.getvalue()))])
        assert problem(answer, 400, "image_too_large")["index"] == 1
        big = {"content": bytes(4001), "headers": {"Content-Type": "image/png"}}
        problem(client.post(URL, **big), 413, "body_too_large")
        problem(client.post(URL, files={"file": ("a.png", bytes(4001))}), 413, "body_too_large")


def test_ten_models_on_one_backbone_load_it_once(light_client, tmp_path):
    prepare(light_client, tmp_path, 10)
    for version in range(1, 11):
        check(light_client.post(URL, params={"version": version}, **multipart(PICTURES[:1])), PICTURES[:1], version)
    assert light_client.app.state.graft.engine.pool.stats().num_entries == 1 + 10
    assert "graft_pool_graphs 11.0" in light_client.get("/metrics").text


def test_each_role_has_its_routes(light, tmp_path):
    with TestClient(create_app(light, ("serve",)), base_url="http://127.0.0.1") as client:
        prepare(client, tmp_path)
        check(client.post(URL, **multipart(PICTURES[:1])), PICTURES[:1], 1)
        problem(client.get("/api/v1/jobs"), 404, "not_found")
        assert client.get("/livez").text == "ok"
    with TestClient(create_app(light, ("api",)), base_url="http://127.0.0.1") as client:
        assert client.get("/api/v1/jobs").status_code == 200
        problem(client.post(URL, **multipart(PICTURES[:1])), 404, "not_found")


def test_what_the_server_spent_is_in_the_header(served):
    answer = served.post(URL, **multipart(PICTURES))
    stages = dict(stage.split(";dur=") for stage in answer.headers["Server-Timing"].split(", "))
    assert list(stages) == ["decode", "queue", "compute"]
    assert all(float(milliseconds) >= 0 for milliseconds in stages.values())


def test_a_timeout_that_has_passed_is_an_error_document(served):
    document = problem(served.post(URL, params={"timeout": 1e-9}, **multipart(PICTURES)), 504, "deadline_exceeded")
    assert "allow more time" in document["detail"]
    problem(served.post(URL, params={"timeout": 0}, **multipart(PICTURES)), 422, "invalid_payload")


def check_every_door(client):
    """Each route that predicts refuses before it has read a byte; a new one is found here by its name."""

    def unread():
        yield b"x"
        pytest.fail("the body was read")

    paths = re.findall(r'"(/[^"]*/(?:predict|embed|infer))"', client.get("/openapi.json").text)
    assert len(paths) == 4
    for path in paths:
        answer = client.post(path.replace("{name}", "tiny").replace("{version}", "1"), content=unread())
        assert answer.status_code == 503
        assert answer.headers["Retry-After"] == "1"
        assert ("error" if path.startswith("/v2") else "code") in answer.json()


def test_without_room_a_request_is_told_when_to_come_again(light, tmp_path):
    with TestClient(
        create_app(light.model_copy(update={"max_queued_images": 1})), base_url="http://127.0.0.1"
    ) as client:
        prepare(client, tmp_path)
        engine = client.app.state.graft.engine
        row = client.post(URL, **multipart(PICTURES[:1]))
        assert row.status_code == 200
        with engine._changed:
            engine.room.enter("another", 1, "default")
        answer = client.post(URL, **multipart(PICTURES[:1]))
        assert problem(answer, 503, "overloaded")["retry_after_seconds"] == 1
        assert answer.headers["Retry-After"] == "1"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["X-Request-Id"]
        check_every_door(client)
        assert client.get("/api/v1/models/tiny").status_code == 200
        with engine._changed:
            engine.room.leave("another", 1, "default")
        assert client.post(URL, **multipart(PICTURES)).status_code == 200


def test_what_was_served_is_in_the_metrics(served):
    for _ in range(3):
        assert served.post(URL, **multipart(PICTURES)).status_code == 200
    assert served.post(URL, params={"version": 1}, files={"file": ("a.png", b"text")}).status_code == 400
    text = served.get("/metrics").text
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = {key: value for key, value in sample.labels.items() if key != "hostname"}
            found[sample.name, *sorted(labels.values())] = sample.value
    assert found["graft_predict_requests_total", "2", "success", "tiny"] == 3
    assert found["graft_predict_requests_total", "1", "failure", "tiny"] == 1
    assert found["graft_predict_images_total", "2", "tiny"] == found["nv_inference_count", "2", "tiny"] == 15
    assert (
        found["graft_predict_seconds_count", "2", "tiny"]
        == found["graft_predict_seconds_bucket", "+Inf", "2", "tiny"]
        == 3
    )
    assert found["nv_inference_request_success", "2", "tiny"] == found["ts_inference_requests_total", "2", "tiny"] == 3
    assert found["nv_inference_request_failure", "1", "tiny"] == 1
    # Dashboards of Triton add the stages up, those of KServe take quantiles of each.
    stages = ("queue", "compute_input", "compute_infer")
    spent = sum(found[f"nv_inference_{stage}_duration_us", "2", "tiny"] for stage in stages)
    assert 0 < spent <= found["nv_inference_request_duration_us", "2", "tiny"] + len(stages)
    assert found["nv_inference_compute_input_duration_us", "2", "tiny"] > 0
    assert found["nv_inference_compute_infer_duration_us", "2", "tiny"] > 0
    assert found["nv_inference_compute_output_duration_us", "2", "tiny"] == 0
    for of_torchserve, of_triton in (("inference_latency", "request"), ("queue_latency", "queue")):
        name = f"nv_inference_{of_triton}_duration_us"
        assert found[f"ts_{of_torchserve}_microseconds", "2", "tiny"] == found[name, "2", "tiny"]
    for stage in ("preprocess", "predict", "postprocess"):
        name = f"request_{stage}_seconds"
        assert found[f"{name}_count", "tiny"] == found[f"{name}_bucket", "+Inf", "tiny"] == 3
        assert 0 <= found[f"{name}_bucket", "0.005", "tiny"] <= found[f"{name}_bucket", "10.0", "tiny"] <= 3
    assert found["request_predict_seconds_sum", "tiny"] > 0
    assert found["nv_inference_pending_request_count", "2", "tiny"] == found["graft_predict_waiting_images",] == 0
