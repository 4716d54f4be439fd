"""A version as a model-repository folder: what other servers would read."""

import io
import zipfile

import numpy as np
import onnxruntime
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from app.artifact import preprocess
from tests.app import onnx_factories
from tests.app.api.test_predictions import LABELS, PICTURES, prepare, reference
from tests.checks import problem

URL = "/api/v1/models/tiny/versions/2/repository"


@pytest.fixture
def served(light_client, tmp_path):
    prepare(light_client, tmp_path, 2)
    return light_client


def test_the_folder_is_what_another_server_loads(served):
    answer = served.get(URL)
    assert answer.headers["Content-Type"] == "application/zip"
    assert 'filename="tiny-2.zip"' in answer.headers["Content-Disposition"]
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    assert files.keys() == {"tiny/config.pbtxt", "tiny/labels.txt", "tiny/2/model.onnx", "tiny/2/spec.json"}
    assert files["tiny/labels.txt"].decode().splitlines() == LABELS
    config = text_format.Parse(files["tiny/config.pbtxt"].decode(), model_config_pb2.ModelConfig())
    session = onnxruntime.InferenceSession(files["tiny/2/model.onnx"], providers=["CPUExecutionProvider"])
    assert (config.name, config.platform, config.max_batch_size) == ("tiny", "onnxruntime_onnx", 16)
    for declared, real in ((config.input, session.get_inputs()), (config.output, session.get_outputs())):
        assert {(item.name, tuple(item.dims)) for item in declared} == {
            (item.name, tuple(item.shape[1:])) for item in real
        }
    assert {item.name: item.label_filename for item in config.output}["probabilities"] == "labels.txt"
    pixels = np.stack([preprocess.load(data, onnx_factories.preprocess()) for data in PICTURES])
    (found,) = session.run(["probabilities"], {"images": pixels})
    np.testing.assert_allclose(found, reference(PICTURES, 2), atol=1e-5)
    assert served.get(URL).content == answer.content


def test_refused(served):
    problem(served.get(URL.replace("tiny", "none")), 404, "not_found")
    problem(served.get(URL.replace("/2/", "/9/")), 404, "not_found")
