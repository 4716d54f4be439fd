"""Heads as ONNX graphs, made from their weights without torch: `features` [N, D] -> `probabilities` [N, C].

There is no `logits` output: the logarithm of a probability is the calibrated logit up to one constant per image, and a
second output would be a second contract.

Shape legend: N images, D features, C classes, S support images, H hidden units.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from app.artifact.head_graph import FEATURES, PROBABILITIES, fold, model, softmax_of_gemm, unit_nodes


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
    return softmax_of_gemm([], FEATURES, weight, bias, {})


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
    return softmax_of_gemm(unit_nodes(), "unit", weight, bias, {"mean": mean})


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
        *unit_nodes(),
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


def network(
    hidden_HD: ArrayLike,
    hidden_H: ArrayLike,
    weight_CH: ArrayLike,
    bias_C: ArrayLike,
    temperature: float,
    mean_D: ArrayLike,
    scale_D: ArrayLike,
) -> bytes:
    """A head with one hidden layer of rectified units: Gemm, Relu, Gemm, Softmax.

    Shape:
        hidden_HD: [H, D]
        hidden_H: [H]
        weight_CH: [C, H]
        bias_C: [C]
        mean_D: [D]
        scale_D: [D]

    Raises:
        ValueError: as in `fold`, or layers that do not fit each other.
    """
    from onnx import helper

    first_HD, first_H = fold(hidden_HD, hidden_H, 1.0, mean_D, scale_D)
    weight, bias = fold(weight_CH, bias_C, temperature, None, None)
    if weight.shape[1] != len(first_H):
        raise ValueError(f"expected weights [C, {len(first_H)}] behind the hidden layer; found {weight.shape}")
    nodes = [
        helper.make_node("Gemm", [FEATURES, "hidden_weight", "hidden_bias"], ["summed"], name="hidden"),
        helper.make_node("Relu", ["summed"], ["activations"], name="rectify"),
    ]
    constants = {"hidden_weight": np.ascontiguousarray(first_HD.T), "hidden_bias": first_H}
    return softmax_of_gemm(nodes, "activations", weight, bias, constants, num_features=first_HD.shape[1])
