import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save

from app.artifact import tensors
from app.artifact.spec import BundleError

ARRAYS = {
    "weight": np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32),
    "bias": np.arange(3.0),
    "temperature": np.array(1.5, np.float32),
    "none": np.zeros((0, 4), np.float16),
    "turned": np.arange(6, dtype=np.int64).reshape(2, 3).T,
    "mask": np.array([True, False]),
    "klasse \u00fc": np.array([1, 2], np.uint8),
}


def same(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(found[name], array)


def test_the_library_reads_what_we_write(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(tensors.dump(ARRAYS))
    same(load_file(path), ARRAYS)
    same(tensors.load(path), ARRAYS)


def test_we_read_what_the_library_writes(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(
        save({name: np.ascontiguousarray(a).reshape(a.shape) for name, a in ARRAYS.items()}, {"note": "x"})
    )
    same(tensors.load(path), ARRAYS)


def test_numbers_begin_at_a_multiple_of_eight():
    for length in range(1, 12):
        data = tensors.dump({"x" * length: np.zeros(3)})
        assert int.from_bytes(data[:8], "little") % 8 == 0


def test_equal_arrays_give_equal_bytes():
    assert tensors.dump(ARRAYS) == tensors.dump(dict(reversed(ARRAYS.items())))


@pytest.mark.parametrize("array", [np.array(["a"]), np.zeros(2, np.complex128), np.zeros(2, ">f4")])
def test_types_that_the_format_lacks_are_refused(array):
    with pytest.raises(ValueError, match="convert it"):
        tensors.dump({"a": array})


def file_of(header, body=b""):
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"short",
        (1 << 60).to_bytes(8, "little") + b"{}",
        file_of([]),
        file_of({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, bytes(7)),
        file_of({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}, bytes(8)),
        file_of({"a": {"dtype": "F32", "shape": [-1, -2], "data_offsets": [0, 8]}}, bytes(8)),
        file_of({"a": {"dtype": "F32", "shape": [0], "data_offsets": [-8, -8]}}, bytes(8)),
        file_of({"a": {"dtype": "X9", "shape": [2], "data_offsets": [0, 8]}}, bytes(8)),
        file_of({"a": {"shape": [2]}}, bytes(8)),
    ],
)
def test_other_bytes_are_refused(tmp_path, data):
    path = tmp_path / "a.safetensors"
    path.write_bytes(data)
    with pytest.raises(BundleError, match=r"a\.safetensors to be safetensors"):
        tensors.load(path)
