"""The runner that waits: it takes one job, it is replaced when it dies, and it ends with its worker."""

import os
import signal

import pytest

from tests import processes
from tests.conftest import wait_until
from worker.document import JobDocument
from worker.runner_process import STANDBY
from worker.standby import Standby

pytestmark = pytest.mark.server


@pytest.fixture
def standby(home, monkeypatch):
    for name, value in processes.environment(home).items():
        monkeypatch.setenv(name, value)
    home.mkdir(exist_ok=True)
    made = Standby(enabled=True)
    yield made
    made.end()
    processes.wait_for_end(processes.named(home, "worker.runner"))


# Its dataset is gone: the runner says so and ends.
DOCUMENT = JobDocument(
    id="job_7", project="default", attempt=1, kind="transfer", recipe={"method": "linear_probe"}, seed=0,
    report_mode="fast", model_name="m", backbone=None, user_backbones=[], dataset=None, inputs={},
)  # fmt: skip


def last_word(runner):
    messages, closed = [], False
    while not closed:
        batch, closed = runner.receive(30)
        messages += batch
    runner.end(5.0)
    return messages[-1]


def waiting(home):
    wait_until(lambda: len(processes.named(home, STANDBY)) == 1, "one runner that waits")
    return processes.named(home, STANDBY)[0]


def test_one_waits_and_takes_the_job(standby, home):
    standby.prepare()
    standby.prepare()
    ahead = waiting(home)
    runner = standby.begin(DOCUMENT)
    assert last_word(runner)["failure"]["code"] == "dataset_invalid"
    assert not processes.alive(ahead), "it was the one that waited, and one job is all that it does"


def test_a_dead_one_is_not_given_a_job(standby, home):
    standby.prepare()
    dead = waiting(home)
    os.killpg(dead.pid, signal.SIGKILL)
    wait_until(lambda: not processes.alive(dead), "its end")
    assert last_word(standby.begin(DOCUMENT))["failure"]["code"] == "dataset_invalid"


def test_it_ends_when_its_worker_is_gone(standby, home):
    standby.prepare()
    ahead = waiting(home)
    # What a kill of the worker does: the pipe closes.
    standby._waiting._process.stdin.close()
    processes.wait_for_end([ahead])


def test_none_is_kept_where_it_is_switched_off(home):
    off = Standby(enabled=False)
    off.prepare()
    assert processes.named(home, STANDBY) == []
