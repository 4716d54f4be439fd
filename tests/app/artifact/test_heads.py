import numpy as np
import onnx
import pytest
from sklearn.neighbors import KNeighborsClassifier

from app.artifact import graph, heads, scores
from tests.app.onnx_factories import head_reference, head_weights, run, unit_reference


def test_a_head_is_standardisation_then_weights_then_temperature():
    features = np.random.default_rng(2).normal(size=(9, 6)).astype(np.float32)
    found = run(heads.linear(**head_weights()), features=features)
    assert list(found) == ["probabilities"]
    assert found["probabilities"].dtype == np.float32
    np.testing.assert_allclose(found["probabilities"], head_reference(features, **head_weights()), atol=1e-6)


def test_a_head_without_standardisation_is_the_weights_alone():
    weights = head_weights()
    features = np.random.default_rng(3).normal(size=(2, 6)).astype(np.float32)
    found = run(heads.linear(weights["weight_CD"], weights["bias_C"]), features=features)["probabilities"]
    plain = {**weights, "temperature": 1.0, "mean_D": np.zeros(6), "scale_D": np.ones(6)}
    np.testing.assert_allclose(found, head_reference(features, **plain), atol=1e-6)


def test_folding_keeps_precision_when_means_are_far_from_zero():
    weights = {**head_weights(num_features=64), "mean_D": np.full(64, 50.0), "scale_D": np.full(64, 0.5)}
    features = (50 + 0.5 * np.random.default_rng(4).normal(size=(5, 64))).astype(np.float32)
    found = run(heads.linear(**weights), features=features)["probabilities"]
    np.testing.assert_allclose(found, head_reference(features, **weights), atol=2e-3)


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 0.0},
        {"temperature": float("nan")},
        {"scale_D": np.array([1, 1, 0, 1, 1, 1.0])},
        {"scale_D": np.array([1, 1, np.nan, 1, 1, 1.0])},
        {"mean_D": np.zeros(5)},
        {"bias_C": np.zeros(3)},
        {"weight_CD": np.full((4, 6), np.inf)},
        {"weight_CD": np.full((4, 6), 1e39)},
        {"temperature": float("inf")},
        {"weight_CD": np.zeros((0, 6)), "bias_C": np.zeros(0)},
    ],
)
def test_a_head_that_cannot_be_is_refused(change):
    with pytest.raises(ValueError, match="expected"):
        heads.linear(**{**head_weights(), **change})


def test_a_head_is_valid_onnx_of_the_stated_versions():
    model = onnx.load_model_from_string(heads.linear(**head_weights()))
    onnx.checker.check_model(model, full_check=True)
    assert (model.ir_version, model.opset_import[0].version) == (graph.IR_VERSION, graph.OPSET)
    assert [node.op_type for node in model.graph.node] == ["Gemm", "Softmax"]


def test_a_cosine_head_meets_the_centred_feature_of_length_one():
    weights = head_weights()
    features = np.random.default_rng(5).normal(size=(9, 6)).astype(np.float32)
    mean, temperature = weights["mean_D"], weights["temperature"]
    found = run(heads.cosine(weights["weight_CD"], weights["bias_C"], temperature, mean), features=features)
    plain = {**weights, "mean_D": np.zeros(6), "scale_D": np.ones(6)}
    expected = head_reference(unit_reference(features, mean), **plain)
    np.testing.assert_allclose(found["probabilities"], expected, atol=1e-6)


def test_a_feature_without_direction_has_no_favourite_but_the_bias():
    weight, bias = np.eye(3), np.array([0.0, 1.0, 0.0])
    mean = np.array([1.0, 2.0, 3.0], np.float32)
    found = run(heads.cosine(weight, bias, 1.0, mean), features=mean[None])["probabilities"][0]
    np.testing.assert_allclose(found, np.exp(bias) / np.exp(bias).sum(), atol=1e-6)


def test_a_cosine_head_is_valid_onnx():
    model = onnx.load_model_from_string(heads.cosine(np.eye(3), np.zeros(3), 1.0, np.zeros(3)))
    onnx.checker.check_model(model, full_check=True)


@pytest.mark.parametrize("mean", [np.zeros(4), np.array([0.0, np.nan, 0.0])])
def test_a_cosine_head_wants_a_finite_mean_of_the_features_width(mean):
    with pytest.raises(ValueError, match="finite mean"):
        heads.cosine(np.eye(3), np.zeros(3), 1.0, mean)


def support(num=12, num_classes=3, width=6, seed=6):
    rng = np.random.default_rng(seed)
    mean = rng.normal(size=width).astype(np.float32)
    found = np.array(unit_reference(rng.normal(size=(num, width)), np.zeros(width)), np.float32)
    return found, rng.integers(0, num_classes, num), mean


@pytest.mark.parametrize("num_neighbours", [1, 3, 11])
def test_neighbours_vote_by_how_much_nearer_they_are_than_the_next(num_neighbours):
    found, labels, mean = support()
    features = np.random.default_rng(7).normal(size=(9, 6)).astype(np.float32)
    expected = np.zeros((9, 3))
    for row, unit in enumerate(unit_reference(features, mean)):
        near = sorted(((sum(a * b for a, b in zip(unit, item, strict=True)), place) for place, item in
                       enumerate(found)), reverse=True)[: num_neighbours + 1]  # fmt: skip
        for similarity, place in near[:-1]:
            expected[row, labels[place]] += similarity - near[-1][0]
    logits = scores.neighbours(features, found, labels, mean, num_neighbours, 3)
    np.testing.assert_allclose(logits, expected, atol=1e-6)
    served = run(heads.neighbours(found, labels, num_neighbours, 3, 0.2, mean), features=features)["probabilities"]
    np.testing.assert_allclose(served, scores.softmax(logits / 0.2), atol=1e-5)


def test_neighbours_are_those_of_scikit_learn():
    found, labels, mean = support(num=60, num_classes=5)
    features = np.random.default_rng(8).normal(size=(40, 6)).astype(np.float32)
    for k in (1, 4, 15):
        # The one after the last gets weight 0 and so no vote.
        known = KNeighborsClassifier(k + 1, metric="cosine", weights=lambda far: far[:, -1:] - far)
        known.fit(found, labels)
        logits = scores.neighbours(features, found, labels, mean, k, 5)
        shares = logits / logits.sum(1, keepdims=True)
        np.testing.assert_allclose(shares, known.predict_proba(features - mean), atol=1e-5)


def test_neighbours_of_many_images_are_the_same_in_pieces(monkeypatch):
    found, labels, mean = support(num=50)
    features = np.random.default_rng(9).normal(size=(23, 6)).astype(np.float32)
    whole = scores.neighbours(features, found, labels, mean, 5, 3)
    monkeypatch.setattr(scores, "CHUNK_ELEMENTS", 200)
    np.testing.assert_allclose(scores.neighbours(features, found, labels, mean, 5, 3), whole, atol=1e-12)


def test_a_neighbours_head_is_valid_onnx():
    found, labels, mean = support()
    model = onnx.load_model_from_string(heads.neighbours(found, labels, 3, 3, 0.1, mean))
    onnx.checker.check_model(model, full_check=True)


@pytest.mark.parametrize(
    "change",
    [
        {"num_neighbours": 12}, {"num_neighbours": 0}, {"temperature": 0.0}, {"temperature": float("nan")},
        {"labels_S": np.full(12, 3)}, {"labels_S": np.full(12, -1)}, {"labels_S": np.zeros(11, int)},
        {"mean_D": np.zeros(5)}, {"mean_D": np.full(6, np.nan)}, {"support_SD": np.full((12, 6), np.inf)},
    ],
)  # fmt: skip
def test_a_neighbours_head_that_cannot_be_is_refused(change):
    found, labels, mean = support()
    given = {"support_SD": found, "labels_S": labels, "num_neighbours": 3, "num_classes": 3, "temperature": 0.1}
    with pytest.raises(ValueError, match="expected"):
        heads.neighbours(**{**given, "mean_D": mean, **change})


def test_stored_arrays_say_what_the_graph_says():
    features = np.random.default_rng(10).normal(size=(5, 6)).astype(np.float32)
    given = head_weights()
    arrays = {name.partition("_")[0]: np.asarray(value) for name, value in given.items() if name != "temperature"}
    temperature, weight, bias = given["temperature"], given["weight_CD"], given["bias_C"]
    found, labels, mean = support()
    sizes = {"sizes": np.array([3, 3])}
    for kind, tensors, head in (
        ("linear", arrays, heads.linear(**given)),
        ("linear", {"weight": weight, "bias": bias}, heads.linear(weight, bias, temperature)),
        ("cosine", arrays, heads.cosine(weight, bias, temperature, given["mean_D"])),
        ("neighbours", {"support": found, "labels": labels, "mean": mean, **sizes},
         heads.neighbours(found, labels, 3, 3, temperature, mean)),
    ):  # fmt: skip
        said = run(head, features=features)["probabilities"]
        np.testing.assert_allclose(scores.probabilities(kind, tensors, temperature, features), said, atol=1e-5)


def text_weights(num_known=7, num_features=6, width=5, num_classes=3):
    numbers = np.random.default_rng(11)
    return {
        "known_KD": numbers.normal(size=(num_known, num_features)),
        "bias_K": numbers.normal(size=num_known),
        "vectors_KE": numbers.normal(size=(num_known, width)),
        "classes_CE": numbers.normal(size=(num_classes, width)),
        "top": 3,
        "rows": (numbers.normal(size=(num_classes, num_features)), numbers.normal(size=num_features)),
    }


def text_reference(features, known_KD, bias_K, vectors_KE, classes_CE, top, rows):
    """Image by image and class by class."""
    found = []
    for feature in features.astype(float):
        likely = np.exp(known_KD @ feature + bias_K)
        likely /= likely.sum()
        meaning = sum(likely[k] * vectors_KE[k] for k in sorted(range(len(likely)), key=lambda k: -likely[k])[:top])
        meaning = meaning / np.linalg.norm(meaning)
        scores = []
        for number, vector in enumerate(classes_CE):
            score = meaning @ vector
            if rows is not None:
                centred = feature - rows[1]
                score += rows[0][number] @ centred / np.linalg.norm(centred)
            scores.append(score)
        found.append(np.exp(scores) / np.exp(scores).sum())
    return np.array(found)


@pytest.mark.parametrize("with_rows", [False, True])
def test_a_text_head_mixes_the_likeliest_known_classes(with_rows):
    weights = text_weights() if with_rows else {**text_weights(), "rows": None}
    features = np.random.default_rng(12).normal(size=(9, 6)).astype(np.float32)
    found = run(heads.text(**weights), features=features)["probabilities"]
    np.testing.assert_allclose(found, text_reference(features, **weights), atol=1e-5)


@pytest.mark.parametrize(
    "change",
    [
        {"top": 0},
        {"top": 8},
        {"vectors_KE": np.zeros((6, 5))},
        {"classes_CE": np.zeros((3, 4))},
        {"classes_CE": np.full((3, 5), np.nan)},
        {"rows": (np.zeros((2, 6)), np.zeros(6))},
        {"rows": (np.zeros((3, 6)), np.zeros(5))},
    ],
)
def test_a_text_head_that_cannot_be_is_refused(change):
    with pytest.raises(ValueError, match="expected"):
        heads.text(**{**text_weights(), **change})


def network_weights():
    generator = np.random.default_rng(7)
    return {
        "hidden_HD": generator.normal(size=(5, 6)), "hidden_H": generator.normal(size=5),
        "weight_CH": generator.normal(size=(4, 5)), "bias_C": generator.normal(size=4), "temperature": 1.7,
        "mean_D": generator.normal(size=6), "scale_D": np.exp(generator.normal(size=6)),
    }  # fmt: skip


def test_a_network_head_is_two_layers_with_a_rectifier_between():
    weights = network_weights()
    features = np.random.default_rng(8).normal(size=(9, 6)).astype(np.float32)
    standard = (features - weights["mean_D"]) / weights["scale_D"]
    hidden = np.maximum(standard @ weights["hidden_HD"].T + weights["hidden_H"], 0)
    scores = (hidden @ weights["weight_CH"].T + weights["bias_C"]) / weights["temperature"]
    expected = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    graph_bytes = heads.network(**weights)
    np.testing.assert_allclose(run(graph_bytes, features=features)["probabilities"], expected, atol=1e-6)
    model = onnx.load_model_from_string(graph_bytes)
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == ["Gemm", "Relu", "Gemm", "Softmax"]


@pytest.mark.parametrize("change", [{"weight_CH": np.zeros((4, 6))}, {"scale_D": np.zeros(6)}, {"temperature": -1.0}])
def test_a_network_head_that_cannot_be_is_refused(change):
    with pytest.raises(ValueError, match="expected"):
        heads.network(**{**network_weights(), **change})
