"""A class is put into a finished head from a few features of it; nothing is trained, and no other class is touched.

How the class is made depends on the head:

- `centroid` (cosine heads whose rows are class means): the mean of the new features, centred by the head's stored mean
  and of length 1, as its row; its bias as for every other class (arXiv 1911.04623; `worker.methods.few_shot`).
- `imprinted` (linear heads, and cosine heads of other rows): weight imprinting, Qi et al., arXiv 1712.07136, section
  3.2: the mean of the features, each of length 1, again of length 1, is the direction of the row. There all rows have
  length 1 and no bias; here the row gets the mean length of the other rows and the mean of their biases. That is done
  in the space in which the head was trained (standardised features), since directions from the origin of plain features
  all look alike, and is folded into the graph as the other rows are. Measured with 5 images and the probe: photos of
  nine classes lose 0.892 -> 0.870 and the new class is named in 0.854 of its images; emoji of 25 0.733 -> 0.711, 0.653.
  Half the length: nothing lost, 0.640 and 0.467. No length or bias was fitted to the stored test items.
- `imprinted`, with the bias levelled (cosine heads made from words, `network` heads): their rows meet what is not
  centred by the images' own mean, so all images are alike to an imprinted row, which would take the others' too. Here
  the bias is such that the class's images, each under the row that the others of them make, score on average half as
  far above the best other class as that one stands above the next. Of one image that row is its own: a cautious class.
  A `network` head's row meets the hidden units, of length 1. Measured with 5 images, from Google's
  emoji to Twitter's (9 classes and one new): MCC 0.876 -> 0.864, the new class 0.738 (with the mean bias 0.838, 0.905),
  DANN 0.908 -> 0.865, 0.766 (0.695, 0.972), MDD 0.899 -> 0.869, 0.739 (0.782, 0.930). `head_map` on nine classes of
  photos, centred by drawings: 0.640 -> 0.630, 0.544 (0.081, 1.000).
- `imprinted`, in the space of words (`text` heads): ConSE brings images to where the classes' vectors are, and what it
  makes of the new class's images is imprinted among these; rows made from words get one of zeros. Photos of nine
  classes, 5 images: `combined` 0.767 -> 0.749, the new class 0.801 (rows imprinted as well: 0.532, 0.992), `conse`
  0.776 -> 0.739, 0.917.
- `neighbours`: the features join the support images.

The figures are means over classes, and classes differ; what one costs is known when it is added, by the stored test
items (`services.class_checks` warns). From 4 images, emoji of five classes and one new: with `network` (MCC) most
classes cost 0.00 to 0.06, but single classes have lost up to 0.43 (0.957 -> 0.529 on 70 items; 0.800 from 8 images);
with `linear` 0.00 to 0.18, single ones have lost up to 0.24 (1.000 -> 0.765 on 17 items; the new class is named in 0.15
of its images).

Shape legend: M new images, D features, C classes, S support images, H hidden units, E width of a text vector.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from app.artifact import graph, head_graph, scores
from app.artifact.spec import HeadKind

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Grown:
    """A head with one class more.

    Args:
        graph: head.onnx.
        tensors: weights.safetensors.
        how: the rule.
    """

    graph: bytes
    tensors: dict[str, NDArray[Any]]
    how: Literal["centroid", "imprinted", "neighbours"]


def add_class(
    kind: HeadKind, head: bytes, tensors: Arrays, temperature: float, features_MD: Any, *, from_words: bool = False
) -> Grown:
    """The head with a class made from these features, as its last.

    Args:
        kind: of the head.
        head: head.onnx.
        tensors: of weights.safetensors.
        temperature: of the head.
        features_MD: of the new class's images.
        from_words: the rows of this cosine head were not made from images.

    Shape:
        features_MD: [M, D]
    """
    features_MD = np.asarray(features_MD, np.float64)
    if kind == "neighbours":
        return _support(head, tensors, features_MD)
    if kind == "text":
        return _words(head, tensors, features_MD)
    if kind == "linear":
        num_features = features_MD.shape[1]
        mean_D = tensors.get("mean", np.zeros(num_features))
        scale_D = tensors.get("scale", np.ones(num_features))
        row_D, bias = imprint(tensors, scores.unit((features_MD - mean_D) / scale_D))
        return _row(head, tensors, row_D, bias, head_graph.fold(row_D[None], [bias], temperature, mean_D, scale_D))
    if kind == "network":
        hidden_MH = scores.hidden(tensors, features_MD)
        row_H, _ = imprint(tensors, scores.unit(hidden_MH))
        return _plain_row(head, tensors, row_H, _level(tensors, hidden_MH), temperature)
    unit_MD = scores.unit(features_MD - tensors["mean"])
    if "spread" in tensors:
        row_D = unit_MD.mean(0)
        bias = -0.5 * (float(row_D @ row_D) - float(tensors["spread"][0]) / len(unit_MD))
        return _plain_row(head, tensors, row_D, bias, temperature, "centroid")
    row_D, bias = imprint(tensors, unit_MD)
    return _plain_row(head, tensors, row_D, _level(tensors, unit_MD) if from_words else bias, temperature)


def imprint(tensors: Arrays, unit_MD: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Row and bias of an imprinted class: the mean direction, as long as the other rows and with their mean bias.

    Shape:
        unit_MD: [M, D], of length 1, in the space of the head's rows
    """
    row_D = _direction(unit_MD) * _length(tensors["weight"])
    return row_D, float(tensors["bias"].astype(np.float64).mean())


def _direction(unit_MD: NDArray[np.float64]) -> NDArray[np.float64]:
    mean_1D: NDArray[np.float64] = unit_MD.mean(0, keepdims=True)
    return np.asarray(scores.unit(mean_1D)[0])


def _length(weight_CD: NDArray[Any]) -> float:
    return float(np.linalg.norm(weight_CD.astype(np.float64), axis=1).mean())


def _level(tensors: Arrays, given_MD: NDArray[np.float64]) -> float:
    """The bias at which the class's images score half the best other class's margin above that one.

    Shape:
        given_MD: [M, D], what the head's rows meet
    """
    unit_MD = scores.unit(given_MD)
    alone = len(unit_MD) == 1
    others = [unit_MD if alone else np.delete(unit_MD, place, 0) for place in range(len(unit_MD))]
    own_M = _length(tensors["weight"]) * np.array(
        [given_D @ _direction(other) for given_D, other in zip(given_MD, others, strict=True)]
    )
    ranked_MC = np.sort(given_MD @ tensors["weight"].astype(np.float64).T + tensors["bias"], axis=1)[:, ::-1]
    margin_M = ranked_MC[:, 0] - ranked_MC[:, 1]
    return float((ranked_MC[:, 0] + 0.5 * margin_M - own_M).mean())


def _plain_row(
    head: bytes,
    tensors: Arrays,
    row_D: NDArray[np.float64],
    bias: float,
    temperature: float,
    how: Literal["centroid", "imprinted"] = "imprinted",
) -> Grown:
    """A row that meets what it is multiplied with as it is: no standardisation to fold."""
    return _row(head, tensors, row_D, bias, head_graph.fold(row_D[None], [bias], temperature, None, None), how)


def _row(
    head: bytes,
    tensors: Arrays,
    row_D: NDArray[np.float64],
    bias: float,
    folded: tuple[NDArray[np.float32], NDArray[np.float32]],
    how: Literal["centroid", "imprinted"] = "imprinted",
) -> Grown:
    """One row more, and all others as they were, bit for bit."""
    grown = {
        **tensors,
        "weight": np.concatenate([tensors["weight"], row_D[None].astype(tensors["weight"].dtype)]),
        "bias": np.append(tensors["bias"], np.asarray(bias, tensors["bias"].dtype)),
    }
    constants = {
        "weight": lambda old: np.concatenate([old, folded[0].T], 1),
        "bias": lambda old: np.append(old, folded[1]),
    }
    return Grown(graph.grow_head(head, constants), grown, how)


def _support(head: bytes, tensors: Arrays, features_MD: NDArray[np.float64]) -> Grown:
    unit_MD = scores.unit(features_MD - tensors["mean"]).astype(np.float32)
    num_neighbours, num_classes = (int(number) for number in tensors["sizes"])
    labels_M = np.full(len(unit_MD), num_classes, np.int64)
    grown = {
        **tensors,
        "support": np.concatenate([tensors["support"], unit_MD]),
        "labels": np.concatenate([tensors["labels"], labels_M]),
        "sizes": np.array([num_neighbours, num_classes + 1], np.int64),
    }
    constants = {
        "support": lambda old: np.concatenate([old, unit_MD.T], 1),
        "labels": lambda old: np.concatenate([old, labels_M]),
        "num_classes": lambda old: old + 1,
    }
    return Grown(graph.grow_head(head, constants), grown, "neighbours")


def _words(head: bytes, tensors: Arrays, features_MD: NDArray[np.float64]) -> Grown:
    meaning_ME = scores.meaning({**graph.constants(head), **tensors}, features_MD)
    vector_1E = (_direction(meaning_ME) * _length(tensors["classes"])).astype(np.float32)[None]
    grown = {**tensors, "classes": np.concatenate([tensors["classes"], vector_1E])}
    changes = {"classes": lambda old: np.concatenate([old, vector_1E.T], 1)}
    if "rows" in tensors:
        zeros_1D = np.zeros((1, tensors["rows"].shape[1]), np.float32)
        grown["rows"] = np.concatenate([tensors["rows"], zeros_1D])
        changes["rows"] = lambda old: np.concatenate([old, zeros_1D.T], 1)
    return Grown(graph.grow_head(head, changes), grown, "imprinted")
