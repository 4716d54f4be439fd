"""Graphs in 8 bits and half precision: made on training images, compared on others, published by their interval."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from app import recipes
from app.artifact import bundle, foreign, heads
from app.artifact.precisions import FP16, INT8, SECOND, WORDS
from app.artifact.spec import load as load_spec
from app.serving import stored, trial
from app.serving.runtime import Session
from tests import factories
from tests.conftest import COMPUTE_THREADS
from tests.worker import transfer_factories
from tests.worker.transfer_factories import Wire, cnn, context, store
from worker.attempt import machine
from worker.backbones.probes import probe_images
from worker.contract.candidate import Selection
from worker.contract.outcome import Outcome
from worker.methods import few_shot, linear_probe
from worker.publication import assemble, calibration, second_graph
from worker.publication.second_graph import MAKERS
from worker.reports import report
from worker.training import probing

NUM_OF_CLASS = 250
MAKERS_BEFORE = dict(MAKERS)
FIGURES = {
    "accuracy_change", "accuracy_change_low", "accuracy_change_high", "num_samples", "what", "num_calibration",
    "size_bytes", "float_size_bytes", "latency_ratio_alone", "latency_ratio_batch", "machine", "same",
}  # fmt: skip


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    """Enough pictures for an interval that is narrow enough, on a small network."""
    folder = tmp_path_factory.mktemp("second")
    made = context(folder, Wire())
    archive = folder / "colours.zip"
    archive.write_bytes(factories.pack(factories.pictures(NUM_OF_CLASS)))
    store(made, archive)
    return transfer_factories.task(made, cnn())


@pytest.fixture(scope="module")
def probe(task):
    return linear_probe.run(recipes.LinearProbe(), task)


@pytest.fixture(scope="module")
def judged(task, probe):
    return second_graph.judge(task, probe, SECOND)


def apart(task, folder):
    """The same task in a scratch of its own: what is made there replaces no graph that `judged` is of."""
    return replace(task, context=replace(task.context, scratch=folder))


def blank(rows):
    """Logits that are nobody's."""
    return np.zeros((len(rows), len(factories.COLOURS)))


@pytest.mark.parametrize("precision", SECOND)
def test_it_is_published_where_nothing_changes(judged, task, probe, precision):
    judged = judged[precision]
    assert judged.report["published"], judged.report
    assert judged.report.keys() == FIGURES | {"published", "reason"}
    assert judged.report["accuracy_change_low"] >= -second_graph.MARGIN
    assert second_graph.MIN_ITEMS <= judged.report["num_samples"] <= len(task.pool)
    assert judged.report["what"] == "out of 5 folds"
    assert judged.report["num_calibration"] == second_graph.CALIBRATION_IMAGES
    assert judged.described.size_bytes == judged.graph.stat().st_size < probe.graph.stat().st_size
    assert judged.described.latency_ratio_alone > 0


@pytest.mark.parametrize(
    ("precision", "weight", "off"), [(INT8, onnx.TensorProto.INT8, 0.2), (FP16, onnx.TensorProto.FLOAT16, 0.01)]
)
def test_the_graph_is_one_that_an_import_takes_and_says_nearly_the_same(judged, probe, precision, weight, off):
    graph = judged[precision].graph
    foreign.check_importable(graph)
    kinds = [node.op_type for node in onnx.load(graph).graph.node]
    assert ("QuantizeLinear" in kinds) == (precision == INT8)
    weights = [tensor.data_type for tensor in onnx.load(graph).graph.initializer]
    assert weight in weights
    images = probe_images(probe.backbone.preprocess)
    whole, small = (Session(path).run(images)[0] for path in (probe.graph, graph))
    assert 0 < np.linalg.norm(whole - small) / np.linalg.norm(whole) < off


@pytest.mark.parametrize("precision", SECOND)
def test_the_same_images_give_the_same_bytes(tmp_path, probe, precision):
    images = probe_images(probe.backbone.preprocess)
    for name in ("a", "b"):
        MAKERS[precision](probe.graph, [images[:8], images[8:]], tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_graph_in_8_bits_is_calibrated_on_training_images(tmp_path, task, probe, monkeypatch):
    seen = []
    decoded = second_graph.features.decoded

    def noting(context, index, rows, shape):
        seen.append(rows)
        return decoded(context, index, rows, shape)

    monkeypatch.setattr(second_graph.features, "decoded", noting)
    number, graph = second_graph._make(task, probe, INT8, tmp_path / "own.onnx")
    (rows,) = seen
    assert number == len(set(rows)) == second_graph.CALIBRATION_IMAGES
    assert set(rows) <= set(task.train)
    # Each class in its share.
    assert np.ptp(np.bincount(task.labels_N[rows])) <= 1
    others = replace(task, train=np.setdiff1d(task.train, rows))
    _, other = second_graph._make(others, probe, INT8, tmp_path / "other.onnx")
    assert graph.read_bytes() != other.read_bytes()


@pytest.mark.parametrize("precision", SECOND)
def test_a_graph_without_weights_has_nothing_to_convert(tmp_path, precision):
    (tmp_path / "head.onnx").write_bytes(heads.linear(np.eye(3), np.zeros(3)))
    model = onnx.load(tmp_path / "head.onnx")
    kept = [node for node in model.graph.node if node.op_type not in calibration.WEIGHTED]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    (tmp_path / "bare.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match="with weights; found none"):
        MAKERS[precision](tmp_path / "bare.onnx", [], tmp_path / "out.onnx")


@pytest.mark.parametrize("precision", SECOND)
def test_a_graph_that_says_something_else_is_not_published(task, probe, monkeypatch, tmp_path, precision):
    """What is made is a sound graph, of which nothing but its answers tells that it is of no use."""

    def broken(graph, batches, target):
        model = onnx.load(MAKERS_BEFORE[precision](graph, batches, target))
        for tensor in model.graph.initializer:
            values = onnx.numpy_helper.to_array(tensor)
            if values.ndim > 1 and values.dtype != np.int64:
                tensor.CopyFrom(onnx.numpy_helper.from_array(np.zeros_like(values), tensor.name))
        onnx.save(model, target)
        return target

    monkeypatch.setitem(MAKERS, precision, broken)
    found = second_graph.judge(apart(task, tmp_path), probe, [precision])[precision]
    assert not found.report["published"]
    assert (found.graph, found.described) == (None, None)
    assert found.report["accuracy_change_high"] < -second_graph.MARGIN


def test_a_head_that_leans_on_what_rounding_changes_is_not_published(task, probe, tmp_path):
    """Labels by chance: margins are thin, answers change sides, and the interval is wide."""
    # By this chance rounding costs about a hundredth; by others it gains as much, and the interval just holds the loss.
    chance = np.random.default_rng(2)
    labels_N = np.where(task.labels_N >= 0, chance.integers(0, task.num_classes, len(task.labels_N)), -1)
    harmed = replace(apart(task, tmp_path), labels_N=labels_N)
    found = second_graph.judge(harmed, probe, [INT8])[INT8]
    assert not found.report["published"]
    assert (found.graph, found.described) == (None, None)
    assert found.report["accuracy_change_low"] < -second_graph.MARGIN
    assert "does not rule out a loss of 0.01" in found.report["reason"]
    assert found.report["same"] < 1


def test_features_that_are_no_numbers_name_nothing(task, probe):
    rows = task.pool[:4]
    feats_ND = np.array(probe.features(rows))
    heads = [(np.ones(4, np.bool_), probe.head)]
    assert second_graph._right(task, rows, heads, feats_ND).all()
    feats_ND[1, 0], feats_ND[2, -1] = np.inf, np.nan
    np.testing.assert_array_equal(second_graph._right(task, rows, heads, feats_ND), [True, False, False, True])


def test_too_few_pictures_are_told_before_anything_is_made(task, probe):
    few = replace(task, pool=task.pool[: second_graph.MIN_ITEMS - 1])
    found, other = (second_graph.judge(few, probe, SECOND)[precision] for precision in SECOND)
    assert found == other
    assert found.report.keys() == {"published", "num_samples", "reason"}
    assert not found.report["published"]
    # Copies of one picture count once.
    assert found.report["num_samples"] < second_graph.MIN_ITEMS
    assert f"fewer than {second_graph.MIN_ITEMS} no interval is narrow enough" in found.report["reason"]


def test_the_least_number_of_pictures_is_the_least_that_can_pass():
    from worker.scores.intervals import paired_difference

    def low(number):
        right = np.ones(number, np.bool_)
        return paired_difference(right, right).low

    assert low(second_graph.MIN_ITEMS) >= -second_graph.MARGIN > low(second_graph.MIN_ITEMS - 1)


def test_a_head_that_cannot_be_fitted_again_is_compared_on_what_it_has_not_seen(task, probe, tmp_path):
    task, rows = apart(task, tmp_path), task.pool
    own = Selection(rows, probe.head.logits(probe.features(rows)), "a hold-out")
    items = second_graph._items(task, replace(probe, refit=None, selection=own))
    assert (items.what, items.refits) == ("a hold-out", False)
    others = Selection(rows, blank(rows), "a hold-out")
    assert (
        "not known here"
        in second_graph.judge(task, replace(probe, refit=None, selection=others), [FP16])[FP16].report["reason"]
    )
    unlabelled = replace(task, labels_N=np.full_like(task.labels_N, -1))
    found = second_graph.judge(unlabelled, replace(probe, refit=None, selection=others), [FP16])[FP16]
    assert "no labelled images" in found.report["reason"]


@pytest.mark.parametrize("solver", ["logistic", "ridge"])
def test_the_probe_is_fitted_again_as_it_was_chosen(task, probe, solver):
    rows = task.pool
    details = {**probe.details, "solver": solver, "strength": 1.0}
    again = probing.refit(probe.features(rows), task.labels_N[rows], task.num_classes, details)
    assert (again.logits(probe.features(rows)).argmax(1) == task.labels_N[rows]).mean() > 0.95


def test_a_few_shot_head_is_fitted_again_as_it_was_chosen(task):
    candidate = few_shot.run(recipes.FewShot(), task).candidate
    rows = task.pool
    again = candidate.refit(candidate.features(rows), task.labels_N[rows])
    whole = candidate.head.logits(candidate.features(rows))
    np.testing.assert_array_equal(again.logits(candidate.features(rows)).argmax(1), whole.argmax(1))


def test_the_bundle_has_all_and_its_sample_knows_all(task, probe, judged):
    evaluation = report.evaluate(task, Outcome(probe), task.index.rows_of("test"), compare=False, made=None)
    written, _ = assemble.bundle(task, probe, evaluation, [], judged)
    folder = assemble.folder(task.context)
    found = bundle.verify(folder, {bundle.BACKBONE: probe.graph})
    assert (found.spec_version, found.second) == (3, {name: one.described for name, one in judged.items()})
    assert {written.files[name].key for name in bundle.SECOND.values()} == {None}
    assert load_spec((folder / bundle.SPEC).read_bytes()) == found
    for name in SECOND:
        assert f"`backbone.{name}.onnx` is the backbone in {WORDS[name]}" in (folder / bundle.README).read_text()
    assemble.store(task.context, probe, written)
    served = stored.version(task.context.storage, task.context.document.bundle_prefix, written)
    others = [stored.second(task.context.storage, task.context.document.bundle_prefix, served, one) for one in SECOND]
    for model in (served, *others):
        trials = trial.Trials()
        trials.check(model, model.backbone.open(COMPUTE_THREADS), model.head.open(1))
        assert trials.passed(model)
    kept = served.sample()
    assert (len(kept.pictures), kept.training) == (2, True)
    for features_KD in kept.second.values():
        assert 0 < np.abs(kept.said.features_KD - features_KD).max() < 0.2 * np.abs(kept.said.features_KD).max()
    assert len(set(kept.said.scores_KC.argmax(1))) == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model name\t: A Chip\nflags\t\t: sse avx512_vnni\n", "A Chip (avx512_vnni)"),
        ("model name\t: An Old Chip\nflags\t\t: sse avx2\n", "An Old Chip (no instructions for 8-bit products known)"),
        ("Features\t: fp asimddp\n", "(asimddp)"),
    ],
)
def test_the_machine_is_named_with_what_it_has(tmp_path, text, words):
    (tmp_path / "cpuinfo").write_text(text)
    assert machine.describe(tmp_path / "cpuinfo").endswith(words)
    assert bool(machine.dot_products(tmp_path / "cpuinfo")) == ("no instructions" not in words)
    assert machine.dot_products(Path("/nowhere")) == []
