"""Counters of versions: what ended well, what did not, and what was computed."""

from concurrent.futures import Future

import numpy as np

from app.errors import BadRequest
from app.serving.call import Result, Timing
from app.serving.statistics import Counters, Duration, Statistics


def result(number, **timing):
    return Result(np.zeros((number, 3), np.float32), np.zeros((number, 6), np.float32), Timing(**timing))


def test_each_end_is_counted_where_it_belongs():
    statistics = Statistics()
    good, bad, dropped = (statistics.watch("a", Future()) for _ in range(3))
    assert statistics.of("a") == Counters()
    good.set_result(result(4, decode=0.5, queue=0.25, compute=2.0, batches=2))
    bad.set_exception(BadRequest("expected an image; found none"))
    dropped.cancel()
    found = statistics.of("a")
    assert (found.success.count, found.fail.count) == (1, 2)
    assert found.success.ns > 0
    assert found.compute_input == Duration(1, 500_000_000)
    assert found.queue == Duration(1, 250_000_000)
    assert found.compute_infer == Duration(1, 2_000_000_000)
    assert (found.inference_count, found.execution_count) == (4, 2)
    assert found.last_inference_ms > 1_500_000_000_000
    assert statistics.of("b") == Counters()


def test_what_is_read_does_not_change():
    statistics = Statistics()
    statistics.watch("a", Future()).set_result(result(1))
    found = statistics.of("a")
    statistics.watch("a", Future()).set_result(result(1))
    assert (found.inference_count, statistics.of("a").inference_count) == (1, 2)
