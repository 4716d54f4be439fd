"""Tensors and what the engine takes and gives: encoded images or pixels in, probabilities and features out.

Shape legend: N images, H x W pixels, C classes, D features.
"""

import base64
import binascii
import math
import struct
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.api.oip.messages import (
    ENCODED,
    IMAGES,
    PROBABILITIES,
    InferInput,
    OutputTensor,
    RequestedOutput,
    refuse_shared_memory,
)
from app.artifact.spec import Spec
from app.errors import BadRequest
from app.serving import best
from app.serving.call import Images, Pixels, Result
from app.texts import few

LENGTH = struct.Struct("<I")


def images(inputs: Sequence[InferInput], spec: Spec, most: int) -> Images:
    """The images of a request, as the engine takes them.

    Args:
        inputs: of the request.
        spec: of the model, or of the domain's own network.
        most: images that one request may bring.

    Raises:
        BadRequest: not exactly one input, an unknown one, or one whose datatype, shape and data do not fit.
        Unsupported: shared memory.
    """
    if len(inputs) != 1:
        raise BadRequest(
            f"expected one input, {ENCODED} or {IMAGES}; found {[item.name[:100] for item in inputs[:10]]}; send one"
        )
    tensor = inputs[0]
    refuse_shared_memory(f"input {tensor.name!r}", tensor.parameters)
    if tensor.name == ENCODED:
        _check(tensor, "BYTES", (-1,), most)
        return _elements(tensor)
    if tensor.name == IMAGES:
        shape = (-1, spec.preprocess.height, spec.preprocess.width, 3)
        _check(tensor, "UINT8", shape, most)
        return _pixels(tensor)
    raise BadRequest(f"expected input {ENCODED} or {IMAGES}; found {tensor.name[:100]!r}; see the model's metadata")


def _check(tensor: InferInput, datatype: str, shape: tuple[int, ...], most: int) -> None:
    if tensor.datatype != datatype:
        raise BadRequest(f"expected {tensor.name} as {datatype}; found {tensor.datatype[:40]!r}; convert it")
    found = tensor.shape
    fits = len(found) == len(shape) and all(want in (-1, have) for want, have in zip(shape, found, strict=True))
    if not fits or found[0] < 1:
        todo = "send one element for each image"
        if fits:
            todo = "send at least one image"
        elif tensor.name == IMAGES:
            todo = f"resize the images, or send the files themselves as {ENCODED}"
        raise BadRequest(
            f"expected {tensor.name} of shape {list(shape)}, where -1 is the number of images; found "
            f"{list(found[:10])}; {todo}"
        )
    if found[0] > most:
        raise BadRequest(f"expected at most {most} images; found {found[0]}; send less at once")


def _elements(tensor: InferInput) -> list[bytes]:
    """The elements of a tensor of BYTES, as many as its shape says."""
    number, data = tensor.shape[0], tensor.data
    given: list[Any] = split(tensor.name, data, number) if isinstance(data, memoryview) else data
    if len(given) != number:
        found = "more" if len(given) > number else len(given)
        raise BadRequest(f"expected {number} elements of {tensor.name}, as its shape says; found {found}")
    return [_element(tensor, index, one) for index, one in enumerate(given)]


def split(name: str, data: memoryview, number: int) -> list[bytes]:
    """Raw BYTES -> its first elements, each of which stands behind its length in four bytes.

    Args:
        name: of the tensor.
        data: all of it.
        number: of elements that are expected; one more is read where there are more, and no others.

    Raises:
        BadRequest: a length that reaches beyond the end.
    """
    found: list[bytes] = []
    place = 0
    while place < len(data) and len(found) <= number:
        start = place + LENGTH.size
        end = start + LENGTH.unpack_from(data, place)[0] if start <= len(data) else start
        if end > len(data):
            raise BadRequest(
                f"expected each element of {name} behind its length in 4 bytes; found element {len(found)} cut off: it "
                f"ends at byte {end} of {len(data)}"
            )
        found.append(bytes(data[start:end]))
        place = end
    return found


def _element(tensor: InferInput, index: int, given: Any) -> bytes:
    if isinstance(given, bytes):
        return given
    if not isinstance(given, str):
        raise BadRequest(
            f"expected data of {tensor.name} as a flat list of base64 texts; found {type(given).__name__} at {index}"
        )
    kind = tensor.parameters.get("content_type", "base64")
    if kind != "base64":
        raise BadRequest(f"expected content_type base64 of {tensor.name}; found {str(kind)[:40]!r}; encode it so")
    try:
        return base64.b64decode(given, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadRequest(
            f"expected element {index} of {tensor.name} as an image file in base64, since JSON has no bytes; found "
            f"{error}; send the file's bytes in base64, without a line break or a prefix, or as binary data"
        ) from error


def _pixels(tensor: InferInput) -> Pixels:
    """The values of a tensor of UINT8, in its shape."""
    if isinstance(tensor.data, memoryview):
        size = math.prod(tensor.shape)
        if len(tensor.data) != size:
            raise BadRequest(f"expected {size} bytes of {tensor.name}, as its shape says; found {len(tensor.data)}")
        return np.frombuffer(tensor.data, np.uint8).reshape(tensor.shape)
    return _numbers(tensor.name, _flat(tensor.name, tensor.data, tensor.shape)).reshape(tensor.shape)


def _flat(name: str, data: list[Any], shape: tuple[int, ...]) -> list[Any]:
    """The elements of data that comes flat, or nested as the shape says."""
    rows: list[Any] = [data]
    is_nested = bool(data) and isinstance(data[0], list)
    for size in shape if is_nested else (math.prod(shape),):
        lengths = set(map(len, rows)) if set(map(type, rows)) == {list} else set()
        if lengths != {size}:
            found = f"lists of {few([*map(str, sorted(lengths))])} elements" if lengths else "lists beside values"
            raise BadRequest(
                f"expected data of {name} flat, or nested as its shape {list(shape)} says; found {found} in place of "
                f"{size}; send all of its values"
            )
        rows = list(chain.from_iterable(rows))
    return rows


def _numbers(name: str, values: list[Any]) -> NDArray[np.uint8]:
    """Values of JSON as an array.

    Not by numpy alone: beside a long text it makes a text as long of every value, and of true it makes 1.
    """
    expected = f"expected data of {name} as whole numbers from 0 to 255"
    others = set(map(type, values)) - {int}
    if others:
        found = few(sorted(kind.__name__ for kind in others))
        raise BadRequest(f"{expected}; found values of type {found} among them; send the numbers that are meant")
    try:
        return np.frombuffer(bytes(values), np.uint8)
    except ValueError as error:
        raise BadRequest(f"{expected}; found {str(min(values))[:40]} to {str(max(values))[:40]}; scale them") from error


def outputs(result: Result, labels: Sequence[str], asked: Sequence[RequestedOutput]) -> tuple[OutputTensor, ...]:
    """What was asked for, of what the model says."""
    return tuple(_output(result, labels, wanted) for wanted in asked)


def _output(result: Result, labels: Sequence[str], wanted: RequestedOutput) -> OutputTensor:
    is_scores = wanted.name == PROBABILITIES
    values = result.probabilities_NC if is_scores else result.features_ND
    if wanted.classes is None:
        return OutputTensor(wanted.name, "FP32", values.shape, values, wanted.binary)
    number = min(wanted.classes, values.shape[1])
    names = labels if is_scores else None
    elements = [element for row in values for element in _classification(row, names, number)]
    return OutputTensor(wanted.name, "BYTES", (len(values), number), elements, wanted.binary)


def _classification(row: NDArray[np.float32], labels: Sequence[str] | None, number: int) -> list[bytes]:
    """`value:index:label` of the highest values, highest first; of equal ones the first."""
    places = best.order(row, number)
    texts = [f"{row[place]}:{place}" + (f":{labels[place]}" if labels is not None else "") for place in places]
    return [text.encode(errors="replace") for text in texts]


def raw(tensor: OutputTensor) -> bytes:
    """Little-endian, row-major; each element of BYTES behind its length in four bytes."""
    if isinstance(tensor.values, list):
        return b"".join(LENGTH.pack(len(element)) + element for element in tensor.values)
    return tensor.values.astype("<f4", copy=False).tobytes()
