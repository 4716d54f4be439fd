import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from app.artifact import graph, heads, scores, surgery
from tests.app.onnx_factories import head_reference, head_weights, run, unit_reference

NEW = np.random.default_rng(20).normal(size=(5, 6)).astype(np.float32) + 1
PROBES = np.random.default_rng(21).normal(size=(9, 6)).astype(np.float32)


def linear():
    given = head_weights()
    arrays = {name.partition("_")[0]: np.asarray(value, np.float32) for name, value in given.items()}
    return heads.linear(**given), {name: arrays[name] for name in ("weight", "bias", "mean", "scale")}, given


def test_a_linear_head_gets_a_row_as_long_as_the_others():
    head, arrays, given = linear()
    grown = surgery.add_class("linear", head, arrays, given["temperature"], NEW)
    assert grown.how == "imprinted"
    standard = [[(x - m) / s for x, m, s in zip(row, arrays["mean"], arrays["scale"], strict=True)] for row in NEW]
    direction = np.mean(unit_reference(standard, np.zeros(6)), 0)
    row = direction / np.linalg.norm(direction) * np.mean([np.linalg.norm(other) for other in arrays["weight"]])
    np.testing.assert_allclose(grown.tensors["weight"][-1], row, atol=1e-5)
    assert grown.tensors["bias"][-1] == pytest.approx(arrays["bias"].mean())
    changed = {**given, "weight_CD": np.vstack([given["weight_CD"], row]),
               "bias_C": np.append(given["bias_C"], given["bias_C"].mean())}  # fmt: skip
    found = run(grown.graph, features=PROBES)["probabilities"]
    np.testing.assert_allclose(found, head_reference(PROBES, **changed), atol=1e-5)


def cosine(spread=None):
    given = head_weights()
    arrays = {"weight": given["weight_CD"].astype(np.float32), "bias": given["bias_C"].astype(np.float32),
              "mean": given["mean_D"].astype(np.float32)}  # fmt: skip
    if spread is not None:
        arrays["spread"] = np.array([spread], np.float32)
    return heads.cosine(given["weight_CD"], given["bias_C"], 0.3, given["mean_D"]), arrays


def test_a_head_of_centroids_gets_the_mean_under_its_stored_centre():
    head, arrays = cosine(spread=0.4)
    grown = surgery.add_class("cosine", head, arrays, 0.3, NEW)
    assert grown.how == "centroid"
    mean = np.mean(unit_reference(NEW, arrays["mean"]), 0)
    np.testing.assert_allclose(grown.tensors["weight"][-1], mean, atol=1e-6)
    assert grown.tensors["bias"][-1] == pytest.approx(-(mean @ mean - 0.4 / 5) / 2, abs=1e-6)
    np.testing.assert_array_equal(grown.tensors["mean"], arrays["mean"])


def test_other_cosine_heads_are_imprinted():
    head, arrays = cosine()
    grown = surgery.add_class("cosine", head, arrays, 0.3, NEW)
    assert grown.how == "imprinted"
    lengths = np.linalg.norm(grown.tensors["weight"], axis=1)
    assert lengths[-1] == pytest.approx(lengths[:-1].mean(), rel=1e-5)


def neighbours():
    rng = np.random.default_rng(22)
    support = scores.unit(rng.normal(size=(8, 6))).astype(np.float32)
    labels, mean = rng.integers(0, 3, 8), rng.normal(size=6).astype(np.float32)
    arrays = {"support": support, "labels": labels, "mean": mean, "sizes": np.array([3, 3])}
    return heads.neighbours(support, labels, 3, 3, 0.3, mean), arrays


def test_neighbours_get_more_of_them():
    head, arrays = neighbours()
    grown = surgery.add_class("neighbours", head, arrays, 0.3, NEW)
    assert grown.tensors["support"].shape == (13, 6)
    assert list(grown.tensors["labels"][-5:]) == [3] * 5
    # Each of the new images is closest to itself.
    assert list(run(grown.graph, features=NEW)["probabilities"].argmax(1)) == [3] * 5


@pytest.mark.parametrize("kind", surgery.KINDS)
def test_graph_and_arrays_agree_and_all_else_stays(kind):
    head, arrays = {"linear": lambda: linear()[:2], "cosine": cosine, "neighbours": neighbours}[kind]()
    temperature = 1.7 if kind == "linear" else 0.3
    grown = surgery.add_class(kind, head, arrays, temperature, NEW)
    after = onnx.load_model_from_string(grown.graph)
    onnx.checker.check_model(after, full_check=True)
    num_classes = onnx.load_model_from_string(head).graph.output[0].type.tensor_type.shape.dim[-1].dim_value
    assert after.graph.output[0].type.tensor_type.shape.dim[-1].dim_value == num_classes + 1
    said = run(grown.graph, features=PROBES)["probabilities"]
    np.testing.assert_allclose(scores.probabilities(kind, grown.tensors, temperature, PROBES), said, atol=1e-5)
    before = {item.name: numpy_helper.to_array(item) for item in onnx.load_model_from_string(head).graph.initializer}
    for item in after.graph.initializer:
        old, new = before[item.name], numpy_helper.to_array(item)
        kept = new[tuple(slice(0, length) for length in old.shape)]
        assert item.name == "num_classes" or np.array_equal(kept, old), f"{item.name} changed"


def test_what_has_no_place_for_a_class_is_refused():
    head, arrays = cosine()
    with pytest.raises(ValueError, match="found text"):
        surgery.add_class("text", head, arrays, 1.0, NEW)
    with pytest.raises(ValueError, match="constant 'rows'"):
        graph.grow_head(head, {"rows": lambda old: old})
