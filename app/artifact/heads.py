"""Heads as ONNX graphs, made from their weights without torch: `features` [N, D] -> `probabilities` [N, C].

There is no `logits` output: the logarithm of a probability is the calibrated logit up to one constant per image, and a
second output would be a second contract.

Shape legend: N images, D features, C classes, S support images.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from app.artifact.graph import IR_VERSION, OPSET, serialise

FEATURES, PROBABILITIES = "features", "probabilities"


def fold(
    weight_CD: ArrayLike, bias_C: ArrayLike, temperature: float, mean_D: ArrayLike | None, scale_D: ArrayLike | None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Puts standardisation and temperature into the map: `(W ((x - mean) / scale) + b) / T` as one `W' x + b'`.

    Computed in float64: `b - W mean/scale` cancels where a feature's mean is many times its scale.

    Shape:
        weight_CD: [C, D]
        bias_C: [C]
        mean_D: [D], or None for 0
        scale_D: [D], or None for 1
        result: [C, D], [C]

    Raises:
        ValueError: shapes that do not fit, a number that is not finite, or a scale or temperature that is not positive.
    """
    weight = np.asarray(weight_CD, dtype=np.float64)
    bias = np.asarray(bias_C, dtype=np.float64)
    if weight.ndim != 2 or bias.shape != weight.shape[:1] or not weight.size:
        raise ValueError(f"expected weights [C, D] and bias [C]; found {weight.shape} and {bias.shape}")
    num_features = weight.shape[1]
    mean = np.zeros(num_features) if mean_D is None else np.asarray(mean_D, dtype=np.float64)
    scale = np.ones(num_features) if scale_D is None else np.asarray(scale_D, dtype=np.float64)
    if mean.shape != (num_features,) or scale.shape != (num_features,):
        raise ValueError(f"expected mean and scale [{num_features}]; found {mean.shape} and {scale.shape}")
    if not (scale > 0).all() or not temperature > 0:
        raise ValueError("expected positive scales and temperature; give 1 for a feature that does not vary")
    if not all(np.isfinite(array).all() for array in (weight, bias, mean, scale, temperature)):
        raise ValueError("expected finite numbers in the head; found NaN or infinity")
    with np.errstate(over="ignore"):
        scaled = weight / scale
        folded_CD = (scaled / temperature).astype(np.float32)
        folded_C = ((bias - scaled @ mean) / temperature).astype(np.float32)
    if not (np.isfinite(folded_CD).all() and np.isfinite(folded_C).all()):
        raise ValueError("expected a head that fits float32; found an overflow; are scales or temperature near zero?")
    return folded_CD, folded_C


def linear(
    weight_CD: ArrayLike,
    bias_C: ArrayLike,
    temperature: float = 1.0,
    mean_D: ArrayLike | None = None,
    scale_D: ArrayLike | None = None,
) -> bytes:
    """A linear head: one Gemm and one Softmax.

    Shape:
        weight_CD: [C, D]
        bias_C: [C]
        mean_D: [D]
        scale_D: [D]

    Raises:
        ValueError: as in `fold`.
    """
    weight, bias = fold(weight_CD, bias_C, temperature, mean_D, scale_D)
    return _softmax_of_gemm([], FEATURES, weight, bias, {})


def cosine(weight_CD: ArrayLike, bias_C: ArrayLike, temperature: float, mean_D: ArrayLike) -> bytes:
    """A head whose rows meet the centred feature of length 1: nearest centroid, or rows made from text.

    `softmax((W (x - mean) / |x - mean| + b) / T)`; a feature that equals the mean has length 0 and stays 0.

    Shape:
        weight_CD: [C, D]
        bias_C: [C]
        mean_D: [D]

    Raises:
        ValueError: as in `fold`.
    """
    weight, bias = fold(weight_CD, bias_C, temperature, None, None)
    mean = np.asarray(mean_D, np.float32)
    if mean.shape != (weight.shape[1],) or not np.isfinite(mean).all():
        raise ValueError(f"expected a finite mean [{weight.shape[1]}]; found {mean.shape}")
    return _softmax_of_gemm(_unit_nodes(), "unit", weight, bias, {"mean": mean})


def neighbours(
    support_SD: ArrayLike,
    labels_S: ArrayLike,
    num_neighbours: int,
    num_classes: int,
    temperature: float,
    mean_D: ArrayLike,
) -> bytes:
    """A head that lets the nearest support images vote, as `scores.neighbours` says it.

    Shape:
        support_SD: [S, D], centred by the mean and of length 1; more than `num_neighbours`
        labels_S: [S]
        mean_D: [D]

    Raises:
        ValueError: shapes or labels that do not fit, too few support images, or a temperature that is not positive.
    """
    from onnx import helper

    support, labels = np.asarray(support_SD, np.float32), np.asarray(labels_S, np.int64)
    mean = np.asarray(mean_D, np.float32)
    if support.ndim != 2 or mean.shape != support.shape[1:] or not np.isfinite(support).all():
        raise ValueError(f"expected finite support [S, D] and mean [D]; found {support.shape} and {mean.shape}")
    if labels.shape != support.shape[:1] or not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
        raise ValueError(f"expected {len(support)} labels under {num_classes}; found {labels.shape}, {labels.max()}")
    if not 1 <= num_neighbours < len(support) or not temperature > 0 or not np.isfinite(mean).all():
        raise ValueError(
            f"expected fewer neighbours than the {len(support)} support images, a positive temperature and a finite "
            f"mean; found {num_neighbours} and {temperature}"
        )
    k = num_neighbours
    nodes = [
        *_unit_nodes(),
        helper.make_node("MatMul", ["unit", "support"], ["similarity"], name="similarity"),
        helper.make_node("TopK", ["similarity", "k_plus_1"], ["near", "which"], name="nearest"),
        helper.make_node("Slice", ["near", "zero", "k", "axis"], ["voters"], name="voters"),
        helper.make_node("Slice", ["near", "k", "k_plus_1", "axis"], ["edge"], name="edge"),
        helper.make_node("Sub", ["voters", "edge"], ["weights"], name="weigh"),
        helper.make_node("Unsqueeze", ["weights", "axis"], ["weights_row"], name="row"),
        helper.make_node("Slice", ["which", "zero", "k", "axis"], ["who"], name="who"),
        helper.make_node("Gather", ["labels", "who"], ["classes"], name="classes"),
        helper.make_node("OneHot", ["classes", "num_classes", "off_on"], ["one_hot"], name="one_hot", axis=-1),
        helper.make_node("MatMul", ["weights_row", "one_hot"], ["votes_row"], name="vote"),
        helper.make_node("Squeeze", ["votes_row", "axis"], ["votes"], name="votes"),
        helper.make_node("Mul", ["votes", "sharpness"], ["logits"], name="temperature"),
        helper.make_node("Softmax", ["logits"], [PROBABILITIES], name="softmax", axis=-1),
    ]
    constants: dict[str, NDArray[Any]] = {
        "mean": mean,
        "support": np.ascontiguousarray(support.T),
        "labels": labels,
        "k": np.array([k], np.int64),
        "k_plus_1": np.array([k + 1], np.int64),
        "zero": np.array([0], np.int64),
        "axis": np.array([1], np.int64),
        "num_classes": np.array([num_classes], np.int64),
        "off_on": np.array([0, 1], np.float32),
        "sharpness": np.array(1 / temperature, np.float32),
    }
    return model(nodes, constants, num_features=len(mean), num_classes=num_classes)


def _unit_nodes() -> list[Any]:
    """`features` -> `unit`: centred by `mean`, of length 1."""
    from onnx import helper

    return [
        helper.make_node("Sub", [FEATURES, "mean"], ["centred"], name="centre"),
        # The one normalisation that every opset since 1 has; it leaves a vector of zeros as it is.
        helper.make_node("LpNormalization", ["centred"], ["unit"], name="normalise", axis=-1, p=2),
    ]


def text(
    known_KD: ArrayLike,
    bias_K: ArrayLike,
    vectors_KE: ArrayLike,
    classes_CE: ArrayLike,
    top: int,
    rows: tuple[ArrayLike, ArrayLike] | None,
) -> bytes:
    """ConSE (arXiv 1312.5650), with or without rows made from text: classes that the backbone's classifier never knew.

    A feature's `top` likeliest known classes are mixed by their probabilities into one vector of length 1, which meets
    the vectors of the wanted classes. `rows` (rows_CD, mean_D) adds what they score against the centred feature of
    length 1. Scales stand inside `classes_CE` and `rows_CD`.

    Shape:
        known_KD: [K, D], the classifier
        bias_K: [K]
        vectors_KE: [K, E]
        classes_CE: [C, E]

    Raises:
        ValueError: shapes that do not fit, a number that is not finite, or a `top` outside 1 to K.
    """
    from onnx import helper

    known, bias = fold(known_KD, bias_K, 1.0, None, None)
    vectors, classes = np.asarray(vectors_KE, np.float32), np.asarray(classes_CE, np.float32)
    if vectors.ndim != 2 or len(vectors) != len(known) or classes.ndim != 2 or classes.shape[1] != vectors.shape[1]:
        raise ValueError(f"expected vectors [{len(known)}, E] and [C, E]; found {vectors.shape} and {classes.shape}")
    if not 1 <= top <= len(known):
        raise ValueError(f"expected to mix 1 to {len(known)} known classes; found {top}")
    constants: dict[str, NDArray[Any]] = {
        "known": np.ascontiguousarray(known.T),
        "known_bias": bias,
        "top": np.array([top], np.int64),
        "zero": np.zeros(1, np.float32),
        "vectors": vectors,
        "classes": np.ascontiguousarray(classes.T),
    }
    nodes = [
        helper.make_node("Gemm", [FEATURES, "known", "known_bias"], ["known_logits"], name="classifier"),
        helper.make_node("Softmax", ["known_logits"], ["known_probabilities"], name="known", axis=-1),
        helper.make_node("TopK", ["known_probabilities", "top"], ["likely", "which"], name="likeliest", axis=-1),
        helper.make_node("Mul", ["known_probabilities", "zero"], ["nothing"], name="nothing"),
        helper.make_node("ScatterElements", ["nothing", "which", "likely"], ["kept"], name="keep", axis=1),
        helper.make_node("MatMul", ["kept", "vectors"], ["mixed"], name="mix"),
        helper.make_node("LpNormalization", ["mixed"], ["meaning"], name="meaning", axis=-1, p=2),
        helper.make_node("MatMul", ["meaning", "classes"], ["by_text" if rows else "logits"], name="compare"),
    ]
    if rows:
        made, mean = (np.asarray(one, np.float32) for one in rows)
        if made.shape != (len(classes), known.shape[1]) or mean.shape != (known.shape[1],):
            raise ValueError(f"expected rows [{len(classes)}, {known.shape[1]}]; found {made.shape} and {mean.shape}")
        constants |= {"rows": np.ascontiguousarray(made.T), "mean": mean}
        nodes += [
            helper.make_node("Sub", [FEATURES, "mean"], ["centred"], name="centre"),
            helper.make_node("LpNormalization", ["centred"], ["unit"], name="normalise", axis=-1, p=2),
            helper.make_node("MatMul", ["unit", "rows"], ["by_row"], name="rows"),
            helper.make_node("Add", ["by_text", "by_row"], ["logits"], name="both"),
        ]
    if not all(np.isfinite(value).all() for value in constants.values()):
        raise ValueError("expected finite numbers in the head; found NaN or infinity")
    nodes.append(helper.make_node("Softmax", ["logits"], [PROBABILITIES], name="softmax", axis=-1))
    return model(nodes, constants, num_features=known.shape[1], num_classes=len(classes))


def _softmax_of_gemm(
    nodes: list[Any],
    given: str,
    weight_CD: NDArray[np.float32],
    bias_C: NDArray[np.float32],
    constants: dict[str, NDArray[np.float32]],
) -> bytes:
    """The graph that ends with `softmax(given @ weight.T + bias)`."""
    from onnx import helper

    # [D, C] is the layout that onnxruntime multiplies by; transB would make it transpose at load.
    constants = {"weight": np.ascontiguousarray(weight_CD.T), "bias": bias_C, **constants}
    nodes = [
        *nodes,
        helper.make_node("Gemm", [given, "weight", "bias"], ["logits"], name="linear"),
        helper.make_node("Softmax", ["logits"], [PROBABILITIES], name="softmax", axis=-1),
    ]
    return model(nodes, constants, num_features=weight_CD.shape[1], num_classes=len(bias_C))


def model(nodes: list[Any], constants: dict[str, NDArray[Any]], *, num_features: int, num_classes: int) -> bytes:
    """A head from its nodes and constants."""
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        nodes,
        "head",
        [helper.make_tensor_value_info(FEATURES, TensorProto.FLOAT, ["N", num_features])],
        [helper.make_tensor_value_info(PROBABILITIES, TensorProto.FLOAT, ["N", num_classes])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return serialise(
        helper.make_model(
            graph, producer_name="graft", opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
        )
    )
