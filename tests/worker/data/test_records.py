"""Records in a file: what was put in comes out, in any order, and memory is that of the columns."""

import hashlib
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from worker.data import records as records_module
from worker.data.records import Records
from worker.data.spool import Stored

NUM = 5000


def stored(number: int) -> Stored:
    return Stored(number * 100, number, hashlib.sha256(str(number).encode()).digest())


def path(number: int) -> str:
    return f"k\u00e4tzchen/{'x' * (number % 50)}{number}.png"


@pytest.mark.parametrize("most_bytes", [2**20, 1000])
def test_what_was_found_comes_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most_bytes: int) -> None:
    """Read before it is written as well, together and one by one."""
    monkeypatch.setattr(records_module, "_MOST_BYTES", most_bytes)
    with Records(tmp_path) as records:
        for number in range(NUM):
            assert records.add(path(number), stored(number)) == number
            if number % 1000 == 0:
                assert records.path(number) == path(number)
        order = np.random.default_rng(0).permutation(NUM).tolist()
        for rows in (range(NUM), order, order[:3], [7, 7], []):
            found = list(records.each(rows))
            assert [(one.path, one.sha256, one.offset, one.length) for one in found] == [
                (path(row), stored(row).sha256, stored(row).offset, stored(row).length) for row in rows
            ]
        one = records.at(3)
        # As it has been since the first dataset: a child finds its base's samples by it.
        assert one.id == "s_" + hashlib.sha256(f"{path(3)}\0{stored(3).sha256.hex()}".encode()).hexdigest()[:20]
        assert records.leading(np.array([3])).tolist() == [int(stored(3).sha256.hex()[:16], 16)]
    assert list(tmp_path.iterdir()) == []


def test_records_take_little_memory(tmp_path: Path) -> None:
    num = 50_000
    tracemalloc.start()
    try:
        with Records(tmp_path) as records:
            for number in range(num):
                records.add(f"a folder of a long name/{number}.png", Stored(0, 1, bytes(32)))
                records.set_good(number, 100, 100, number)
            assert sum(one.length for one in records.each(range(num))) == num
            most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # Columns of 25 bytes that grow by an eighth, and what waits to be written.
    assert most < 30 * num + 300_000
