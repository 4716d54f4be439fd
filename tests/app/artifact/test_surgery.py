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


def test_rows_made_from_words_get_a_level_bias():
    head, arrays = cosine()
    grown = surgery.add_class("cosine", head, arrays, 0.3, NEW, from_words=True)
    unit, weight = np.array(unit_reference(NEW, arrays["mean"])), arrays["weight"].astype(float)
    expected = level_reference(unit, weight, arrays["bias"])
    np.testing.assert_allclose(grown.tensors["bias"][-1], expected, atol=1e-5)
    # A single image knows of no other that it should be met by: its class is cautious, not grasping.
    alone = surgery.add_class("cosine", head, arrays, 0.3, NEW[:1], from_words=True)
    old, new = np.split(np.array([unit[0] @ row + b for row, b in zip(
        alone.tensors["weight"].astype(float), alone.tensors["bias"], strict=True)]), [4])  # fmt: skip
    first, second = sorted(old, reverse=True)[:2]
    assert new[0] == pytest.approx(first + (first - second) / 2, abs=1e-5)


def level_reference(given_MD, weight_CD, bias_C):
    """The mean over images of: best other score and half its margin, less the score under the other images' row."""
    length, found = np.mean([np.linalg.norm(row) for row in weight_CD]), []
    for place, given in enumerate(given_MD):
        rest = [other / np.linalg.norm(other) for index, other in enumerate(given_MD) if index != place]
        direction = np.mean(rest, 0)
        first, second = sorted((given @ row + b for row, b in zip(weight_CD, bias_C, strict=True)), reverse=True)[:2]
        found.append(first + (first - second) / 2 - length * given @ direction / np.linalg.norm(direction))
    return np.mean(found)


def network():
    rng = np.random.default_rng(23)
    shapes = {"hidden.weight": (7, 6), "hidden.bias": (7,), "weight": (3, 7), "bias": (3,), "mean": (6,)}
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    arrays["scale"] = rng.uniform(0.5, 2, 6).astype(np.float32)
    head = heads.network(
        arrays["hidden.weight"], arrays["hidden.bias"], arrays["weight"], arrays["bias"], 0.3, arrays["mean"],
        arrays["scale"],
    )  # fmt: skip
    return head, arrays


def test_a_network_gets_a_row_over_its_hidden_units():
    head, arrays = network()
    grown = surgery.add_class("network", head, arrays, 0.3, NEW)
    standard = (NEW - arrays["mean"]) / arrays["scale"]
    hidden = [[max(unit @ x + b, 0) for unit, b in zip(arrays["hidden.weight"], arrays["hidden.bias"], strict=True)]
              for x in standard]  # fmt: skip
    direction = np.mean([row / np.linalg.norm(row) for row in hidden], 0)
    length = np.mean([np.linalg.norm(row) for row in arrays["weight"]])
    np.testing.assert_allclose(grown.tensors["weight"][-1], direction / np.linalg.norm(direction) * length, atol=1e-5)
    expected = level_reference(np.array(hidden), arrays["weight"].astype(float), arrays["bias"])
    np.testing.assert_allclose(grown.tensors["bias"][-1], expected, atol=1e-4)


def words(rows=True):
    rng = np.random.default_rng(24)
    known, bias, vectors, classes, made, mean = (
        rng.normal(size=shape).astype(np.float32) for shape in ((9, 6), (9,), (9, 4), (3, 4), (3, 6), (6,))
    )
    head = heads.text(known, bias, vectors, classes, 3, (made, mean) if rows else None)
    arrays = {"classes": classes, "rows": made, "mean": mean} if rows else {"classes": classes}
    return head, arrays, known, bias, vectors


@pytest.mark.parametrize("rows", [True, False])
def test_a_text_head_gets_what_its_classifier_makes_of_the_images(rows):
    head, arrays, known, bias, vectors = words(rows)
    grown = surgery.add_class("text", head, arrays, 1.0, NEW)
    meanings = []
    for logits in NEW @ known.T + bias:
        powers = np.exp(logits - max(logits))
        mixed = sum(powers[place] * vectors[place] for place in sorted(range(9), key=lambda at: -logits[at])[:3])
        meanings.append(mixed / np.linalg.norm(mixed))
    direction = np.mean(meanings, 0)
    length = np.mean([np.linalg.norm(row) for row in arrays["classes"]])
    np.testing.assert_allclose(grown.tensors["classes"][-1], direction / np.linalg.norm(direction) * length, atol=1e-5)
    assert not rows or not grown.tensors["rows"][-1].any()


KINDS = {
    "linear": lambda: linear()[:2], "cosine": cosine, "neighbours": neighbours, "network": network,
    "text": lambda: words()[:2],
}  # fmt: skip
TEMPERATURES = {"linear": 1.7, "text": 1.0}


@pytest.mark.parametrize("kind", KINDS)
def test_graph_and_arrays_agree_and_all_else_stays(kind):
    head, arrays = KINDS[kind]()
    temperature = TEMPERATURES.get(kind, 0.3)
    grown = surgery.add_class(kind, head, arrays, temperature, NEW)
    after = onnx.load_model_from_string(grown.graph)
    onnx.checker.check_model(after, full_check=True)
    num_classes = onnx.load_model_from_string(head).graph.output[0].type.tensor_type.shape.dim[-1].dim_value
    assert after.graph.output[0].type.tensor_type.shape.dim[-1].dim_value == num_classes + 1
    said = run(grown.graph, features=PROBES)["probabilities"]
    whole = {**graph.constants(grown.graph), **grown.tensors}
    np.testing.assert_allclose(scores.probabilities(kind, whole, temperature, PROBES), said, atol=1e-5)
    if kind != "neighbours":
        # The old classes share what the new one leaves them as they shared all before.
        of_old = said[:, :num_classes] / said[:, :num_classes].sum(1, keepdims=True)
        np.testing.assert_allclose(of_old, run(head, features=PROBES)["probabilities"], atol=1e-5)
    before = {item.name: numpy_helper.to_array(item) for item in onnx.load_model_from_string(head).graph.initializer}
    for item in after.graph.initializer:
        old, new = before[item.name], numpy_helper.to_array(item)
        kept = new[tuple(slice(0, length) for length in old.shape)]
        assert item.name == "num_classes" or np.array_equal(kept, old), f"{item.name} changed"


def test_a_graph_without_the_constant_is_refused():
    with pytest.raises(ValueError, match="constant 'rows'"):
        graph.grow_head(cosine()[0], {"rows": lambda old: old})
