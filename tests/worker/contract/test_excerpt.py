"""A job whose time does not hold all images ends with an excerpt of them, and says so."""

import numpy as np
import pytest

from app.artifact import bundle, predicted
from tests import factories
from tests.worker import transfer_factories
from tests.worker.study_factories import Lab
from worker.backbones import features
from worker.backbones.extraction import Extraction
from worker.backbones.features import Left
from worker.contract import excerpt
from worker.prepare import sources
from worker.reports import lineage

SHADES = {"rose": (190, 110, 120), "moss": (150, 150, 110), "mauve": (165, 120, 150)}


@pytest.fixture
def lab(tmp_path, monkeypatch) -> Lab:
    monkeypatch.setattr(sources, "open_backbones", lambda context: (transfer_factories.cnn(),))
    found = Lab(tmp_path)
    found.store("ds_many", factories.pictures(60, SHADES))
    return found


def test_without_any_time_it_ends_with_the_probe_on_an_excerpt(lab):
    done = lab.transfer("ds_many", "fine_tune", recipe={"scope": "ssf", "max_minutes": 1e-6})
    report, splits = done["report"], done["report"]["data"]["splits"]
    assert sum(splits.values()) == 3 * excerpt.CLASS_IMAGES + excerpt.FIRST_IMAGES
    # 36 of 180 are test images.
    assert 9 <= splits["test"] == done["metrics"]["num_test"] <= 17
    steps = {one["step"]: one["reason"] for one in report["decisions"] if one["outcome"] == "skipped"}
    assert f"{splits['test']} of 36 test images" in steps["features of all images"]
    assert {"training", "baseline from scratch"} <= steps.keys()
    assert {"images_left_out", "nothing_trained"} <= {flag["code"] for flag in report["flags"]}
    # What was left out has taught it nothing, and is no item that it was tested on.
    (taught,) = lineage.of_version(lab.storage, done["prefix"], done["spec"]["files"])
    assert len(taught.sha256) == splits["train"] + splits["val"]
    said = predicted.read(lab.storage.fetch(f"{done['prefix']}/{bundle.PREDICTIONS}"))
    assert len(said.ids) == splits["test"]
    assert report["data"]["lineage"]["items"]["num_test"] == splits["test"]


def test_with_time_it_goes_on_from_what_was_extracted(lab):
    lab.transfer("ds_many", "fine_tune", recipe={"scope": "head", "epochs": 1, "max_minutes": 1e-6})
    done = lab.transfer("ds_many", "fine_tune", recipe={"scope": "head", "epochs": 1, "max_minutes": 600})
    assert done["metrics"]["num_test"] == 36
    assert "images_left_out" not in {flag["code"] for flag in done["report"]["flags"]}
    assert done["report"]["cost"]["images_cached"] >= 79


@pytest.mark.parametrize("num_classes", [2, 40])
def test_every_beginning_of_an_order_stands_for_the_whole(num_classes):
    generator = np.random.default_rng(0)
    # Stored class by class, in sizes from 2 on; a fifth is scored.
    labels_N = np.sort(generator.choice(num_classes, 3000, p=generator.dirichlet(np.full(num_classes, 2.0))))
    scored = np.sort(generator.permutation(3000)[:600])
    pool = np.setdiff1d(np.arange(3000), scored)
    order = excerpt.order(labels_N, np.arange(3000), pool, scored, 1)
    ordered, num_first = order.rows, order.num_first
    fewest = ordered[: order.num_least]
    assert len(np.intersect1d(fewest, scored)) == excerpt.LEAST_SCORED
    found = np.bincount(labels_N[np.intersect1d(fewest, pool)], minlength=num_classes)
    assert (found == np.minimum(np.bincount(labels_N[pool], minlength=num_classes), 2)).all()
    assert np.array_equal(np.sort(ordered), np.arange(3000))
    for size in (num_first, 500, 1000, 2000, 3000):
        for part, early in ((pool, excerpt.CLASS_IMAGES), (scored, 0)):
            found = np.bincount(labels_N[np.intersect1d(ordered[:size], part)], minlength=num_classes)
            whole = np.bincount(labels_N[part], minlength=num_classes)
            assert (found >= np.minimum(whole, early)).all()
            rest = (size - num_first + excerpt.FIRST_IMAGES) / 3000
            # The first that are scored come at once.
            ahead = 0 if part is pool or size > num_first else excerpt.LEAST_SCORED / num_classes
            assert (
                np.abs(found - np.minimum(whole, early) - whole * rest).max() <= early + 2 + ahead + 0.03 * whole.max()
            )


def test_copies_stay_together_and_a_picture_under_two_labels_stands_for_both():
    # Twelve pictures of four copies; of each class but the last, which has one copy of a picture of another class.
    groups_N = np.repeat(np.arange(12), 4)
    labels_N = np.repeat(np.arange(3), 16)
    labels_N[-1] = 3
    order = excerpt.order(labels_N, groups_N, np.arange(48), np.arange(0), 3)
    ordered = order.rows
    # Two pictures of each of three classes, and one that stands for the fourth, too.
    assert (order.num_least, order.num_first) in ((24, 48), (28, 48))
    runs = np.flatnonzero(np.diff(groups_N[ordered])) + 1
    assert len(runs) == 11
    assert 3 in labels_N[ordered[: 5 * 4 * 3]]


def grown(num_fitting, left_at=None, cached=0, copies=1, num_least=20):
    """Sizes of the rounds over a thousand rows at a hundredth of a second each."""
    sizes = []

    def extract(rows, is_first):
        sizes.append(len(rows))
        if len(sizes) == left_at:
            raise Left(1, len(rows))
        return Extraction(0, len(rows), len(rows) / 100)

    order = excerpt.Order(np.arange(1000), num_least, 20)
    groups_N = np.arange(1000) // copies
    num, extractions = excerpt.grow(order, groups_N, extract, lambda rows: max(0, len(rows) - cached), num_fitting)
    return num, sizes, len(extractions)


def test_rounds_grow_until_the_time_holds_no_more():
    assert grown(lambda pace: 1e9) == (1000, [20, 80, 400, 500], 4)
    assert grown(lambda pace: 50.5 if pace == pytest.approx(0.01) else 1e9, left_at=None)[1][:2] == [20, 50]
    assert grown(lambda pace: 0.5) == (20, [20], 1)
    assert grown(lambda pace: -3.0) == (20, [20], 1)
    # What the clock ends is no part of it, however much of it was extracted.
    assert grown(lambda pace: 1e9, left_at=3) == (100, [20, 80, 400], 2)
    # What is in the cache costs no time.
    assert grown(lambda pace: 0.0, cached=980) == (1000, [20], 2)
    # Of the first round the fewest are enough.
    assert grown(lambda pace: 0.5, num_least=8) == (20, [8, 12], 2)
    assert grown(lambda pace: 1e9, num_least=8, left_at=2) == (8, [8, 12], 1)
    # A picture and its copies are not cut.
    assert grown(lambda pace: 50.5 if pace == pytest.approx(0.01) else 1e9, copies=8)[1][:2] == [20, 52]


def test_features_that_are_left_are_kept(lab):
    lab.transfer("ds_many", "fine_tune", recipe={"scope": "head", "max_minutes": 1e-6})
    context = lab.context("transfer", "ds_many")
    task = transfer_factories.task(context, transfer_factories.cnn())
    assert features.num_missing(context, task.index, np.arange(180), task.backbone) == 180 - 79
