"""A request and its answer as the protocol means them, however they were written on the wire."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app import texts
from app.artifact.precisions import FLOAT, SECOND, Precision
from app.errors import BadRequest, Unsupported

ENCODED, IMAGES = "encoded", "images"
PROBABILITIES, FEATURES = "probabilities", "features"
OUTPUTS = (PROBABILITIES, FEATURES)
MAX_TIMEOUT_SECONDS = 3600
SHARED_MEMORY = "shared_memory_region"


@dataclass(frozen=True, slots=True, eq=False)
class InferInput:
    """One input tensor as it came.

    Args:
        name: of the tensor.
        datatype: in the protocol's words.
        shape: as claimed.
        data: raw little-endian bytes, or elements: nested or flat, strings and numbers of JSON, or what gRPC's typed
            contents hold.
        parameters: of this input.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: memoryview | list[Any]
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RequestedOutput:
    """One output that was asked for.

    Args:
        name: of the tensor.
        classes: most probable classes to give as text instead of the tensor; None for the tensor.
        binary: raw bytes instead of JSON.
    """

    name: str
    classes: int | None = None
    binary: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class InferRequest:
    """What is asked.

    Args:
        model: its name.
        version: as written; empty for the version that is served by default.
        id: given back with the answer.
        parameters: of the whole request.
        inputs: exactly one makes sense.
        outputs: never empty.
    """

    model: str
    version: str
    id: str
    parameters: Mapping[str, Any]
    inputs: tuple[InferInput, ...]
    outputs: tuple[RequestedOutput, ...]


@dataclass(frozen=True, slots=True, eq=False)
class OutputTensor:
    """One output tensor: numbers, or elements of BYTES with their shape.

    Args:
        name: as asked for.
        datatype: FP32 or BYTES.
        shape: batch first.
        values: [N, ...], or the elements in row-major order.
        binary: raw bytes instead of JSON.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: NDArray[np.float32] | list[bytes]
    binary: bool


@dataclass(frozen=True, slots=True, eq=False)
class InferResponse:
    """What is answered."""

    model: str
    version: str
    id: str
    parameters: Mapping[str, str]
    outputs: tuple[OutputTensor, ...]


def requested_outputs(asked: list[tuple[str, Mapping[str, Any]]], binary: bool) -> tuple[RequestedOutput, ...]:
    """Outputs in the order asked for; the first alone when none was.

    Args:
        asked: name and parameters of each.
        binary: whether raw bytes are wanted where the output itself does not say.

    Raises:
        BadRequest: an unknown one, one twice, or a parameter of another kind.
        Unsupported: shared memory.
    """
    found = [_requested(name, parameters, binary) for name, parameters in asked or [(PROBABILITIES, {})]]
    names = [output.name for output in found]
    if len(set(names)) != len(names):
        raise BadRequest(f"expected each output once; found {texts.few(names)}; ask for each once")
    return tuple(found)


def _requested(name: str, parameters: Mapping[str, Any], binary: bool) -> RequestedOutput:
    if name not in OUTPUTS:
        raise BadRequest(f"expected outputs {' or '.join(OUTPUTS)}; found {name[:100]!r}; see the model's metadata")
    refuse_shared_memory(f"output {name!r}", parameters)
    classes = parameters.get("classification")
    if classes is not None and (type(classes) is not int or classes < 1):
        raise BadRequest(
            f"expected classification of output {name!r} as a number from 1 on; found {repr(classes)[:40]}"
        )
    wanted = parameters.get("binary_data", binary)
    if type(wanted) is not bool:
        raise BadRequest(f"expected binary_data of output {name!r} as true or false; found {repr(wanted)[:40]}")
    return RequestedOutput(name, classes, wanted)


def refuse_shared_memory(where: str, parameters: Mapping[str, Any]) -> None:
    """Tensors travel in the message alone.

    Raises:
        Unsupported: a tensor is said to lie in shared memory.
    """
    if SHARED_MEMORY in parameters:
        raise Unsupported(f"expected {where} in the message; found it in shared memory, which is not spoken here")


def check_id(given: str) -> None:
    """An id goes into the answer and into the prediction log, which are in UTF-8.

    Raises:
        BadRequest: it cannot.
    """
    if not texts.is_storable(given):
        raise BadRequest(
            f"expected an id in UTF-8; found {given[:40]!r}, with NUL or half a surrogate pair; send another"
        )


def deadline(parameters: Mapping[str, Any], arrived: float) -> float | None:
    """When the answer is useless, by `time.monotonic`; None when there is no such time.

    Args:
        parameters: of the request; `timeout` is in microseconds, 0 means none.
        arrived: when the request did.

    Raises:
        BadRequest: no such number.
    """
    timeout = parameters.get("timeout", 0)
    if type(timeout) is not int or not 0 <= timeout <= MAX_TIMEOUT_SECONDS * 1_000_000:
        raise BadRequest(
            f"expected timeout as a whole number of microseconds, at most {MAX_TIMEOUT_SECONDS} s; found "
            f"{repr(timeout)[:40]}; send 1000000 for a second"
        )
    return arrived + timeout / 1e6 if timeout else None


def domain(parameters: Mapping[str, Any]) -> str | None:
    """Where the images come from; None when the request does not say.

    Raises:
        BadRequest: it is no text.
    """
    found = parameters.get("domain")
    if found is not None and not isinstance(found, str):
        raise BadRequest(
            f"expected parameter domain as text; found {repr(found)[:40]}; see GET /api/v1/models/NAME/domains"
        )
    return found or None


def precision(parameters: Mapping[str, Any]) -> Precision:
    """Which graph is to answer; floating point when the request does not say.

    Raises:
        BadRequest: it is none of them.
    """
    found = parameters.get("precision")
    if found in (None, "", FLOAT):
        return FLOAT
    for precision in SECOND:
        if found == precision:
            return precision
    raise BadRequest(
        f"expected parameter precision as {FLOAT} or {' or '.join(SECOND)}; found {repr(found)[:40]}; leave it out"
    )


def version_number(text: str) -> int | None:
    """The version's number; None for an empty text, which means the one that is served by default.

    Raises:
        BadRequest: it is no whole number.
    """
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text)):
        raise BadRequest(f"expected a version as a whole number from 1; found {text[:40]!r}; see the model's metadata")
    return int(text)
