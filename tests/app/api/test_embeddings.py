"""Embeddings: the features that the head sees, as JSON and as bytes."""

import numpy as np
import pytest

from app.artifact import preprocess
from tests.app import onnx_factories
from tests.app.api.test_predictions import PICTURES, multipart, prepare
from tests.checks import problem

URL = "/api/v1/models/tiny/embed"


@pytest.fixture
def served(light_client, tmp_path):
    prepare(light_client, tmp_path, 2)
    return light_client


def reference(pictures):
    pixels = np.stack([preprocess.load(data, onnx_factories.preprocess()) for data in pictures])
    return onnx_factories.backbone_reference(pixels)


def test_features_as_json(served):
    answer = served.post(URL, **multipart(PICTURES))
    body = answer.json()
    assert answer.status_code == 200, body
    assert (body["model"], body["version"], body["dim"], body["alignment"]) == ("tiny", 2, 6, None)
    np.testing.assert_allclose(body["features"], reference(PICTURES), atol=1e-5)
    assert answer.headers["X-Graft-Version"] == "2"
    assert "compute" in answer.headers["Server-Timing"]


def test_features_as_bytes(served):
    answer = served.post(
        URL, params={"version": 1}, headers={"Accept": "application/octet-stream"}, **multipart(PICTURES)
    )
    assert answer.headers["Content-Type"] == "application/octet-stream"
    rows, columns = map(int, answer.headers["X-Graft-Shape"].split(","))
    found = np.frombuffer(answer.content, "<f4").reshape(rows, columns)
    np.testing.assert_allclose(found, reference(PICTURES), atol=1e-5)
    assert answer.headers["X-Graft-Version"] == "1"


def test_one_raw_image(served):
    found = served.post(URL, content=PICTURES[0], headers={"Content-Type": "image/png"}).json()
    np.testing.assert_allclose(found["features"], reference(PICTURES[:1]), atol=1e-5)


def test_refused(served):
    problem(served.post(URL, files={"file": ("a.png", b"text")}), 400, "image_unreadable")
    problem(served.post(URL, params={"domain": "phone"}, **multipart(PICTURES)), 404, "unknown_domain")
    problem(served.post(URL.replace("tiny", "none"), **multipart(PICTURES)), 404, "not_found")
    problem(served.post(URL, params={"timeout": 1e-9}, **multipart(PICTURES)), 504, "deadline_exceeded")
