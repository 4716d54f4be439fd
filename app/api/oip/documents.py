"""The protocol's JSON documents, as OpenAPI describes them."""

from typing import Any

from pydantic import BaseModel, Field

RESPONSES: dict[int | str, dict[str, Any]] = {
    "default": {
        "description": "Any error",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/InferenceError"}}},
    }
}


class InferenceError(BaseModel):
    """What went wrong."""

    error: str = Field(description="What was expected, what was found, what to do.")


class LiveOut(BaseModel):
    """The process answers."""

    live: bool


class ReadyOut(BaseModel):
    """Requests can be sent."""

    ready: bool


class ModelReadyOut(BaseModel):
    """The model can be called."""

    name: str
    ready: bool


class ServerMetadataOut(BaseModel):
    """Who answers, and what it speaks beyond the protocol's core."""

    name: str
    version: str
    extensions: list[str]


class TensorMetadataOut(BaseModel):
    """One tensor; -1 is any length."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadataOut(BaseModel):
    """The tensors that a model takes and gives; a request brings one of the inputs."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadataOut]
    outputs: list[TensorMetadataOut]


class ModelsOut(BaseModel):
    """Names of all models."""

    models: list[str]


class ModelIndexOut(BaseModel):
    """One version."""

    name: str
    version: str
    state: str
    reason: str


class OutputTensorOut(BaseModel):
    """An output; `data` is flat and row-major, or behind the JSON when `parameters` have `binary_data_size`."""

    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, Any] | None = None
    data: list[Any] | None = None


class InferResponseOut(BaseModel):
    """The answer to a request."""

    model_name: str
    model_version: str
    id: str | None = None
    parameters: dict[str, Any] | None = None
    outputs: list[OutputTensorOut]
