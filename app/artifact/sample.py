"""sample.safetensors: a few pictures and what the published graphs say of them, to try a version on before it is ready.

Pictures are encoded files, so that a trial takes the way of a request: decoded, resized, run. They are copies made for
this: square, small, without metadata. A bundle can be downloaded, and training images are among what it gives away;
whoever does not want that gets made-up pictures in their place, which `training` tells apart.

Shape legend: K pictures, D features, C classes.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from app.artifact.precisions import SECOND, Second
from app.artifact.preprocess import Preprocess

VERSION = 1
MAX_PICTURES = 2
MAX_PICTURE_BYTES = 128 * 2**10
JPEG_QUALITY = 90
# From twice the model's size on a JPEG is decoded at a reduced scale: copies are of that size, so that this is tried.
DRAFT_FACTOR = 2


@dataclass(frozen=True, slots=True, eq=False)
class Said:
    """What a version's graphs say of the pictures.

    Shape:
        features_KD: [K, D], of the backbone
        scores_KC: [K, C], the probabilities that head.onnx makes of those
    """

    features_KD: NDArray[np.float32]
    scores_KC: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Pictures with known answers.

    Args:
        pictures: encoded.
        training: whether they are copies of images that the version learned from.
        said: of them when the version was published.
        second: features that the backbone's other graphs make of them, by precision.

    Shape:
        second: each [K, D]
    """

    pictures: tuple[bytes, ...]
    training: bool
    said: Said
    second: Mapping[Second, NDArray[np.float32]] = field(default_factory=dict)


def copy(image: Image.Image, shape: Preprocess) -> bytes:
    """A small copy of an upright RGB image: its middle, at most twice as large as the model looks at it, as a JPEG.

    Halved until it is within MAX_PICTURE_BYTES.
    """
    side = min(*image.size, DRAFT_FACTOR * shape.resize)
    while True:
        buffer = io.BytesIO()
        ImageOps.fit(image, (side, side)).save(buffer, "JPEG", quality=JPEG_QUALITY)
        if buffer.tell() <= MAX_PICTURE_BYTES:
            return buffer.getvalue()
        side //= 2


def pack(sample: Sample) -> dict[str, NDArray[Any]]:
    """As arrays of a safetensors file."""
    lengths = [len(picture) for picture in sample.pictures]
    return {
        **{_name(precision): np.asarray(found_KD, np.float32) for precision, found_KD in sample.second.items()},
        "version": np.array(VERSION, np.int64),
        "training": np.array(sample.training),
        "pictures": np.frombuffer(b"".join(sample.pictures), np.uint8),
        "lengths": np.array(lengths, np.int64),
        "features": np.asarray(sample.said.features_KD, np.float32),
        "scores": np.asarray(sample.said.scores_KC, np.float32),
    }


def unpack(tensors: Mapping[str, NDArray[Any]], num_features: int, num_classes: int) -> Sample | None:
    """The inverse of `pack`; None for one that a newer Graft wrote in another way.

    Raises:
        ValueError, KeyError, TypeError: the arrays are not those of a sample for so many features and classes.
    """
    if int(tensors["version"]) != VERSION:
        return None
    lengths = [int(length) for length in tensors["lengths"]]
    if not 1 <= len(lengths) <= MAX_PICTURES or not all(0 < length <= MAX_PICTURE_BYTES for length in lengths):
        raise ValueError(
            f"expected 1 to {MAX_PICTURES} pictures of at most {MAX_PICTURE_BYTES} bytes; found {lengths[:10]}"
        )
    wanted = {
        "pictures": ((sum(lengths),), np.uint8),
        "features": ((len(lengths), num_features), np.float32),
        "scores": ((len(lengths), num_classes), np.float32),
        "training": ((), np.bool_),
    }
    second = [precision for precision in SECOND if _name(precision) in tensors]
    wanted |= {_name(precision): wanted["features"] for precision in second}
    for name, (shape, dtype) in wanted.items():
        if tensors[name].shape != shape or tensors[name].dtype != dtype:
            raise ValueError(
                f"expected {name!r} {np.dtype(dtype)} {list(shape)}; found {tensors[name].dtype} "
                f"{list(tensors[name].shape)}"
            )
    return Sample(
        pictures=_cut(tensors["pictures"].tobytes(), lengths),
        training=bool(tensors["training"]),
        said=Said(tensors["features"], tensors["scores"]),
        second={precision: tensors[_name(precision)] for precision in second},
    )


def _name(precision: Second) -> str:
    return f"{precision}_features"


def _cut(joined: bytes, lengths: Sequence[int]) -> tuple[bytes, ...]:
    ends = np.cumsum([0, *lengths])
    return tuple(joined[start:end] for start, end in pairwise(ends))
