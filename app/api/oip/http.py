"""The protocol's messages in HTTP bodies: JSON, and behind it the raw bytes of tensors."""

import json
from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import BaseModel, Field, ValidationError

from app.api.oip import tensors
from app.api.oip.messages import ENCODED, InferInput, InferRequest, InferResponse, OutputTensor, requested_outputs
from app.bodies import BODY, places, why_no_json
from app.errors import BadRequest

HEADER_LENGTH = "Inference-Header-Content-Length"
BINARY_SIZE = "binary_data_size"
SHOWN = 5
# Of one message, beside its numbers: a tensor of texts has one for each image.
MAX_TEXTS = 100_000
MAX_TENSORS, MAX_AXES = 16, 16
# Of numbers that are nested by the shape, a list for each pixel takes ten times its text.
LIST_BYTES, MANY_LISTS = 88, 10_000

M = TypeVar("M", bound=BaseModel)


class InferInputIn(BaseModel):
    """An input tensor: its elements are in `data`, or behind the JSON when `parameters` have `binary_data_size`."""

    model_config = BODY

    name: str = Field(description="`encoded` or `images`.")
    datatype: str = Field(description="`BYTES` of `encoded`, `UINT8` of `images`.")
    shape: list[int] = Field(max_length=MAX_AXES, description="[N], or [N, H, W, 3] in the model's size.")
    parameters: dict[str, Any] | None = None
    data: list[Any] | None = Field(
        None, description="`encoded`: files in base64. `images`: numbers, flat or nested by the shape."
    )


class RequestedOutputIn(BaseModel):
    """An output: raw with `binary_data`; its highest values as `value:index:label` with `classification`: how many."""

    model_config = BODY

    name: str = Field(description="`probabilities` or `features`.")
    parameters: dict[str, Any] | None = None


class InferRequestIn(BaseModel):
    """The JSON of a request."""

    model_config = BODY

    id: str | None = Field(None, description="Given back with the answer.")
    parameters: dict[str, Any] | None = Field(
        None, description="`domain`, `timeout` in microseconds, `binary_data_output`; others are ignored."
    )
    model_name: Any = Field(None, description="Ignored: the path says it. KServe's own client sends it.")
    model_version: Any = Field(None, description="Likewise.")
    inputs: list[InferInputIn] = Field(max_length=MAX_TENSORS)
    outputs: list[RequestedOutputIn] | None = Field(
        None, max_length=MAX_TENSORS, description="Only `probabilities` unless asked."
    )


def read(model: str, version: str, body: bytes, header_length: str | None, take: Callable[[int], None]) -> InferRequest:
    """A request's body.

    Args:
        model: of the path.
        version: of the path; empty where it has none.
        body: as it was before it was packed.
        header_length: what the header says of how much is JSON; None where it is not there, and all is.
        take: told of the bytes that very many lists are to take beside the body; may refuse them.

    Raises:
        Overloaded: as `take`.
        BadRequest: lengths that do not fit, no JSON, or JSON of another shape.
    """
    length = _header_length(header_length, len(body))
    if header_length is not None and length == 0:
        image = InferInput(ENCODED, "BYTES", (1,), [body])
        return InferRequest(model, version, "", {}, (image,), requested_outputs([], True))
    data, text = memoryview(body), body[:length]
    if (number := text.count(b"[")) > MANY_LISTS:
        take(number * LIST_BYTES)
    asked = parse(InferRequestIn, text)
    parameters = asked.parameters or {}
    binary = parameters.get("binary_data_output", False)
    if type(binary) is not bool:
        raise BadRequest(f"expected binary_data_output as true or false; found {str(binary)[:40]!r}")
    return InferRequest(
        model=model,
        version=version,
        id=asked.id or "",
        parameters=parameters,
        inputs=_inputs(asked.inputs, data[length:]),
        outputs=requested_outputs([(item.name, item.parameters or {}) for item in asked.outputs or ()], binary),
    )


def _header_length(text: str | None, size: int) -> int:
    if text is None:
        return size
    if not (text.isascii() and text.isdigit() and len(text) < 16) or int(text) > size:
        raise BadRequest(
            f"expected {HEADER_LENGTH} as the bytes of JSON at the start of a body of {size}; found {text[:40]!r}"
        )
    return int(text)


def parse(model: type[M], text: bytes) -> M:
    """JSON of one of the protocol's messages.

    Raises:
        BadRequest: no JSON, or JSON of another shape; the places are named.
    """
    if (number := text.count(b'"') // 2 + text.count(b"{")) > MAX_TEXTS:
        raise BadRequest(f"expected JSON of at most {MAX_TEXTS} names and texts; found {number}; send less at once")
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadRequest(
            f"expected a request as JSON in UTF-8; found {why_no_json(error)[:200]}; where binary data follows it, "
            f"header {HEADER_LENGTH} says how long the JSON is"
        ) from error
    try:
        return model.model_validate(given)
    except ValidationError as error:
        found = places(error)
        told = "; ".join(f"{item['pointer'] or '/'}: {item['detail']}" for item in found[:SHOWN])
        more = f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        raise BadRequest(f"expected a request of the Open Inference Protocol; found at {told}{more}") from error


def _inputs(given: list[InferInputIn], binary: memoryview) -> tuple[InferInput, ...]:
    """Inputs with their data; raw ones lie one behind the other, in the inputs' order."""
    found, place = [], 0
    for item in given:
        parameters = item.parameters or {}
        data: memoryview | list[Any] | None = item.data
        if BINARY_SIZE in parameters:
            size = parameters[BINARY_SIZE]
            if item.data is not None:
                raise BadRequest(f"expected data or {BINARY_SIZE} of {item.name[:100]!r}; found both; send one")
            if type(size) is not int or not 0 <= size <= len(binary) - place:
                raise BadRequest(
                    f"expected {BINARY_SIZE} of {item.name[:100]!r} as a whole number within the {len(binary) - place} "
                    f"bytes behind the JSON; found {repr(size)[:40]}"
                )
            data = binary[place : place + size]
            place += size
        elif data is None and "shared_memory_region" not in parameters:
            raise BadRequest(f"expected data or {BINARY_SIZE} of {item.name[:100]!r}; found neither; send one")
        found.append(InferInput(item.name, item.datatype, tuple(item.shape), [] if data is None else data, parameters))
    if place != len(binary):
        raise BadRequest(
            f"expected as many bytes behind the JSON as the inputs' {BINARY_SIZE} say, {place}; found {len(binary)}"
        )
    return tuple(found)


def write(response: InferResponse) -> tuple[bytes, int | None]:
    """An answer's body, and how much of it is JSON; None when all is."""
    raw = [tensors.raw(output) if output.binary else None for output in response.outputs]
    document: dict[str, Any] = {"model_name": response.model, "model_version": response.version}
    if response.id:
        document["id"] = response.id
    if response.parameters:
        document["parameters"] = response.parameters
    document["outputs"] = [_written(output, data) for output, data in zip(response.outputs, raw, strict=True)]
    head = json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    tail = [data for data in raw if data is not None]
    return b"".join([head, *tail]), len(head) if tail else None


def _written(output: OutputTensor, data: bytes | None) -> dict[str, Any]:
    found = {"name": output.name, "datatype": output.datatype, "shape": list(output.shape)}
    if data is not None:
        return {**found, "parameters": {BINARY_SIZE: len(data)}}
    if isinstance(output.values, list):
        return {**found, "data": [element.decode() for element in output.values]}
    return {**found, "data": output.values.ravel().tolist()}
