"""The names of an upload: what a dict of them would say, in a tenth of its memory."""

import tracemalloc

from worker.data.names import Names


def test_names_give_the_row_that_they_came_with_first() -> None:
    names, expected = Names(), {}
    for row in range(20_000):
        name = f"{row * 7919 % 12_000}.png"
        assert names.first(name, row) == expected.setdefault(name, row)


def test_names_take_little_memory() -> None:
    num = 100_000
    tracemalloc.start()
    try:
        names = Names()
        for row in range(num):
            names.first(f"photos/{row}.jpg", row)
        held, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 30 * num
    # Growing takes a second table beside the first.
    assert most < 45 * num
