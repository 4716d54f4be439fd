"""Numbers out of Arrow's buffers, against Arrow's own conversion."""

import numpy as np
import pyarrow as pa
import pytest

from app.artifact import arrow


@pytest.mark.parametrize("kind", [pa.int8(), pa.int64(), pa.uint64(), pa.float64()])
@pytest.mark.parametrize(("start", "length"), [(0, 20), (3, 11), (9, 0)])
def test_plain_numbers_are_those_of_the_array(kind: pa.DataType, start: int, length: int) -> None:
    values = pa.array(range(20), kind).slice(start, length)
    found = arrow.plain(values)
    assert found.dtype == kind.to_pandas_dtype()
    np.testing.assert_array_equal(found, values.to_pylist())


@pytest.mark.parametrize("start", [0, 1, 9])
def test_nulls_are_what_was_asked_for(start: int) -> None:
    values = pa.array([1, None, 3, 4, None, 6, 7, 8, 9, None, 11], pa.int64()).slice(start)
    np.testing.assert_array_equal(arrow.plain(values, -1), values.fill_null(-1).to_pylist())
    with pytest.raises(ValueError, match="nulls"):
        arrow.plain(values)
    floats = arrow.plain(values.cast(pa.float64()), np.nan)
    np.testing.assert_array_equal(np.isnan(floats), values.is_null().to_pylist())


@pytest.mark.parametrize("missing", [[], [0, 3], [0, 1, 2, 3]])
def test_lists_and_structs_are_those_that_arrow_makes(missing: list[int]) -> None:
    is_missing_N = np.isin(np.arange(4), missing)
    texts = arrow.texts(["a", "b", "c", "d"])
    numbers = arrow.numbers(np.arange(4))
    rows = [None if gone else {"t": text, "n": number} for number, (text, gone) in
            enumerate(zip("abcd", is_missing_N, strict=True))]  # fmt: skip
    made = arrow.structs({"t": texts, "n": numbers}, is_missing_N)
    made.validate(full=True)
    assert made.equals(pa.array(rows, pa.struct([("t", pa.string()), ("n", pa.int64())])))
    lengths_N = np.array([2, 0, 1, 1]) * ~is_missing_N
    ends_N1 = np.concatenate([[0], np.cumsum(lengths_N)])
    made = arrow.lists_of(ends_N1, texts, is_missing_N)
    made.validate(full=True)
    wanted = [None if gone else list("abcd"[first:end]) for first, end, gone in
              zip(ends_N1, ends_N1[1:], is_missing_N, strict=False)]  # fmt: skip
    assert made.to_pylist() == wanted


@pytest.mark.parametrize("values", [[], ["caf\u00e9", "", "b"], ["a", None, "", "c"], [None] * 9])
def test_texts_are_those_that_arrow_makes(values: list[str | None]) -> None:
    made = arrow.texts(values)
    made.validate(full=True)
    assert made.equals(pa.array(values, pa.string()))
