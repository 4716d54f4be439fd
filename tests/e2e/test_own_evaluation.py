"""What a job said of its test images when it evaluated its model is what the endpoint says of them."""

import hashlib
import zipfile

import pytest

from app.artifact import bundle, predicted
from tests import factories
from tests.e2e import predicting

pytestmark = pytest.mark.server


def test_the_runners_evaluation_says_what_predict_says(up, tmp_path):
    service, _ = predicting.with_probe(up, tmp_path)
    service.client.download_bundle("colours", 1, tmp_path / "bundle.zip")
    with zipfile.ZipFile(tmp_path / "bundle.zip") as files:
        files.extract(bundle.PREDICTIONS, tmp_path)
    file = tmp_path / bundle.PREDICTIONS
    said, labels = predicted.read(file), predicted.read_labels(file)
    sent = {hashlib.sha256(data).hexdigest(): data for data in factories.pictures(8).values()}
    answers = service.client.predict("colours", [sent[digest] for digest in said.sha256], top_k=len(labels))
    assert len(answers["predictions"]) == len(said.ids) > 0
    for row_C, name, answer in zip(said.probabilities, said.predicted, answers["predictions"], strict=True):
        scores = {one["label"]: one["score"] for one in answer["scores"]}
        assert [scores[label] for label in labels] == pytest.approx(row_C.tolist(), abs=1e-4)
        assert answer["label"] == name
