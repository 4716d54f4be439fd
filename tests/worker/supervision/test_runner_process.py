"""The runner's process: forked from one that has imported ahead, with one job, and gone with its worker."""

import subprocess
import sys
import textwrap

import psutil
import pytest

from tests import processes
from tests.conftest import wait_until
from worker.attempt.document import JobDocument

pytestmark = pytest.mark.server

# Its dataset is gone: the runner says so and ends.
DOCUMENT = JobDocument(
    id="job_7", project="default", attempt=1, kind="transfer", recipe={"method": "linear_probe"}, seed=0,
    report_mode="fast", model_name="m", backbone=None, user_backbones=[], dataset=None, inputs={},
)  # fmt: skip
# A worker in little: a line on its standard input is a job's document, and its answer the runner's last word. It can
# freeze its runners, so that they are still there when they are looked at.
WORKER = textwrap.dedent("""
    import json, os, signal, sys
    from worker.attempt.document import JobDocument
    from worker.supervision import runner_process
    runner_process.prepare(ahead="ahead" in sys.argv, threads=1)
    if "narrow" in sys.argv:
        runner_process.MAX_LINE_BYTES = 64
    print("ready", flush=True)
    for line in sys.stdin:
        runner = runner_process.RunnerProcess(JobDocument.model_validate_json(line))
        if "freeze" in sys.argv:
            os.kill(runner.pid, signal.SIGSTOP)
        messages, closed = [], False
        while not closed:
            batch, closed = runner.receive(30)
            messages += batch
        print(json.dumps([messages[-1] if messages else None, runner.end(5.0)]), flush=True)
""")
FORKED_FROM = "multiprocessing.forkserver"


class Worker:
    """The process, and what it says."""

    def __init__(self, home, *options):
        self.home = home
        self._process = subprocess.Popen(
            [sys.executable, "-c", WORKER, *options], cwd=processes.ROOT, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=processes.environment(home),
        )  # fmt: skip
        assert self._process.stdout.readline() == "ready\n"

    def begin(self):
        self._process.stdin.write(DOCUMENT.model_dump_json() + "\n")
        self._process.stdin.flush()

    def answer(self):
        return self._process.stdout.readline()

    def run(self):
        self.begin()
        return self.answer()

    def source(self):
        """The process that runners are forked from."""
        (found,) = (one for one in psutil.Process(self._process.pid).children() if FORKED_FROM in one.cmdline()[-1])
        return found

    def runner(self):
        """Its runner, frozen or about to be."""
        wait_until(lambda: self.source().children(), "a runner")
        return self.source().children()[0]

    def kill(self):
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            pipe.close()


@pytest.fixture
def start(home):
    home.mkdir(exist_ok=True)
    started = []

    def begin(*options):
        started.append(Worker(home, *options))
        return started[-1]

    yield begin
    for worker in started:
        worker.kill()
    processes.wait_for_end(processes.members(home))


REFUSED = '"code": "dataset_invalid"'


@pytest.mark.parametrize("options", [("ahead",), ()])
def test_one_process_for_each_job(start, home, options):
    worker = start(*options)
    for _ in range(2):
        answer = worker.run()
        assert REFUSED in answer
        assert answer.endswith(", 0]\n")
        assert processes.named(home, "worker.runner") == []


@pytest.mark.parametrize("options", [("ahead",), ()])
def test_what_most_jobs_need_is_imported_before_the_first(start, options):
    """The fork server passes over a module that is not there in silence, and every job would import for itself."""
    worker = start(*options)
    worker.run()
    is_there = any("onnxruntime" in one.path for one in worker.source().memory_maps())
    assert is_there is ("ahead" in options)


def test_source_that_died_is_started_again(start):
    worker = start("ahead")
    first = worker.source()
    first.kill()
    processes.wait_for_end([first])
    assert REFUSED in worker.run()
    assert worker.source().pid != first.pid


def test_a_runner_that_says_too_much_at_once_fails_its_job(start):
    """Its supervisor has all jobs of the machine to lose."""
    answer = start("narrow").run()
    assert '"code": "internal"' in answer
    assert "in one message of the job's process; found more" in answer


def test_killed_runner_is_said_by_its_signal(start):
    worker = start("freeze")
    worker.begin()
    runner = worker.runner()
    runner.kill()
    assert worker.answer() == "[null, -9]\n"
    processes.wait_for_end([runner])


def test_all_end_when_the_worker_is_gone(start):
    worker = start("freeze")
    source = worker.source()
    worker.begin()
    runner = worker.runner()
    wait_until(lambda: runner.status() == psutil.STATUS_STOPPED, "a frozen runner")
    worker.kill()
    runner.resume()
    processes.wait_for_end([source, runner])
