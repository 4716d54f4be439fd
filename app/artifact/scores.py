"""What each kind of head says, in numpy and float64: what the graphs of `heads.py` are held against. No torch.

The arrays are those of weights.safetensors, before standardisation and temperature are folded into a graph. A `text`
head needs in addition what its graph holds of the backbone's classifier and the encoder's vectors: `known`,
`known_bias`, `vectors`, `top`.

Shape legend: N images, D features, C classes, S support images, K neighbours, H hidden units, P classes of the
pretraining, E width of a text vector.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.artifact.spec import HeadKind

Double = NDArray[np.float64]

# Rows of similarities held at once: 1,024 x 100,000 support images in float64 are 0.8 GB.
CHUNK_ELEMENTS = 2**24


def unit(features_ND: NDArray[np.floating]) -> Double:
    """Features of length 1; a feature of zeros stays one, as ONNX's LpNormalization has it.

    Shape:
        features_ND: [N, D]
        result: [N, D]
    """
    length_N1 = np.linalg.norm(features_ND.astype(np.float64), axis=1, keepdims=True)
    return features_ND / np.where(length_N1 > 0, length_N1, 1.0)


def softmax(logits_NC: Double) -> Double:
    """Probabilities of each row.

    Shape:
        logits_NC: [N, C]
        result: [N, C]
    """
    powers_NC = np.exp(logits_NC - logits_NC.max(axis=1, keepdims=True))
    return np.asarray(powers_NC / powers_NC.sum(axis=1, keepdims=True))


def linear(
    features_ND: NDArray[np.floating],
    weight_CD: NDArray[np.floating],
    bias_C: NDArray[np.floating],
    mean_D: NDArray[np.floating],
    scale_D: NDArray[np.floating],
) -> Double:
    """A linear map of standardised features.

    Shape:
        result: [N, C]
    """
    return np.asarray(((features_ND - mean_D) / scale_D) @ weight_CD.T + bias_C, np.float64)


def cosine(
    features_ND: NDArray[np.floating],
    weight_CD: NDArray[np.floating],
    bias_C: NDArray[np.floating],
    mean_D: NDArray[np.floating],
) -> Double:
    """Rows that meet the centred feature of length 1.

    Shape:
        result: [N, C]
    """
    return np.asarray(unit(features_ND - mean_D) @ weight_CD.T.astype(np.float64) + bias_C)


def neighbours(
    features_ND: NDArray[np.floating],
    support_SD: NDArray[np.floating],
    labels_S: NDArray[np.integer],
    mean_D: NDArray[np.floating],
    num_neighbours: int,
    num_classes: int,
) -> Double:
    """Votes of the K nearest support images by cosine of the centred features.

    Shape:
        result: [N, C]
    """
    wanted = num_neighbours + 1
    out_NC = np.empty((len(features_ND), num_classes))
    rows = max(1, CHUNK_ELEMENTS // len(support_SD))
    for start in range(0, len(features_ND), rows):
        similarity_BS = unit(features_ND[start : start + rows] - mean_D) @ support_SD.T.astype(np.float64)
        nearest_BK, similarity_BK = nearest(similarity_BS, wanted)
        out_NC[start : start + rows] = votes(similarity_BK, labels_S[nearest_BK], num_classes)
    return out_NC


def nearest(similarity_NS: Double, wanted: int) -> tuple[NDArray[np.intp], Double]:
    """The most similar support images, most similar first, and how similar.

    Shape:
        result: [N, K + 1] both, K + 1 being `wanted`
    """
    near = np.argpartition(-similarity_NS, wanted - 1, axis=1)[:, :wanted]
    order = np.argsort(-np.take_along_axis(similarity_NS, near, 1), axis=1, kind="stable")
    found = np.take_along_axis(near, order, 1)
    return found, np.take_along_axis(similarity_NS, found, 1)


def votes(similarity_NK: Double, labels_NK: NDArray[np.integer], num_classes: int) -> Double:
    """Each of the first K votes by how much more similar it is than the one after the last, which does not vote.

    So the score is continuous in the features: where two images change places at the edge, neither counts, and a graph
    in float32 says the same. Whole votes would jump there, and tie. (Dudani, IEEE Trans. SMC 6(4), 1976, has this
    weighting with distances, scaled by the nearest's; scaled, one neighbour would always be sure of itself.)

    Shape:
        similarity_NK, labels_NK: [N, K + 1]
        result: [N, C]
    """
    weight_NK = similarity_NK[:, :-1] - similarity_NK[:, -1:]
    out_NC = np.zeros((len(similarity_NK), num_classes))
    rows = np.arange(len(similarity_NK))
    for place in range(weight_NK.shape[1]):
        # One class a row: no two entries meet, so fancy assignment adds them all.
        out_NC[rows, labels_NK[:, place]] += weight_NK[:, place]
    return out_NC


def hidden(tensors: Mapping[str, NDArray[Any]], features_ND: NDArray[np.floating]) -> Double:
    """What the hidden layer of a `network` head makes of features.

    Shape:
        result: [N, H]
    """
    standard_ND = (features_ND - tensors["mean"].astype(np.float64)) / tensors["scale"]
    summed_NH = standard_ND @ tensors["hidden.weight"].T.astype(np.float64) + tensors["hidden.bias"]
    return np.asarray(np.maximum(summed_NH, 0.0))


def meaning(tensors: Mapping[str, NDArray[Any]], features_ND: NDArray[np.floating]) -> Double:
    """What a `text` head makes of features: the vectors of the likeliest classes, mixed (arXiv 1312.5650, equation 3).

    Shape:
        result: [N, E], of length 1
    """
    likely_NP = softmax(features_ND @ tensors["known"].astype(np.float64) + tensors["known_bias"])
    top = int(tensors["top"][0])
    which_NT = np.argpartition(-likely_NP, top - 1, axis=1)[:, :top]
    kept_NP = np.zeros_like(likely_NP)
    np.put_along_axis(kept_NP, which_NT, np.take_along_axis(likely_NP, which_NT, 1), 1)
    return unit(kept_NP @ tensors["vectors"])


def probabilities(
    kind: HeadKind, tensors: Mapping[str, NDArray[Any]], temperature: float, features_ND: NDArray[np.floating]
) -> Double:
    """What a stored head says, from its arrays.

    Shape:
        features_ND: [N, D]
        result: [N, C]
    """
    if kind == "linear":
        num_features = features_ND.shape[1]
        mean_D, scale_D = tensors.get("mean", np.zeros(num_features)), tensors.get("scale", np.ones(num_features))
        logits_NC = linear(features_ND, tensors["weight"], tensors["bias"], mean_D, scale_D)
    elif kind == "cosine":
        logits_NC = cosine(features_ND, tensors["weight"], tensors["bias"], tensors["mean"])
    elif kind == "neighbours":
        num_neighbours, num_classes = (int(number) for number in tensors["sizes"])
        logits_NC = neighbours(
            features_ND, tensors["support"], tensors["labels"], tensors["mean"], num_neighbours, num_classes
        )
    elif kind == "network":
        logits_NC = hidden(tensors, features_ND) @ tensors["weight"].T.astype(np.float64) + tensors["bias"]
    else:
        logits_NC = meaning(tensors, features_ND) @ tensors["classes"].T.astype(np.float64)
        if "rows" in tensors:
            logits_NC += unit(features_ND - tensors["mean"]) @ tensors["rows"].T.astype(np.float64)
    return softmax(logits_NC / temperature)
