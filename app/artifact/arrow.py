"""Arrow arrays straight from buffers, and numbers straight out of them.

`pa.array` and `to_numpy` import pandas, where installed, only to ask whether a Series is meant: a third of a second and
40 MB for nothing.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def numbers(values_N: NDArray[Any], is_missing_N: NDArray[np.bool_] | None = None) -> pa.Array:
    """Numbers, null where missing."""
    values_N = np.ascontiguousarray(values_N)
    buffers = [_valid(is_missing_N), pa.py_buffer(values_N)]
    return pa.Array.from_buffers(pa.from_numpy_dtype(values_N.dtype), len(values_N), buffers)


def plain(values: pa.Array, null: float | None = None) -> NDArray[Any]:
    """Numbers as they lie in the buffer, a view of it where none is null.

    Args:
        values: integers or floats of whole bytes.
        null: what stands for a null.

    Raises:
        ValueError: there is a null, and nothing to stand for it.
    """
    dtype = np.dtype(values.type.to_pandas_dtype())
    if not len(values):
        return np.empty(0, dtype)
    valid, data = values.buffers()
    found_N = np.frombuffer(data, dtype, len(values), values.offset * dtype.itemsize)
    if not values.null_count:
        return found_N
    if null is None:
        raise ValueError(
            f"Expected {len(values)} numbers, found {values.null_count} nulls among them; say what they are."
        )
    bits = np.unpackbits(np.frombuffer(valid, np.uint8), bitorder="little")
    return np.where(bits[values.offset : values.offset + len(values)], found_N, dtype.type(null))


def texts(values: Sequence[str | None]) -> pa.Array:
    """Strings; None is null."""
    encoded = [b"" if value is None else value.encode() for value in values]
    lengths_N = np.fromiter(map(len, encoded), dtype=np.int64, count=len(encoded))
    is_missing_N = np.fromiter((value is None for value in values), dtype=np.bool_, count=len(encoded))
    return strings(pa.string(), lengths_N, b"".join(encoded), is_missing_N)


def strings(
    kind: pa.DataType,
    lengths_N: NDArray[np.int64],
    data: bytes | memoryview,
    is_missing_N: NDArray[np.bool_] | None = None,
) -> pa.Array:
    """Texts or binaries that lie one after another in `data`; null where missing."""
    ends = np.concatenate([[0], np.cumsum(lengths_N)]).astype(np.int32)
    return pa.Array.from_buffers(kind, len(lengths_N), [_valid(is_missing_N), pa.py_buffer(ends), pa.py_buffer(data)])


def lists(ends_N1: NDArray[np.int64], values: NDArray[np.int64]) -> pa.Array:
    """Lists of numbers: the i-th is values[ends[i]:ends[i + 1]]."""
    return lists_of(ends_N1, numbers(values))


def lists_of(ends_N1: NDArray[np.int64], values: pa.Array, is_missing_N: NDArray[np.bool_] | None = None) -> pa.Array:
    """Lists of anything, as `lists`; null where missing."""
    offsets = pa.py_buffer(ends_N1.astype(np.int32))
    buffers = [_valid(is_missing_N), offsets]
    return pa.Array.from_buffers(pa.list_(values.type), len(ends_N1) - 1, buffers, children=[values])


def structs(fields: dict[str, pa.Array], is_missing_N: NDArray[np.bool_] | None = None) -> pa.Array:
    """Rows of at least one field; null where missing."""
    kind = pa.struct([(name, values.type) for name, values in fields.items()])
    values = list(fields.values())
    return pa.Array.from_buffers(kind, len(values[0]), [_valid(is_missing_N)], children=values)


def _valid(is_missing_N: NDArray[np.bool_] | None) -> Any:
    """The bits that say which values are there; None where all are."""
    if is_missing_N is None or not is_missing_N.any():
        return None
    return pa.py_buffer(np.packbits(~is_missing_N, bitorder="little"))
