"""The protocol's messages in gRPC's."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import DecodeError

from app.api.oip import tensors
from app.api.oip.messages import InferInput, InferRequest, InferResponse, requested_outputs
from app.api.oip.proto import message
from app.errors import BadRequest

# What UINT8 and BYTES are in when they come typed; the two that an input of ours can have.
CONTENTS = {"BYTES": "bytes_contents", "UINT8": "uint_contents"}


@dataclass(frozen=True)
class Malformed:
    """Bytes that are no message, in its place: what gRPC's own reading raises would be a trace in the log.

    Args:
        kind: of the message that was expected.
        num_bytes: that came.
        model_name: as of a message that does not say.
        id: likewise.
    """

    kind: str
    num_bytes: int
    model_name: str = ""
    id: str = ""


def reader(kind: str) -> Callable[[bytes], Any]:
    """What reads messages of a kind."""
    made = message(kind)

    def read_one(given: bytes) -> Any:
        try:
            return made.FromString(given)
        except DecodeError:
            return Malformed(kind, len(given))

    return read_one


def check(asked: Any) -> None:
    """Refuses what was no message.

    Raises:
        BadRequest: it is one of `Malformed`.
    """
    if isinstance(asked, Malformed):
        raise BadRequest(
            f"expected a {asked.kind} of the protocol's inference.proto; found {asked.num_bytes} bytes that are none; "
            "make the client from that file, and send what it serializes"
        )


def read(asked: Any) -> InferRequest:
    """A `ModelInferRequest`.

    Raises:
        BadRequest: raw contents for some inputs only, or beside typed ones, typed ones in another type's field, or
            outputs that make no sense.
        Unsupported: shared memory.
    """
    raw = asked.raw_input_contents
    if raw and len(raw) != len(asked.inputs):
        raise BadRequest(f"expected raw_input_contents of all {len(asked.inputs)} inputs; found {len(raw)}")
    if raw and any(tensor.HasField("contents") for tensor in asked.inputs):
        raise BadRequest("expected contents of an input or raw_input_contents; found both; send one")
    data: list[memoryview | list[Any]]
    data = [memoryview(one) for one in raw] if raw else [_contents(tensor) for tensor in asked.inputs]
    return InferRequest(
        model=asked.model_name,
        version=asked.model_version,
        id=asked.id,
        parameters=parameters(asked.parameters),
        inputs=tuple(
            InferInput(tensor.name, tensor.datatype, tuple(tensor.shape), found, parameters(tensor.parameters))
            for tensor, found in zip(asked.inputs, data, strict=True)
        ),
        outputs=requested_outputs([(output.name, parameters(output.parameters)) for output in asked.outputs], True),
    )


def parameters(given: Mapping[str, Any]) -> dict[str, Any]:
    """Values of an `InferParameter` map, or of its kin of the repository."""
    found = ((key, value, value.WhichOneof("parameter_choice")) for key, value in given.items())
    return {key: getattr(value, kind) for key, value, kind in found if kind}


def write(response: InferResponse) -> Any:
    """A `ModelInferResponse`, its tensors raw."""
    found = message("ModelInferResponse")(model_name=response.model, model_version=response.version, id=response.id)
    for key, value in response.parameters.items():
        found.parameters[key].string_param = value
    for output in response.outputs:
        found.outputs.add(name=output.name, datatype=output.datatype, shape=output.shape)
        found.raw_output_contents.append(tensors.raw(output))
    return found


def of_document(name: str, document: Mapping[str, Any]) -> Any:
    """The message of that name with the fields of a JSON document."""
    return json_format.ParseDict(document, message(name)())


def _contents(tensor: Any) -> list[Any]:
    """The elements of an input that came typed; none of a datatype that no input has, which is refused later."""
    wanted = CONTENTS.get(tensor.datatype)
    if wanted is None:
        return []
    others = [field.name for field, _ in tensor.contents.ListFields() if field.name != wanted]
    if others:
        raise BadRequest(
            f"expected the contents of {tensor.name[:100]!r} in {wanted}, as datatype {tensor.datatype} says; found "
            f"{', '.join(others)}; put them into {wanted}, or send raw_input_contents"
        )
    return list(getattr(tensor.contents, wanted))
