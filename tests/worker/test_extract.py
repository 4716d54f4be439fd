"""Features of stored datasets as jobs: those of the cache, in the dataset's order, in a file that others open."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from app.errors import JobFailure
from tests import factories
from tests.worker.study_factories import Lab
from tests.worker.test_predict import next_attempt, told
from worker import extract, transfer
from worker.backbones import features
from worker.data.splits import SPLITS
from worker.prepare import sources


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Colours on a tiny backbone."""
    found = Lab(tmp_path_factory.mktemp("home"))
    found.store("ds_colours", factories.pictures(30))
    return found


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(extract, "CHUNK_ROWS", 32)


def context(lab, **request):
    asked = {"dataset": "ds_colours", "backbone": "tiny", "splits": None, "format": "parquet", **request}
    return lab.context("extract", "ds_colours", inputs={"request": asked})


def table(lab, made):
    return pq.read_table(lab.storage.fetch(made["file"]))


def test_every_image_once_in_order_with_the_features_of_the_cache(lab):
    given, wire = told(context(lab))
    made = extract.run(given)
    found = table(lab, made)
    index = transfer.load(lab.context("extract"), lab.documents["ds_colours"])
    assert found["id"].to_pylist() == [one.decode() for one in index.ids]
    assert found["label"].to_pylist() == [index.columns[0].text(row) for row in range(len(index))]
    (backbone,) = sources.open_backbones(given)
    wanted, extraction = features.pooled(given, index, np.arange(len(index)), backbone, ("features", 0.0, 1.0))
    assert extraction.num_extracted == 0
    np.testing.assert_array_equal(np.array(found["features"].to_pylist(), np.float32), wanted)
    named = json.loads(found.schema.metadata[b"graft"])
    assert (named["backbone"], named["digest"], named["precision"]) == (backbone.name, backbone.digest, "fp32")
    number = len(index)
    assert made["metrics"] == {
        "num_samples": number, "num_cached": 0, "num_extracted": number, "feature_dim": backbone.feature_dim
    }  # fmt: skip
    assert wire.messages("metric")[-1] == f"{number} of {number} images"
    # Another attempt extracts nothing.
    again, _ = next_attempt(given)
    assert extract.run(again)["metrics"]["num_extracted"] == 0


def test_some_splits_as_lines(lab):
    made = extract.run(told(context(lab, splits=["test"], format="jsonl"))[0])
    rows = [json.loads(line) for line in lab.storage.fetch(made["file"]).read_text().splitlines()]
    assert len(rows) == made["metrics"]["num_samples"] > 0
    assert {row["split"] for row in rows} == {"test"}
    assert {len(row["features"]) for row in rows} == {made["metrics"]["feature_dim"]}


def test_splits_that_are_empty_by_now_are_said(lab, monkeypatch):
    given, _ = told(context(lab, splits=["val"]))
    plain = transfer.load

    def without_val(*arguments):
        index = plain(*arguments)
        index.split[index.split == SPLITS.index("val")] = 0
        return index

    monkeypatch.setattr(transfer, "load", without_val)
    with pytest.raises(JobFailure, match="expected images in splits"):
        extract.run(given)
