"""The protocol's gRPC messages, made at run time from the compiled `inference.proto`.

They live in a pool of their own: in protobuf's default one they would clash with those of a client of the same protocol
(package and names are the protocol's) that is imported into the same process.
"""

from functools import cache
from importlib import resources
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "inference"
SERVICE = f"{PACKAGE}.GRPCInferenceService"
COMPILED = "inference.binpb"


@cache
def pool() -> descriptor_pool.DescriptorPool:
    """Descriptors of all messages and of the service."""
    found = descriptor_pool.DescriptorPool()
    compiled = resources.files(__package__).joinpath(COMPILED).read_bytes()
    for file in descriptor_pb2.FileDescriptorSet.FromString(compiled).file:
        found.AddSerializedFile(file.SerializeToString())
    return found


def methods() -> list[Any]:
    """Descriptors of the service's methods."""
    return list(pool().FindServiceByName(SERVICE).methods)


@cache
def message(name: str) -> Any:
    """The class of a message, such as `ModelInferRequest`; nothing but its fields is known of it at type-checking."""
    return message_factory.GetMessageClass(pool().FindMessageTypeByName(f"{PACKAGE}.{name}"))
