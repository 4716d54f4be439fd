"""Supervision of real runner processes."""

from contextlib import ExitStack

import pytest

from app.db.session import Database
from app.settings import Settings
from tests import factories, processes
from tests.worker.supervision.benches import Bench


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
    opened[0].dispose()
    assert processes.named(home, "worker.runner") == []


@pytest.fixture
def bench(open_bench, light):
    return open_bench(light.database_url)
