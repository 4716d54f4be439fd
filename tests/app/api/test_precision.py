"""A version with two graphs: which one answers, what is said of it, and how it travels."""

import io
import json
import zipfile

import numpy as np
import pytest

from app.artifact import bundle
from app.artifact.precisions import SECOND as PRECISIONS
from app.artifact.precisions import WORDS
from app.artifact.spec import load as load_spec
from app.artifact.spec import version_of
from app.services import aliases
from app.services.aliases import Target
from app.serving.runtime import Session
from tests.app import bundle_factories, onnx_factories, sample_factories, second_graphs
from tests.app.api.oip.requests import LENGTH, binary
from tests.app.second_graphs import GRAPHS, features, scores
from tests.checks import inference_error, problem
from tests.conftest import wait_until
from tests.inference import PICTURES, pixels


@pytest.fixture(params=PRECISIONS)
def precision(request):
    return request.param


def publish(client, folder, precision, off=0.75):
    second_graphs.publish(client.app.state.graft, folder, precision, off=off)


def predict(client, model="tiny", pictures=PICTURES, **query):
    files = [("file", (f"{place}.png", data)) for place, data in enumerate(pictures)]
    return client.post(f"/api/v1/models/{model}/predict", params=query, files=files)


def said(answer):
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert answer.headers["X-Graft-Precision"] == body["precision"]
    order = ("cat", "dog", "owl")
    rows = [{one["label"]: one["score"] for one in item["scores"]} for item in body["predictions"]]
    return body["precision"], np.array([[row[label] for label in order] for row in rows])


def test_the_graph_that_was_asked_for_answers_and_says_so(light_client, tmp_path, precision):
    publish(light_client, tmp_path, precision)
    for query, told in (({}, "fp32"), ({"precision": "fp32"}, "fp32"), ({"precision": precision}, precision)):
        found, scored = said(predict(light_client, version=1, **query))
        assert found == told
        np.testing.assert_allclose(scored, scores(1, told or "fp32"), atol=1e-5)
    answer = light_client.post(
        "/api/v1/models/tiny/embed", params={"version": 1, "precision": precision}, files={"file": PICTURES[0]}
    )
    assert answer.json()["precision"] == precision
    np.testing.assert_allclose(answer.json()["features"], features(pixels()[:1], precision), atol=1e-5)


def at_rest(pool):
    """What it holds once nobody uses it: sizes are read at the end of a lease, which comes after the answer."""
    wait_until(lambda: not any(entry.leases for entry in pool._entries.values()), "an end of all leases")
    return pool.stats()


def test_the_pool_counts_the_graph_by_its_precision(light_client, tmp_path, precision):
    publish(light_client, tmp_path, precision)
    pool = light_client.app.state.graft.engine.pool
    # One image, so that the largest batch is that of the trial on the version's sample.
    predict(light_client, pictures=PICTURES[:1], version=1)
    before = at_rest(pool)
    assert predict(light_client, pictures=PICTURES[:1], version=1, precision=precision).status_code == 200
    after = at_rest(pool)
    session = Session(GRAPHS[precision], precision=precision)
    session.run(pixels()[: len(sample_factories.pixels())])
    assert after.size_bytes - before.size_bytes == (after.num_entries - before.num_entries) * session.size_bytes > 0


def test_what_cannot_answer_refuses(light_client, tmp_path, precision):
    publish(light_client, tmp_path, precision)
    found = predict(light_client, version=2, precision=precision)
    problem(found, 404, f"no_{precision}")
    assert f"its report says why under {precision}" in found.json()["detail"]
    problem(predict(light_client, precision=precision), 404, f"no_{precision}")
    problem(predict(light_client, version=1, precision=precision, domain="shop"), 409, f"{precision}_with_domain")
    (other,) = set(PRECISIONS) - {precision}
    problem(predict(light_client, version=1, precision=other), 404, f"no_{other}")
    problem(predict(light_client, version=1, precision="int4"), 422, "invalid_payload")


def test_an_alias_is_answered_without_canary(light_client, tmp_path, precision):
    publish(light_client, tmp_path, precision)
    with light_client.app.state.graft.database.write() as session:
        aliases.point(session, "default", "tiny", "small", Target(1, canary=2, share=1.0))
    answer = predict(light_client, alias="small", precision=precision)
    assert (answer.json()["version"], answer.json()["precision"]) == (1, precision)
    assert predict(light_client, alias="small").json()["version"] == 2


def test_the_inference_protocol_asks_by_a_parameter(light_client, tmp_path, precision):
    publish(light_client, tmp_path, precision)
    url = "/v2/models/tiny/versions/1/infer"
    images = {"name": "images", "datatype": "UINT8", "shape": list(pixels().shape), "data": pixels().ravel().tolist()}
    for told in (None, precision):
        parameters = {"precision": told} if told else {}
        answer = light_client.post(url, json={"inputs": [images], "parameters": parameters}).json()
        assert answer.get("parameters", {}) == parameters
        found = np.array(answer["outputs"][0]["data"]).reshape(-1, 3)
        np.testing.assert_allclose(found, scores(1, told or "fp32"), atol=1e-5)
    raw = {**images, "parameters": {"binary_data_size": pixels().nbytes}}
    del raw["data"]
    document = {"inputs": [raw], "parameters": {"precision": precision, "binary_data_output": True}}
    packed = light_client.post(url, **binary(document, pixels().tobytes()))
    found = np.frombuffer(packed.content[int(packed.headers[LENGTH]) :], "<f4").reshape(-1, 3)
    np.testing.assert_allclose(found, scores(1, precision), atol=1e-5)
    refused = light_client.post(url, json={"inputs": [images], "parameters": {"precision": 8}})
    assert "precision" in inference_error(refused, 400)


def test_a_second_graph_that_says_something_else_is_refused_alone(light_client, tmp_path, precision):
    publish(light_client, tmp_path, precision, off=1.5)
    problem(predict(light_client, version=1, precision=precision), 503, "version_not_ready")
    assert said(predict(light_client, version=1))[0] == "fp32"


def test_a_bundle_with_two_graphs_comes_back_whole(light_client, tmp_path, precision):
    publish(light_client, tmp_path, precision)
    content = light_client.get("/api/v1/models/tiny/versions/1/bundle").content
    files = bundle_factories.read(content)
    assert files[bundle.SECOND[precision]] == GRAPHS[precision]
    assert json.loads(files[bundle.SPEC])["spec_version"] == version_of({precision})
    answer = light_client.post("/api/v1/models/moved/versions", files={"file": ("b.zip", io.BytesIO(content))})
    assert answer.status_code == 201, answer.text
    moved = said(predict(light_client, "moved", precision=precision))
    assert moved[0] == precision
    np.testing.assert_allclose(moved[1], scores(1, precision), atol=1e-5)
    assert light_client.get("/api/v1/models/moved/versions/1/bundle").content == content


def other_graph(files, precision):
    return bundle_factories.replace(files, bundle.SECOND[precision], onnx_factories.backbone_bytes(seed=8))


def wider(files, precision):
    return bundle_factories.replace(files, bundle.SECOND[precision], onnx_factories.backbone_bytes(7))


def unsaid(files, precision):
    listed = json.loads(files[bundle.SPEC])
    return bundle_factories.edit_spec(
        {**files, bundle.SPEC: json.dumps({**listed, "spec_version": 1}).encode()}, **{precision: None}
    )


def without_sample(files, _):
    listed = json.loads(files[bundle.SPEC])["files"]
    del listed[bundle.SAMPLE]
    fewer = {name: data for name, data in files.items() if name != bundle.SAMPLE}
    return bundle_factories.edit_spec(fewer, files=listed)


def missing(files, precision):
    listed = json.loads(files[bundle.SPEC])["files"]
    del listed[bundle.SECOND[precision]]
    return bundle_factories.edit_spec(
        {name: data for name, data in files.items() if name != bundle.SECOND[precision]}, files=listed
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (other_graph, "in {precision} features are"),
        (wider, "features"),
        (unsaid, "nothing is said of it"),
        (without_sample, "beside a graph in {words}"),
        (missing, "backbone.{precision}.onnx is not listed"),
    ],
)
def test_an_import_is_refused(light_client, tmp_path, precision, change, words):
    publish(light_client, tmp_path, precision)
    files = bundle_factories.read(light_client.get("/api/v1/models/tiny/versions/1/bundle").content)
    data = bundle_factories.pack(change(files, precision))
    answer = light_client.post("/api/v1/models/moved/versions", files={"file": ("b.zip", io.BytesIO(data))})
    problem(answer, 400, "bundle_invalid")
    assert words.format(precision=precision, words=WORDS[precision]) in answer.json()["detail"]


def test_other_servers_get_the_graph_in_floating_point(light_client, tmp_path, precision):
    publish(light_client, tmp_path, precision)
    content = light_client.get("/api/v1/models/tiny/versions/1/repository").content
    with zipfile.ZipFile(io.BytesIO(content)) as zipped:
        found = onnx_factories.run(zipped.read("tiny/1/model.onnx"), images=pixels())
        assert load_spec(zipped.read("tiny/1/spec.json")).second == {precision: onnx_factories.MEASURED}
    np.testing.assert_allclose(found["probabilities"], scores(1, "fp32"), atol=1e-5)


def test_a_class_that_is_added_has_one_graph(light_client, tmp_path, precision):
    publish(light_client, tmp_path, precision)
    answer = light_client.post(
        "/api/v1/models/tiny/classes", params={"version": 1}, files={"file": PICTURES[0]}, data={"label": "newt"}
    )
    assert answer.status_code == 201, answer.text
    spec = light_client.get("/api/v1/models/tiny/versions/3/files/spec.json").content
    assert (load_spec(spec).spec_version, load_spec(spec).second) == (1, {})
    problem(predict(light_client, version=3, precision=precision), 404, f"no_{precision}")
    assert said_of_four(predict(light_client, version=3)) == "fp32"


def said_of_four(answer):
    """It passes the trial on the base's pictures, which the new head has scored."""
    assert answer.status_code == 200, answer.text
    return answer.json()["precision"]
