"""The bell, on both brokers."""

import json
from queue import Empty

import pytest

from app.queue import QUEUES, RUN_NEXT, TASK_NAMES, Bell, make_celery
from app.settings import Settings
from tests.conftest import free_port
from tests.factories import files_below
from worker.supervision.tasks import TASKS


@pytest.fixture(params=["filesystem", pytest.param("redis", marks=pytest.mark.server)])
def celery(request, home):
    url = "" if request.param == "filesystem" else request.getfixturevalue("redis_url")
    made = make_celery(Settings(home=home, broker_url=url))
    yield made
    made.close()


def take(celery, queue):
    """The messages that wait in a queue, taken out of it."""
    found = []
    with celery.connection_for_read() as connection, connection.SimpleQueue(queue) as waiting:
        while True:
            try:
                message = waiting.get(block=False)
            except Empty:
                return found
            found.append((message.headers["task"], message.payload[0]))
            message.ack()


def test_ring_says_only_which_queue(celery):
    bell = Bell(celery)
    assert bell.reachable()
    for queue in ("gpu", "cpu", "cpu"):
        assert bell.ring(queue)
    assert take(celery, "cpu") == [(RUN_NEXT, ["cpu"])] * 2
    assert take(celery, "gpu") == [(RUN_NEXT, ["gpu"])]
    assert [take(celery, queue) for queue in QUEUES] == [[], []]


def test_messages_of_the_default_broker_lie_in_the_home(home):
    celery = make_celery(Settings(home=home))
    assert Bell(celery).ring("cpu")
    (path,) = files_below(home / "broker" / "messages")
    with open(path) as file:  # noqa: PTH123
        assert json.load(file)["headers"]["task"] == RUN_NEXT


def test_broker_that_is_away_is_no_error(home):
    bell = Bell(make_celery(Settings(home=home, broker_url=f"redis://127.0.0.1:{free_port()}/0")))
    assert not bell.ring("cpu")
    assert not bell.reachable()


def test_every_task_has_a_function():
    assert set(TASKS) == set(TASK_NAMES)
