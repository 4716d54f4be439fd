"""predictions.parquet, written, read, and opened with other tools."""

import json
from dataclasses import replace

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest

from app.artifact import predicted
from tests.app.prediction_factories import CLASSES, make


@pytest.mark.parametrize("num", [0, 1, 7])
def test_predictions_come_back_as_they_were(tmp_path, num):
    path, written = tmp_path / "p.parquet", make(num)
    predicted.write(path, written, CLASSES)
    read = predicted.read(path)
    for name in ("ids", "sha256", "labels", "predicted", "splits"):
        assert getattr(read, name) == getattr(written, name)
    np.testing.assert_array_equal(read.probabilities, written.probabilities)
    assert read.probabilities.dtype == np.float32
    assert predicted.read_labels(path) == list(CLASSES)


def test_what_baselines_named_comes_back_beside_the_model(tmp_path):
    path = tmp_path / "p.parquet"
    named = {"frozen": ["cat", "dog", "owl"], "scratch": ["owl"] * 3}
    predicted.write(path, replace(make(3), baselines=named), CLASSES)
    assert predicted.read(path).baselines == named
    assert {"predicted_frozen", "predicted_scratch"} <= set(pq.read_schema(path).names)
    with pytest.raises(ValueError, match="columns of one length"):
        predicted.write(path, replace(make(3), baselines={"frozen": ["cat"]}), CLASSES)


def test_predictions_open_in_other_tools(tmp_path):
    path, written = tmp_path / "p.parquet", make(5)
    predicted.write(path, written, CLASSES)
    schema = pq.read_schema(path)
    assert [(item.name, str(item.type)) for item in schema] == [
        ("id", "string"), ("sha256", "string"), ("label", "string"), ("predicted", "string"), ("split", "string"),
        ("probabilities", "list<element: float>"),
    ]  # fmt: skip
    assert json.loads(schema.metadata[b"labels"]) == ["cat", "dog", "owl"]
    rows = duckdb.sql(f"select id, probabilities[1] from '{path}' where split = 'test' order by id").fetchall()
    assert rows == [
        (name, pytest.approx(float(row[0]))) for name, row in zip(written.ids, written.probabilities, strict=True)
    ]


def test_predictions_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(ValueError, match="expected probabilities of shape"):
        predicted.write(tmp_path / "p", make(4), ("cat", "dog"))
    uneven = make(4)
    uneven.ids.append("s9")
    with pytest.raises(ValueError, match="expected probabilities of shape"):
        predicted.write(tmp_path / "p", uneven, CLASSES)
    uneven = make(4)
    uneven.splits.append("test")
    with pytest.raises(ValueError, match="columns of one length"):
        predicted.write(tmp_path / "p", uneven, CLASSES)
