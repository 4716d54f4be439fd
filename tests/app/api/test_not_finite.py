"""A graph that makes no finite number of an image: one error at every door, and none that no JSON can hold."""

import base64
import io
import json

import pytest
from PIL import Image

from tests import factories
from tests.app import onnx_factories
from tests.app.api.oip.requests import encoded
from tests.checks import inference_error, problem
from tests.inference import PICTURES

MODEL = "/api/v1/models/blinded"
CODE = "image_not_computed"


def white():
    out = io.BytesIO()
    Image.new("RGB", (32, 32), "white").save(out, "PNG")
    return out.getvalue()


SENT = [PICTURES[0], white(), PICTURES[1], white()]


@pytest.fixture
def served(light_client, tmp_path):
    state, graph = light_client.app.state.graft, tmp_path / "blinded.onnx"
    graph.write_bytes(onnx_factories.blinded_backbone_bytes())
    with state.database.write() as session:
        of = factories.model(session, "blinded", 0)
        factories.published(session, state.storage, tmp_path / "made", of, 1, shared=False, parts={"backbone": graph})
    return light_client


@pytest.mark.parametrize("door", ["predict", "embed"])
def test_a_request_ends_with_the_first_such_image(served, door):
    files = [("file", (str(place), data)) for place, data in enumerate(SENT)]
    told = problem(served.post(f"{MODEL}/{door}", files=files), 400, CODE)
    assert (told["index"], "image 1: expected finite numbers" in told["detail"]) == (1, True)
    assert served.post(f"{MODEL}/{door}", files=[files[0], files[2]]).status_code == 200


def test_a_stream_goes_on(served):
    body = "\n".join(json.dumps({"b64": base64.b64encode(data).decode()}) for data in SENT)
    answer = served.post(f"{MODEL}/predict", content=body, headers={"Content-Type": "application/x-ndjson"})
    rows = [json.loads(line) for line in answer.text.splitlines()]
    assert [row["problem"]["code"] if "problem" in row else "label" in row for row in rows] == [True, CODE, True, CODE]


def test_an_inference_request_is_told(served):
    asked = {"inputs": [encoded([base64.b64encode(data).decode() for data in SENT])]}
    assert "image 1: expected finite numbers" in inference_error(
        served.post("/v2/models/blinded/infer", json=asked), 400
    )
