"""The safetensors format for numpy arrays: an eight-byte length, a JSON header, then the raw numbers.

Written here in a page because the API process reads and writes small heads and the `safetensors` package belongs to the
worker; files go both ways between the two (https://github.com/huggingface/safetensors, "Format").
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.artifact.spec import BundleError

_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2",
    "I8": "|i1", "U8": "|u1", "BOOL": "|b1",
}  # fmt: skip
# A header has some 100 bytes for each array.
MAX_HEADER_BYTES = 16 * 2**20
_NAMES = {np.dtype(code): name for name, code in _DTYPES.items()}


def dump(tensors: Mapping[str, NDArray[Any]]) -> bytes:
    """Named arrays -> the bytes of a safetensors file; names sorted, so that equal arrays give equal bytes.

    Raises:
        ValueError: an array of a type that the format does not have.
    """
    header: dict[str, Any] = {}
    parts: list[bytes] = []
    end = 0
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name]).reshape(np.shape(tensors[name]))
        kind = _NAMES.get(array.dtype)
        if kind is None:
            raise ValueError(f"expected {name!r} to be one of {sorted(_DTYPES)}; found {array.dtype}; convert it")
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [end, end + array.nbytes]}
        parts.append(array.tobytes())
        end += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *parts])


def shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a safetensors file, from its header alone."""
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return {name: tuple(entry["shape"]) for name, entry in header.items() if name != "__metadata__"}


def load(path: Path) -> dict[str, NDArray[Any]]:
    """A safetensors file -> named arrays (read-only views of one buffer).

    Raises:
        BundleError: the file is not what the format says.
    """
    return loads(path.read_bytes(), path.name)


def loads(data: bytes, name: str) -> dict[str, NDArray[Any]]:
    """The bytes of a safetensors file -> named arrays (read-only views of them).

    Args:
        data: all of the file.
        name: what an error calls it.

    Raises:
        BundleError: the bytes are not what the format says.
    """
    start = 8 + int.from_bytes(data[:8], "little")
    try:
        if start > min(len(data), MAX_HEADER_BYTES):
            raise ValueError(f"a header of {start} bytes in a file of {len(data)}")
        header = json.loads(data[8:start])
        header.pop("__metadata__", None)
        return {name: _view(data, start, entry) for name, entry in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"expected {name} to be safetensors; found {error!r}; restore the file") from error


def _view(data: bytes, start: int, entry: dict[str, Any]) -> NDArray[Any]:
    dtype = np.dtype(_DTYPES[entry["dtype"]])
    shape = tuple(map(int, entry["shape"]))
    begin, end = entry["data_offsets"]
    if not 0 <= begin <= end <= len(data) - start or end - begin != dtype.itemsize * math.prod(shape):
        raise ValueError(f"{shape} does not fit bytes {begin} to {end} of {len(data) - start}")
    return np.frombuffer(data, dtype, math.prod(shape), start + begin).reshape(shape)
