"""What is served where a verdict says that the transfer is worse: whole jobs on weights that see nothing.

The source's first convolution is blind, so that its features tell no picture from another, and colours that any network
learns in a second stand against it: a difference that no seed and no busy machine turns round.
"""

import shutil
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from app.artifact import bundle, predicted
from app.pages import report as page
from app.serving.runtime import Runtime, Session
from tests import factories
from tests.worker import nulls, transfer_factories
from tests.worker.study_factories import Lab
from worker import transfer
from worker.backbones import features, prepared
from worker.data.samples import load_index
from worker.methods import reference
from worker.prepare import sources
from worker.reports import fallback

EACH = 16


@pytest.fixture(scope="module")
def blind(tmp_path_factory) -> prepared.Prepared:
    """A backbone whose first convolution gives nothing, whatever it is shown."""
    plain = transfer_factories.cnn()
    folder = tmp_path_factory.mktemp("blind") / "backbone"
    shutil.copytree(plain.folder, folder)
    model = onnx.load(plain.graph)
    first = next(node for node in model.graph.node if node.op_type == "Conv")
    weight = next(one for one in model.graph.initializer if one.name == first.input[1])
    weight.CopyFrom(numpy_helper.from_array(np.zeros_like(numpy_helper.to_array(weight)), weight.name))
    (folder / prepared.GRAPH).write_bytes(model.SerializeToString())
    return replace(plain, folder=folder, digest="b" * 64)


@pytest.fixture
def lab(tmp_path, monkeypatch, blind) -> Lab:
    """One small dataset, and networks from scratch that have two seconds each."""
    monkeypatch.setattr(sources, "open_backbones", lambda context: (blind,))
    monkeypatch.setattr(reference, "MIN_SECONDS", 2.0)
    found = Lab(tmp_path)
    found.store("ds_colours", factories.pictures(EACH))
    return found


def test_auto_serves_the_network_from_scratch_that_is_better(lab):
    done = lab.transfer("ds_colours", "auto")
    report, metrics, spec = done["report"], done["metrics"], done["spec"]
    assert report["verdict"] == report["verdicts"]["vs_scratch"] == "negative", report["verdict_evidence"]
    told = report["fallback"]
    assert told["over"] == "scratch"
    assert told["what"] == report["served"]["what"]
    assert report["served"]["method"] == "scratch"
    # Scored is what is served; the transfer's own accuracy stands beside it.
    assert metrics["test_accuracy"] == report["baselines"]["scratch"]["value"] > told["transfer"]["value"]
    assert report["gain"]["over"] == "scratch"
    assert report["gain"]["value"] == pytest.approx(told["transfer"]["value"] - metrics["test_accuracy"])
    assert sum(np.diag(report["confusion"]["matrix"])) / metrics["num_test"] == pytest.approx(metrics["test_accuracy"])
    # Item by item in the bundle: whoever reads it can pair them himself.
    rows = predicted.read(lab.storage.fetch(f"{done['prefix']}/{bundle.PREDICTIONS}"))
    assert set(rows.baselines) == {"transfer", "frozen"}
    right = {
        name: np.mean([one == label for one, label in zip(named, rows.labels, strict=True)])
        for name, named in {**rows.baselines, "served": rows.predicted}.items()
    }
    assert right["served"] == pytest.approx(metrics["test_accuracy"])
    assert right["frozen"] == pytest.approx(report["baselines"]["frozen"]["value"])
    assert right["transfer"] - right["served"] == pytest.approx(report["gain"]["value"])
    assert report["decisions"][-1]["step"] == "fallback"
    assert report["decisions"][-1]["outcome"] == "served"
    (flag,) = (one for one in report["flags"] if one["code"] == "negative_transfer")
    assert flag["message"].endswith("it is served instead")
    # Seeds apart from items: three draws of the folds, and one network for each hold-out.
    spread = report["seed_deviation"]
    assert spread["transfer"]["num_seeds"] == 3
    assert spread["scratch"]["num_seeds"] == report["details"]["scratch"]["num_holdouts"] > 1
    for row in spread.values():
        assert row["value"] == pytest.approx(np.std(row["scores"], ddof=1))
    # Nothing of the source is in it.
    assert report["mapping"]["mapped"] == 0
    assert {row["what"] for row in report["mapping"]["tensors"]} == {"new", "measured"}
    assert report["feature_distortion"] is report["data"]["exposure"] is None
    assert nulls.unexplained(report) == []
    assert spec["backbone"]["name"].startswith("scratch/")
    assert spec["files"][bundle.BACKBONE]["key"] is None
    assert spec["parity"]["num_samples"] > 0
    assert bundle.STATE not in spec["files"]
    card = lab.storage.fetch(f"{done['prefix']}/README.md").read_text()
    assert "base_model" not in card
    assert "made by transfer learning" not in card
    assert "is served instead" in page.render(report, "job_1")


def test_what_is_published_says_what_was_scored(lab):
    """The bundle's own files, on the test images, against its table of predictions."""
    done = lab.transfer("ds_colours", "auto")
    fetch = lambda name: lab.storage.fetch(f"{done['prefix']}/{name}")  # noqa: E731
    runtime = Runtime(Session(fetch(bundle.BACKBONE), 1), Session(fetch(bundle.HEAD), 1))
    known = predicted.read(fetch(bundle.PREDICTIONS))
    index = load_index(lab.folder / "storage/datasets/default/ds_colours", "datasets/default/ds_colours")
    shape = done["spec"]["inputs"][0]["preprocessing"]
    context = lab.context("transfer", "ds_colours")
    rows = index.rows_of("test")
    assert [name.decode() for name in index.ids[rows]] == known.ids
    served = transfer_factories.cnn().preprocess
    served = replace(served, **{name: tuple(one) if isinstance(one, list) else one for name, one in shape.items()})
    said = np.concatenate(
        [runtime.run(images).probabilities for _, images in features.decoded(context, index, rows, served)]
    )
    np.testing.assert_allclose(said, known.probabilities, atol=1e-4)
    right = [known.labels[row] == known.predicted[row] for row in range(len(rows))]
    assert np.mean(right) == done["metrics"]["test_accuracy"]


@pytest.mark.parametrize(
    ("recipe", "word"),
    [
        ({"method": "auto", "fallback": False}, "`fallback` of the recipe is off"),
        ({"method": "auto", "objective": "macro_f1"}, "maximises macro F1"),
    ],
)
def test_who_asks_for_the_transfer_has_it(lab, recipe, word):
    report = lab.run("transfer", "ds_colours", recipe=recipe)["report"]
    assert report["verdicts"]["vs_scratch"] == "negative"
    assert report["fallback"] is None
    assert word in report["not_computed"]["fallback"]
    assert report["served"]["method"] in ("linear_probe", "few_shot")
    (flag,) = (one for one in report["flags"] if one["code"] == "negative_transfer")
    assert flag["message"].endswith("use the baseline instead")
    assert nulls.unexplained(report) == []


def test_without_time_for_its_graph_the_transfer_stays_and_says_so(lab, monkeypatch):
    monkeypatch.setattr(fallback, "EXPORT_SECONDS", 1e6)
    report = lab.transfer("ds_colours", "auto")["report"]
    assert report["verdicts"]["vs_scratch"] == "negative"
    assert report["fallback"] is None
    assert "raise max_minutes" in report["not_computed"]["fallback"]
    assert (report["decisions"][-1]["step"], report["decisions"][-1]["outcome"]) == ("fallback", "skipped")


def test_a_recipe_without_the_choice_and_a_transfer_that_is_not_worse_say_why(lab, monkeypatch):
    context = lab.context("transfer", "ds_colours", recipe={"method": "linear_probe"}, report_mode="full")
    done = transfer.run(context)
    assert "fallback" not in done["report"]["follow_up"]["fills"]
    report = transfer_factories.whole(context, done)
    assert (report["verdict"], report["fallback"]) == ("negative", None)
    assert "this recipe has no `fallback`" in report["not_computed"]["fallback"]
    monkeypatch.setattr(sources, "open_backbones", lambda context: (transfer_factories.cnn(),))
    report = lab.transfer("ds_colours", "auto")["report"]
    assert "negative" not in report["verdicts"].values()
    assert report["not_computed"]["fallback"] == fallback.NONE_NEGATIVE


def test_fine_tune_falls_back_where_it_was_asked_to(lab):
    recipe = {"scope": "head", "epochs": 1, "fallback": True}
    report = lab.transfer("ds_colours", "fine_tune", recipe=recipe)["report"]
    assert report["verdicts"]["vs_scratch"] == "negative"
    assert (report["fallback"]["over"], report["served"]["method"]) == ("scratch", "scratch")
    plain = lab.transfer("ds_colours", "fine_tune", recipe=recipe | {"fallback": False})["report"]
    assert plain["fallback"] is None
    assert "is off" in plain["not_computed"]["fallback"]


def test_of_several_that_are_better_the_one_by_most_is_returned():
    rows = {
        "vs_frozen": {"verdict": "negative", "difference": -0.1, "low": -0.2, "high": -0.02, "num_samples": 40},
        "vs_scratch": {"verdict": "negative", "difference": -0.3, "low": -0.4, "high": -0.2, "num_samples": 40},
        "vs_source_only": None,
    }
    over, told = fallback.worst(rows)
    assert over == "scratch"
    assert "by 0.300 [0.200, 0.400] on 40 images" in told
    rows["vs_scratch"]["verdict"] = "none"
    assert fallback.worst(rows)[0] == "frozen"
    rows["vs_frozen"]["verdict"] = "positive"
    assert fallback.worst(rows) is None


def test_such_a_version_is_reproduced_as_what_it_is(lab):
    made = lab.transfer("ds_colours", "auto", recipe={"fallback": True})
    original = {"job": "job_1", "model": "m", "version": 1, "prefix": made["prefix"]}
    inputs = {"mode": "reproduce", "original": original}
    recipe = {"method": "auto", "fallback": True}
    found = lab.run("evaluate", "ds_colours", recipe=recipe, inputs=inputs)["result"]
    assert found["served"]["what_now"].startswith("from scratch")
    assert any("time" in note for note in found["notes"])
    assert found["predictions"]["share_equal"] > 0.6
