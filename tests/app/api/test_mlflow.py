"""A version as an MLflow model folder, loaded by MLflow itself."""

import io
import zipfile

import numpy as np
import onnxruntime
import pytest

from app.artifact import preprocess
from tests.app import onnx_factories
from tests.app.api.test_predictions import LABELS, PICTURES, prepare, reference
from tests.checks import problem

URL = "/api/v1/models/tiny/versions/2/mlflow"
# What MLflow and those that it imports say of themselves is not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def served(light_client, tmp_path):
    prepare(light_client, tmp_path, 2)
    return light_client


def test_mlflow_says_what_the_endpoint_says(served, tmp_path, monkeypatch):
    import mlflow.onnx
    import mlflow.pyfunc

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path / 'runs'}")
    answer = served.get(URL)
    assert answer.headers["Content-Type"] == "application/zip"
    assert 'filename="tiny-2-mlflow.zip"' in answer.headers["Content-Disposition"]
    assert served.get(URL).content == answer.content
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        archive.extractall(tmp_path)
    folder = str(tmp_path / "tiny-2")
    pixels = np.stack([preprocess.load(data, onnx_factories.preprocess()) for data in PICTURES])
    wanted = reference(PICTURES, 2)
    fields = [("file", (str(place), data)) for place, data in enumerate(PICTURES)]
    rows = served.post("/api/v1/models/tiny/predict", files=fields, params={"version": 2}).json()["predictions"]
    told = [
        [next(item["score"] for item in row["scores"] if item["label"] == label) for label in LABELS] for row in rows
    ]
    np.testing.assert_allclose(told, wanted, atol=1e-4)

    loaded = mlflow.pyfunc.load_model(folder)
    assert loaded.metadata.metadata["graft"]["labels"] == LABELS
    assert [item.name for item in loaded.metadata.get_input_schema()] == ["images"]
    for given in (pixels, {"images": pixels}):
        found = loaded.predict(given)
        np.testing.assert_allclose(found["probabilities"], told, atol=1e-4)
        np.testing.assert_allclose(found["features"], onnx_factories.backbone_reference(pixels), atol=1e-4)
    with pytest.raises(mlflow.exceptions.MlflowException, match="schema"):
        loaded.predict(pixels.astype(np.float64))
    graph = mlflow.onnx.load_model(folder).SerializeToString()
    np.testing.assert_allclose(onnx_factories.run(graph, images=pixels)["probabilities"], told, atol=1e-4)


def test_a_folder_of_a_service_on_a_gpu(served, gpu_package):
    with zipfile.ZipFile(io.BytesIO(served.get(URL).content)) as archive:
        needed = archive.read("tiny-2/requirements.txt").decode().splitlines()
    assert f"onnxruntime=={onnxruntime.__version__}" in needed


def test_refused(served):
    problem(served.get(URL.replace("/2/", "/9/")), 404, "not_found")
