"""Supervision of real runner processes."""

import threading
from contextlib import ExitStack

import psutil
import pytest

from app.db.session import Database
from app.queue import Bell, make_celery
from app.settings import Settings
from tests import factories, processes
from tests.worker.supervision.benches import Bench
from worker.supervision.worker_context import WorkerContext


@pytest.fixture
def context(settings, database, storage):
    """A worker whose one slot is free, on both databases."""
    return WorkerContext(
        settings=settings, database=database, storage=storage, bell=Bell(make_celery(settings)), worker_id="w1",
        queues=("cpu",), stopping=threading.Event(), slots=threading.Semaphore(1),
    )  # fmt: skip


@pytest.fixture
def open_bench(storage, home, tmp_path, monkeypatch):
    """Makes the worker of a home, with its settings in the environment that its runners read."""
    opened = []
    stack = ExitStack()

    def open_on(database_url):
        settings = {"prepared": factories.prepared(tmp_path / "prepared"), "database_url": database_url}
        for name, value in processes.environment(home, **settings).items():
            monkeypatch.setenv(name, value)
        home.mkdir(exist_ok=True)
        opened.append(Database(database_url))
        stack.enter_context(processes.runners_of_this_process())
        return Bench(Settings(), opened[0], storage)

    with stack:
        yield open_on
        _, left = psutil.wait_procs(processes.named(home, "worker.runner"), 10)
        # One that a failed test has stopped would keep the process that it comes from from ending.
        for runner in left:
            runner.kill()
    opened[0].dispose()
    assert left == []


@pytest.fixture
def bench(open_bench, light):
    return open_bench(light.database_url)
