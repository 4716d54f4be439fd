"""The clock of an attempt."""

import io
import time

from worker.attempt.progress import Reporter


def test_the_clock_starts_when_the_supervisor_asked_for_the_process():
    assert (
        Reporter(io.StringIO()).elapsed_seconds < Reporter(io.StringIO(), began=time.monotonic() - 60).elapsed_seconds
    )
    assert Reporter(io.StringIO(), began=time.monotonic() - 60).elapsed_seconds >= 60
