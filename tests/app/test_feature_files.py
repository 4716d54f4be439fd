"""Rows as numpy reads them, and a full disk that says it is one."""

import errno

import numpy as np
import pytest

from app import feature_files


@pytest.mark.parametrize(
    "rows", [np.arange(12, dtype=np.float16).reshape(3, 4), np.ones((2, 3, 4), np.float32)[:, ::2], np.empty((0, 5))]
)
def test_rows_are_what_numpy_reads(tmp_path, rows):
    feature_files.write_rows(tmp_path / "rows.npy", rows)
    for mode in (None, "r") if rows.size else (None,):
        found = np.load(tmp_path / "rows.npy", mmap_mode=mode)
        np.testing.assert_array_equal(found, rows)
        assert found.dtype == rows.dtype


def test_a_disk_without_room_for_rows_says_so(small_disk):
    with pytest.raises(OSError, match=r".") as caught:
        feature_files.write_rows(small_disk / "rows.npy", np.zeros((4096, 1280), np.float32))
    assert caught.value.errno in {errno.ENOSPC, errno.EFBIG}
