"""Evaluations of a version on images without labels, on a bundle that a real transfer made."""

import json

import numpy as np
import pytest

from tests import factories
from tests.worker.study_factories import Lab
from worker import transfer

SHADES = {"rose": (168, 124, 130), "moss": (156, 136, 122), "mauve": (160, 124, 140)}


def bare(pictures):
    return {f"{place}.png": data for place, data in enumerate(pictures.values())}


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A version of three shades, and more pictures of them: with their labels, and without."""
    found = Lab(tmp_path_factory.mktemp("home"))
    found.store("ds_shades", factories.pictures(60, SHADES))
    more = factories.pictures(20, SHADES, first=500)
    found.store("ds_labelled", more)
    found.store("ds_bare", bare(more))
    found.version = found.transfer("ds_shades")
    found.told = {name: found.evaluate(name, found.version, split="all") for name in ("ds_labelled", "ds_bare")}
    return found


def test_without_labels_the_accuracy_is_estimated_and_nothing_is_measured(lab):
    told = lab.told["ds_bare"]
    made = told["estimate"]
    assert told["labelled"] is False
    assert (made["num_items"], made["num_known"]) == (60, lab.version["metrics"]["num_test"])
    assert made["known_accuracy"] == lab.version["metrics"]["test_accuracy"]
    assert made["low"] <= made["value"] <= made["high"]
    assert (made["found"], made["error"]) == (None, None)
    assert told["metrics"]["accuracy"] is None
    assert told["not_computed"]["metrics.accuracy"]
    assert told["metrics"]["estimated_accuracy"] == made["value"]
    assert sum(row["num_items"] for row in told["predicted"]) == told["num_items"] == 60
    assert told["leakage"] == {"num_items": 60, "num_any": 0}
    assert told["comparison"] is told["against"] is None
    json.dumps(told, allow_nan=False)


def test_with_labels_the_same_estimate_stands_beside_what_was_measured(lab):
    made, told = lab.told["ds_bare"]["estimate"], lab.told["ds_labelled"]
    assert told["labelled"] is True
    # Labels change nothing that is estimated.
    assert {**told["estimate"], "found": None, "error": None} == made
    assert told["estimate"]["found"] == told["metrics"]["accuracy"]
    assert told["estimate"]["error"] == pytest.approx(made["value"] - told["metrics"]["accuracy"])


def test_what_the_version_knows_is_neither_a_known_answer_nor_asked_about(lab):
    found = lab.evaluate("ds_shades", lab.version, split="all")
    # Test items are asked about, and so leave no known answer; the others taught the version.
    assert found["estimate"] is None
    reason = found["not_computed"]["estimate"]
    assert reason.startswith("needs 30 items with known answers beside those that are asked about; found 0; ")
    assert "ask about images without them" in reason


def test_images_that_taught_the_version_are_left_out_where_nobody_labelled_them(lab):
    context = lab.context("evaluate", "ds_shades")
    index = transfer.load(context, context.document.dataset)
    names = [index.paths[row].as_py() for row in np.concatenate([index.rows_of("train"), index.rows_of("val")])]
    taught = factories.pictures(60, SHADES)
    mixed = [taught[name] for name in names[:30]] + list(factories.pictures(5, SHADES, first=900).values())
    lab.store("ds_mixed", {f"{place}.png": data for place, data in enumerate(mixed)})
    found = lab.evaluate("ds_mixed", lab.version, split="all")
    assert found["leakage"] == {"num_items": 45, "num_any": 30}
    assert found["estimate"]["num_items"] == 15
