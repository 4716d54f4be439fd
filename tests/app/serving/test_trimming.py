"""What is freed goes back to the system."""

import sys

import psutil
import pytest

from app.serving import memory


@pytest.mark.skipif(sys.platform != "linux", reason="other allocators cannot be told")
def test_freed_memory_is_given_back():
    process, size, number = psutil.Process(), 10_000, 20_000
    pieces = [bytearray(size) for _ in range(number)]
    held = process.memory_info().rss
    # What stays lies between what goes.
    del pieces[: number // 2], pieces[1::2]
    memory.trim()
    assert process.memory_info().rss < held - size * number / 2
    assert pieces
