"""Counters of versions: what ended well, what did not, and what was computed."""

import os
from concurrent.futures import Future

import numpy as np

from app.errors import BadRequest
from app.serving.board import Board
from app.serving.call import Result, Timing
from app.serving.statistics import OTHERS, Statistics
from app.serving.tally import Counters, Duration, Present
from tests.conftest import wait_until


def result(number, **timing):
    return Result(np.zeros((number, 3), np.float32), np.zeros((number, 6), np.float32), Timing(**timing))


def test_each_end_is_counted_where_it_belongs():
    statistics = Statistics()
    good, bad, dropped = (statistics.watch("a", Future()) for _ in range(3))
    assert statistics.total().of("a") == Counters()
    assert statistics.total().pending == {"a": 3}
    good.set_result(result(4, decode=0.5, queue=0.25, compute=2.0, batches=2))
    bad.set_exception(BadRequest("expected an image; found none"))
    dropped.cancel()
    found = statistics.total().of("a")
    assert (found.success.count, found.fail.count) == (1, 2)
    assert found.success.ns > 0
    assert found.compute_input == Duration(1, 500_000_000)
    assert found.queue == Duration(1, 250_000_000)
    assert found.compute_infer == Duration(1, 2_000_000_000)
    assert (found.inference_count, found.execution_count) == (4, 2)
    assert found.last_inference_ms > 1_500_000_000_000
    assert statistics.total().of("b") == Counters()
    assert statistics.total().pending == {}


def test_what_is_read_does_not_change():
    statistics = Statistics()
    statistics.watch("a", Future()).set_result(result(1))
    found = statistics.total().of("a")
    statistics.watch("a", Future()).set_result(result(1))
    assert (found.inference_count, statistics.total().of("a").inference_count) == (1, 2)


def test_names_that_no_model_can_have_are_counted_together():
    statistics = Statistics()
    for name in ("tiny", "a" * 100, "a" * 101, "a" * 2**20, "no name", "a\n", OTHERS):
        statistics.refused("default", name, "overloaded")
    found = statistics.total().refused["default"]
    assert found == {"tiny": {"overloaded": 1}, "a" * 100: {"overloaded": 1}, OTHERS: {"overloaded": 5}}


def test_processes_of_one_service_add_up(tmp_path):
    ours = Statistics(lambda: Present(3, 100, 1), Board(tmp_path), lambda: 4)
    theirs = Statistics(lambda: Present(2, 50, 1), Board(tmp_path), lambda: 3)
    for statistics, number in ((ours, 2), (theirs, 5)):
        statistics.watch("a", Future()).set_result(result(number, decode=0.5))
        statistics.compared(("a", "b"), "same", number)
        statistics.watch("a", Future())
    theirs.watch("c", Future()).set_exception(BadRequest("expected an image; found none"))
    wait_until(lambda: ours.total().of("c").fail.count == 1, "the other's page")
    total = ours.total()
    assert total.pending == {"a": 2}
    assert (total.of("a").success.count, total.of("a").inference_count) == (2, 7)
    assert total.of("a").compute_input == Duration(2, 1_000_000_000)
    for buckets in (total.of("a").buckets, total.of("a").infer_buckets, total.of("a").output_buckets):
        assert sum(buckets) == 2
    # 0.5 s is the seventh upper end.
    assert total.of("a").input_buckets == [0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0]
    assert total.compared == {"a": {"b": {"same": 7}}}
    assert (total.present, total.loads) == (Present(5, 150, 2), 7)
    # What a process has counted stays when it has ended, what it held does not.
    theirs.close()
    for page in tmp_path.glob("*.json"):
        os.utime(page, (1, 1))
    assert ours.total().of("a").inference_count == 7
    assert (ours.total().present, ours.total().pending, ours.total().loads) == (Present(3, 100, 1), {"a": 1}, 7)
    ours.close()
