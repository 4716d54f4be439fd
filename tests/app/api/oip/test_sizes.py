"""Versions with inputs of different sizes beside each other: pixels come in the size of the one that was asked for."""

import grpc
import numpy as np
import pytest
from starlette.testclient import TestClient

from app.main import create_app
from app.services import models
from tests import factories
from tests.app import onnx_factories
from tests.app.api.oip import requests
from tests.app.api.oip.test_grpc import Caller, agrees, encoded, images, infer
from tests.app.api.test_rollouts import ALIAS, compared, until_compared
from tests.checks import inference_error
from tests.conftest import free_port
from tests.inference import NAME, PICTURES, pixels, publish

NUM = len(PICTURES)
SIDE = onnx_factories.SIDE + 1
# Nearly all: each call that the canary must not answer would be one of its own.
SHARE = 0.999


@pytest.fixture
def doors(light, tmp_path):
    """HTTP and gRPC of a service whose first version takes smaller images than its second one."""
    settings = light.model_copy(update={"grpc_port": free_port()})
    graph = tmp_path / "larger.onnx"
    graph.write_bytes(onnx_factories.backbone_bytes(side=SIDE))
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as client:
        state = client.app.state.graft
        publish(state, tmp_path / "made", num_versions=1)
        with state.database.write() as session:
            of = models.get(session, factories.PROJECT, NAME)
            made = {"described": {"side": SIDE}, "parts": {"backbone": graph}, "shared": False}
            factories.published(session, state.storage, tmp_path / "larger", of, 2, **made)
        with grpc.insecure_channel(f"127.0.0.1:{settings.grpc_port}") as channel:
            yield client, Caller(channel)


def test_a_canary_of_another_size_answers_no_pixels(doors):
    client, call = doors
    assert client.put(ALIAS, json={"version": 1, "canary": 2, "share": SHARE}).status_code == 200
    told = client.get(f"/v2/models/{NAME}").json()["inputs"][1]
    assert (told["name"], told["shape"]) == ("images", [-1, *pixels().shape[1:]])
    for _ in range(3):
        answer = client.post(requests.URL, json={"inputs": [requests.images()]})
        assert (answer.status_code, answer.headers["X-Graft-Version"]) == (200, "1"), answer.text
        answer = call("ModelInfer", infer([images()]))
        assert answer.model_version == "1"
        agrees(answer, version=1)
    # Files fit any size.
    answers = [client.post(requests.URL, json={"inputs": [requests.encoded()]}) for _ in range(5)]
    assert "2" in {answer.headers["X-Graft-Version"] for answer in answers}
    assert "2" in {call("ModelInfer", infer([encoded()])).model_version for _ in range(5)}
    # The canary's own size is asked for by its number.
    larger = np.zeros((1, SIDE, SIDE, 3), np.uint8)
    tensor = requests.images(shape=list(larger.shape), data=larger.tolist())
    assert f"[-1, {SIDE - 1}, " in inference_error(client.post(requests.URL, json={"inputs": [tensor]}), 400)
    answer = client.post(f"/v2/models/{NAME}/versions/2/infer", json={"inputs": [tensor]})
    assert answer.json()["model_version"] == "2"


def test_a_canary_that_sees_images_otherwise_tells_no_features(doors):
    client, call = doors
    assert client.put(ALIAS, json={"version": 1, "canary": 2, "share": SHARE}).status_code == 200
    url, files = f"/api/v1/models/{NAME}", [("file", ("a.png", PICTURES[0]))]
    features = [{"name": "features"}]
    for _ in range(3):
        answers = [
            client.post(f"{url}/embed", files=files),
            client.post(f"{url}/predict?features=true", files=files),
            client.post(f"{url}/predict?features=true", files=files, headers={"Accept": "application/x-ndjson"}),
            client.post(requests.URL, json={"inputs": [requests.encoded()], "outputs": features}),
        ]
        assert [(one.status_code, one.headers["X-Graft-Version"]) for one in answers] == [(200, "1")] * 4
        assert call("ModelInfer", infer([encoded()], outputs=features)).model_version == "1"
    answers = [client.post(f"{url}/predict", files=files) for _ in range(5)]
    assert "2" in {answer.headers["X-Graft-Version"] for answer in answers}


def test_a_shadow_of_another_size_is_asked_of_files_alone(doors):
    client, call = doors
    assert client.put(ALIAS, json={"version": 1, "shadow": 2}).status_code == 200
    assert client.post(requests.URL, json={"inputs": [requests.images()]}).status_code == 200
    agrees(call("ModelInfer", infer([images()])), version=1)
    assert until_compared(client, 2 * NUM) == {"dropped": 2 * NUM}
    assert client.post(requests.URL, json={"inputs": [requests.encoded()]}).status_code == 200
    until_compared(client, 3 * NUM)
    assert compared(client).keys() <= {"dropped", "same", "different"}
    assert compared(client)["dropped"] == 2 * NUM
