"""The Open Inference Protocol over HTTP: each way to ask, each way to ask wrongly."""

import gzip
import json
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import numpy as np
import pytest
from starlette.testclient import TestClient

from app.artifact import preprocess, sample
from app.main import create_app
from app.serving.sessions import NUM_LOADERS
from tests import factories
from tests.app import onnx_factories, sample_factories
from tests.app.api.oip.requests import BASE64, LENGTH, SIDE, URL, binary, elements, encoded, images
from tests.checks import inference_error, problem
from tests.conftest import wait_until
from tests.inference import LABELS, NAME, PICTURES, features, pixels, probabilities, publish


def tensors(answer):
    """Outputs by name, read from JSON and from what follows it."""
    assert answer.status_code == 200, answer.text
    body, length = answer.content, answer.headers.get(LENGTH)
    document = json.loads(body[: int(length)] if length else body)
    rest = body[int(length) :] if length else b""
    found = {}
    for output in document["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        if size is None:
            found[output["name"]] = np.array(output["data"], np.float32).reshape(output["shape"])
        else:
            found[output["name"]] = np.frombuffer(rest[:size], "<f4").reshape(output["shape"])
            rest = rest[size:]
    assert rest == b""
    return found


def agrees(answer, version=2):
    np.testing.assert_allclose(tensors(answer)["probabilities"], probabilities(version), atol=1e-5)


def test_metadata(served):
    assert served.get("/v2").json() == {
        "name": "graft",
        "version": "0.1.0",
        "extensions": [
            "binary_tensor_data", "classification", "model_configuration", "model_repository", "parameters",
            "statistics",
        ],
    }  # fmt: skip
    assert served.get("/v2/health/live").json() == {"live": True}
    assert served.get("/v2/health/ready").json() == {"ready": True}
    assert served.get("/v2/models").json() == {"models": [NAME]}
    expected = {
        "name": NAME,
        "versions": ["1", "2"],
        "platform": "onnx_onnxv1",
        "inputs": [
            {"name": "encoded", "datatype": "BYTES", "shape": [-1]},
            {"name": "images", "datatype": "UINT8", "shape": [-1, SIDE, SIDE, 3]},
        ],
        "outputs": [
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, 3]},
            {"name": "features", "datatype": "FP32", "shape": [-1, onnx_factories.NUM_FEATURES]},
        ],
    }
    for path in ("", "/versions/1"):
        assert served.get(f"/v2/models/{NAME}{path}").json() == expected
        assert served.get(f"/v2/models/{NAME}{path}/ready").json() == {"name": NAME, "ready": True}
        config = served.get(f"/v2/models/{NAME}{path}/config").json()
        assert (config["name"], config["max_batch_size"], config["backend"]) == (NAME, 0, "onnxruntime")
        assert json.loads(config["parameters"]["labels"]["string_value"]) == LABELS
        assert [(item["name"], item["data_type"]) for item in config["input"]] == [
            ("encoded", "TYPE_STRING"), ("images", "TYPE_UINT8")
        ]  # fmt: skip


def test_json(served):
    answer = served.post(URL, json={"id": "a1", "inputs": [encoded()]})
    agrees(answer)
    document = answer.json()
    assert (document["model_name"], document["model_version"], document["id"]) == (NAME, "2", "a1")
    assert [output["name"] for output in document["outputs"]] == ["probabilities"]
    agrees(served.post(URL, json={"inputs": [encoded(parameters={"content_type": "base64"})]}))
    agrees(served.post(URL, json={"inputs": [images()]}))
    agrees(served.post(URL, json={"inputs": [images(data=pixels().ravel().tolist())]}))
    agrees(served.post(f"/v2/models/{NAME}/versions/1/infer", json={"inputs": [encoded()]}), 1)
    # Clients that write every field of their classes send null for what is not there.
    nulls = {"id": None, "parameters": None, "outputs": None, "inputs": [encoded(parameters=None)]}
    agrees(served.post(URL, json=nulls))


def test_outputs_come_in_the_order_asked_for(served):
    asked = {"inputs": [encoded()], "outputs": [{"name": "features"}, {"name": "probabilities"}]}
    answer = served.post(URL, json=asked)
    assert [output["name"] for output in answer.json()["outputs"]] == ["features", "probabilities"]
    np.testing.assert_allclose(tensors(answer)["features"], features(), atol=1e-5)
    agrees(answer)


def test_binary(served):
    raw = elements(*PICTURES)
    document = {"inputs": [encoded(data=None, parameters={"binary_data_size": len(raw)})]}
    del document["inputs"][0]["data"]
    answer = served.post(URL, **binary(document, raw))
    agrees(answer)
    assert answer.headers["content-type"] == "application/json"
    document["parameters"] = {"binary_data_output": True}
    answer = served.post(URL, **binary(document, raw))
    agrees(answer)
    assert answer.headers["content-type"] == "application/octet-stream"
    # What an output says of itself goes before what the request says of all.
    document["outputs"] = [{"name": "features", "parameters": {"binary_data": False}}, {"name": "probabilities"}]
    answer = served.post(URL, **binary(document, raw))
    agrees(answer)
    assert len(answer.content) - int(answer.headers[LENGTH]) == 4 * probabilities(2).size
    size = pixels().nbytes
    tensor = {"name": "images", "datatype": "UINT8", "shape": list(pixels().shape)}
    answer = served.post(
        URL, **binary({"inputs": [{**tensor, "parameters": {"binary_data_size": size}}]}, pixels().tobytes())
    )
    agrees(answer)


def test_one_image_as_the_whole_body(served):
    answer = served.post(URL, content=PICTURES[0], headers={LENGTH: "0"})
    assert int(answer.headers[LENGTH]) < len(answer.content)
    np.testing.assert_allclose(tensors(answer)["probabilities"], probabilities(2)[:1], atol=1e-5)


@pytest.mark.parametrize(("asked", "given"), [(1, 1), (2, 2), (100, 3)])
def test_classification(served, asked, given):
    output = {"name": "probabilities", "parameters": {"classification": asked}}
    (found,) = served.post(URL, json={"inputs": [encoded()], "outputs": [output]}).json()["outputs"]
    assert (found["datatype"], found["shape"]) == ("BYTES", [len(PICTURES), given])
    rows = [found["data"][start : start + given] for start in range(0, len(found["data"]), given)]
    for row, texts in zip(probabilities(2), rows, strict=True):
        order = np.argsort(-row)[:given]
        values, places, labels = zip(*(text.split(":") for text in texts), strict=True)
        np.testing.assert_allclose([float(value) for value in values], row[order], atol=1e-5)
        assert [int(place) for place in places] == list(order)
        assert list(labels) == [LABELS[place] for place in order]


def test_classification_of_features_has_no_labels(served):
    output = {"name": "features", "parameters": {"classification": 1, "binary_data": True}}
    answer = served.post(URL, json={"inputs": [encoded()], "outputs": [output]})
    raw = answer.content[int(answer.headers[LENGTH]) :]
    (length,) = struct.unpack_from("<I", raw)
    assert raw[4 : 4 + length].count(b":") == 1


@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_compression(served, encoding, pack):
    asked = {"inputs": [encoded()], "outputs": [{"name": "probabilities"}, {"name": "features"}]}
    body = pack(json.dumps(asked).encode())
    headers = {"Content-Encoding": encoding, "Accept-Encoding": encoding}
    plain = served.post(URL, content=body, headers=headers)
    agrees(plain)
    assert "Content-Encoding" not in plain.headers
    many = {"inputs": [encoded(BASE64 * 8)], "outputs": [{"name": "features"}]}
    answer = served.post(URL, json=many, headers={"Accept-Encoding": f"br, {encoding};q=0.5"})
    assert answer.headers["Content-Encoding"] == encoding
    np.testing.assert_allclose(tensors(answer)["features"], np.tile(features(), (8, 1)), atol=1e-5)
    refused = served.post(URL, json=many, headers={"Accept-Encoding": f"{encoding};q=0"})
    assert "Content-Encoding" not in refused.headers


def test_a_bomb_is_not_inflated(light, tmp_path):
    small = light.model_copy(update={"max_predict_bytes": 10_000})
    with TestClient(create_app(small), base_url="http://127.0.0.1") as client:
        publish(client.app.state.graft, tmp_path / "made")
        bomb = gzip.compress(bytes(5_000_000))
        assert len(bomb) < 10_000
        answer = client.post(URL, content=bomb, headers={"Content-Encoding": "gzip"})
        assert "at most 10000 bytes" in inference_error(answer, 400)
        assert "at most 10000 bytes" in inference_error(client.post(URL, content=bytes(10_001)), 400)


def test_every_path_below_has_the_same_error_shape(served):
    assert "nothing" in inference_error(served.get("/v2/models/nothing"), 404)
    assert "nothing" in inference_error(served.post("/v2/models/nothing/infer", json={"inputs": [encoded()]}), 404)
    assert "nothing" in inference_error(served.post("/v2/repository/models/nothing/load"), 404)
    inference_error(served.get(f"/v2/models/{NAME}/versions/9"), 404)
    inference_error(served.get(f"/v2/models/{NAME}/versions/one"), 400)
    inference_error(served.get("/v2/nothing"), 404)
    refused = served.get(URL)
    inference_error(refused, 405)
    assert refused.headers["Allow"] == "POST"
    inference_error(served.get("/v2", headers={"Host": "example.org"}), 421)
    inference_error(served.post(URL, headers={"Origin": "http://example.org"}), 403)
    inference_error(served.post("/v2/repository/index", content=b"[]"), 400)
    inference_error(served.post("/v2/repository/index", content=bytes(2**24 + 1)), 400)
    inference_error(served.post(f"/v2/repository/models/{NAME}/load", json={"parameters": {"config": "{}"}}), 501)


def test_without_room_a_request_is_told_when_to_come_again(served):
    engine = served.app.state.graft.engine
    with engine._changed:
        engine.room.enter("another", 2000, "default")
    answer = served.post(URL, json={"inputs": [encoded()]})
    inference_error(answer, 503)
    assert int(answer.headers["Retry-After"]) >= 1
    with engine._changed:
        engine.room.leave("another", 2000, "default")


def test_readiness_says_what_is_missing(served, home):
    (home / "storage").rename(home / "gone")
    (home / "storage").write_text("in the way")
    answer = served.get("/v2/health/ready")
    assert "storage: " in inference_error(answer, 503)
    assert answer.headers["Retry-After"]


def test_statistics(served):
    def stats(path=f"/{NAME}/versions/2"):
        return served.get(f"/v2/models{path}/stats").json()["model_stats"]

    zero = {"count": 0, "ns": 0}
    (before,) = stats()
    assert before["inference_stats"] == dict.fromkeys(before["inference_stats"], zero)
    served.post(URL, json={"inputs": [encoded()]})
    served.post(URL, json={"inputs": [encoded(BASE64[:1])]})
    served.post(f"/api/v1/models/{NAME}/predict", files={"file": PICTURES[0]})
    inference_error(served.post(URL, json={"inputs": [encoded(["aGVsbG8="])]}), 400)
    (found,) = stats()
    assert (found["name"], found["version"], found["inference_count"]) == (NAME, "2", len(PICTURES) + 2)
    assert 3 <= found["execution_count"] <= len(PICTURES) + 2
    assert found["last_inference"] > 1_500_000_000_000
    counts = {key: value["count"] for key, value in found["inference_stats"].items()}
    computed = dict.fromkeys(("success", "queue", "compute_input", "compute_infer"), 3)
    assert counts == {**computed, "fail": 1, "compute_output": 3, "cache_hit": 0, "cache_miss": 0}
    assert all(found["inference_stats"][stage]["ns"] > 0 for stage in (*computed, "fail"))
    assert [row["version"] for row in stats(f"/{NAME}")] == ["1", "2"]
    assert stats("") == stats(f"/{NAME}")


def test_load_and_unload(served):
    pool = served.app.state.graft.engine.pool
    index = served.post("/v2/repository/index", content=b"").json()
    assert [(row["name"], row["version"], row["state"]) for row in index] == [
        (NAME, "1", "READY"), (NAME, "2", "READY")
    ]  # fmt: skip
    assert served.post(f"/v2/repository/models/{NAME}/load", json={}).status_code == 200
    assert pool.stats().num_entries >= 2
    assert served.post(f"/v2/repository/models/{NAME}/unload").status_code == 200
    assert (pool.stats().num_entries, pool.stats().size_bytes) == (0, 0)
    agrees(served.post(URL, json={"inputs": [encoded()]}))


def test_whoever_waits_for_a_load_keeps_no_call_waiting(served):
    state = served.app.state.graft
    agrees(served.post(URL, json={"inputs": [encoded()]}))
    loading = state.engine._sessions._loading
    with ThreadPoolExecutor(51) as threads, ExitStack() as held:
        for _ in range(NUM_LOADERS):
            held.enter_context(loading)
        asked = [threads.submit(served.get, f"/v2/models/{NAME}/versions/1/ready") for _ in range(50)]
        wait_until(lambda: state.loaders.statistics().tasks_waiting == 50 - NUM_LOADERS, "all to wait for a load")
        agrees(threads.submit(served.post, URL, json={"inputs": [encoded()]}).result(20))
        held.close()
        assert {one.result(60).status_code for one in asked} == {200}


def test_unload_leaves_what_others_need(served, tmp_path):
    state = served.app.state.graft
    publish(state, tmp_path / "other", "other")
    for name in (NAME, "other"):
        assert served.post(f"/v2/models/{name}/infer", json={"inputs": [encoded()]}).status_code == 200
    served.post("/v2/repository/models/other/unload")
    shared = served.post(URL, json={"inputs": [encoded()]})
    agrees(shared)
    assert state.engine.pool.stats().num_loads == 2


def test_domain(served, tmp_path):
    state = served.app.state.graft
    number = onnx_factories.NUM_FEATURES
    with state.database.write() as session:
        row = factories.fitted(session, state.storage, tmp_path, np.full(number, 0.5), np.full(number, 0.25))
        alignment = row.id
    bound = served.put(f"/api/v1/models/{NAME}/domains/night", json={"alignment": alignment})
    assert bound.status_code == 200, bound.text
    asked = {"inputs": [encoded()], "parameters": {"domain": "night"}, "outputs": [{"name": "features"}]}
    answer = served.post(URL, json=asked)
    assert answer.json()["parameters"] == {"alignment": alignment}
    np.testing.assert_allclose(tensors(answer)["features"], 0.5 * features() + 0.25, atol=1e-5)


def test_only_who_predicts_speaks_it(light):
    with TestClient(create_app(light, ("api",)), base_url="http://127.0.0.1") as client:
        inference_error(client.get("/v2"), 404)


def test_pixels_are_those_of_the_one_preprocessing():
    expected = np.stack([preprocess.load(data, onnx_factories.preprocess()) for data in PICTURES])
    np.testing.assert_array_equal(pixels(), expected)


def test_a_version_that_says_something_else_of_its_sample_is_not_ready(served, tmp_path):
    state = served.app.state.graft
    with state.database.write() as session:
        of = factories.model(session, "skewed", 0)
        for number, off in ((1, 0.0), (2, 0.01)):
            made = sample_factories.make(*factories.head_weights(number, 3), off=off)
            factories.published(session, state.storage, tmp_path / "s", of, number, parts={"sample": sample.pack(made)})
    assert served.get("/v2/models/skewed/versions/1/ready").json() == {"name": "skewed", "ready": True}
    for _ in range(2):
        refused = inference_error(served.get("/v2/models/skewed/ready"), 503)
        assert "scores that are 0.01 off" in refused
    inference_error(served.post("/v2/repository/models/skewed/load", json={}), 503)
    inference_error(served.post("/v2/models/skewed/infer", json={"inputs": [encoded()]}), 503)
    refused = served.post("/api/v1/models/skewed/predict", files={"file": PICTURES[0]})
    problem(refused, 503, "version_not_ready")
    index = served.post("/v2/repository/index", content=b"").json()
    found = {(row["name"], row["version"]): (row["state"], row["reason"]) for row in index}
    assert found["skewed", "1"] == ("READY", "")
    assert found["skewed", "2"][0] == "UNAVAILABLE"
    assert "scores that are 0.01 off" in found["skewed", "2"][1]
    ready = served.post("/v2/repository/index", json={"ready": True}).json()
    assert {(row["name"], row["version"]) for row in ready} == found.keys() - {("skewed", "2")}
    answer = served.post("/api/v1/models/skewed/predict", params={"version": 1}, files={"file": PICTURES[0]})
    assert answer.status_code == 200


def test_the_name_of_the_model_may_stand_in_the_body(served):
    """As KServe's own client has it."""
    known = {"id": "1", "model_name": NAME, "model_version": None, "inputs": [encoded()]}
    plain = tensors(served.post(URL, json={"inputs": [encoded()]}))["probabilities"]
    np.testing.assert_allclose(tensors(served.post(URL, json=known))["probabilities"], plain, atol=1e-5)
