"""What becomes of requests when an engine is closed: each ends, wherever it is."""

import threading
import time

import pytest

from app.errors import Overloaded
from app.serving.engine import Engine
from app.serving.model import Graph
from app.serving.runtime import Session
from tests.app.onnx_factories import backbone_bytes, images
from tests.app.serving.engines import SECONDS, encoded, served, until, watched


@pytest.fixture
def held():
    """An engine on one core that closes in a thread, a model, and its backbone, which is held."""
    engine = Engine(1 << 30, 1)
    model, session = watched(engine)
    session.door.clear()
    yield engine, model, session
    session.door.set()
    engine.close()


def closing(engine):
    thread = threading.Thread(target=engine.close)
    thread.start()
    return thread


def test_a_closed_engine_ends_what_waits(held):
    engine, model, session = held
    first = engine.submit(model, images(1))
    assert session.entered.acquire(timeout=SECONDS)
    waiting = engine.submit(model, images(1))
    thread = closing(engine)
    with pytest.raises(Overloaded, match="shutting down"):
        waiting.result(SECONDS)
    session.door.set()
    thread.join(SECONDS)
    assert len(first.result(SECONDS).probabilities_NC) == 1
    with pytest.raises(Overloaded, match="shutting down"):
        engine.submit(model, images(1))


def test_closing_ends_decodes_that_are_queued(held):
    """And the one that is under way, and what has come out of decoders in part."""
    engine, model, session = held
    large = encoded(3, size=(3000, 3000))
    first = engine.submit(model, images(1))
    assert session.entered.acquire(timeout=SECONDS)
    partly = engine.submit(model, [encoded(seed) for seed in range(100)])
    until(lambda: list(engine._lanes))
    decoding = [engine.submit(model, [large]) for _ in range(20)]
    thread = closing(engine)
    # While the only runner is held.
    for future in (partly, *decoding):
        with pytest.raises(Overloaded, match="shutting down; send it again"):
            future.result(SECONDS)
    assert not first.done()
    session.door.set()
    thread.join(SECONDS)
    assert len(first.result(SECONDS).probabilities_NC) == 1
    assert engine.num_images == 0


def test_closing_ends_what_is_computed_in_part(held):
    """One batch of it is answered by the graph; the next one is not begun."""
    engine, model, session = held
    future = engine.submit(model, images(40))
    assert session.entered.acquire(timeout=SECONDS)
    thread = closing(engine)
    with pytest.raises(Overloaded, match="shutting down"):
        future.result(SECONDS)
    session.door.set()
    thread.join(SECONDS)
    assert len(session.sizes) == 1


def test_closing_ends_what_waits_for_a_graph_that_is_being_loaded():
    engine, door = Engine(1 << 30, 1), threading.Event()
    slow = served(backbone=Graph("slow", lambda _: door.wait(SECONDS) and Session(backbone_bytes(), threads=1)))
    futures = [engine.submit(slow, [encoded(seed)]) for seed in range(30)]
    until(lambda: len(engine._waiting.get("slow/1", ())) > 1)
    thread = closing(engine)
    until(lambda: engine._closed)
    door.set()
    thread.join(SECONDS)
    assert not thread.is_alive()
    assert all(future.done() for future in futures)
    assert engine.num_images == 0


def test_no_request_of_many_stays_open():
    """Closed at some moment of a flood of encoded images: every future ends within the call."""
    for number in range(5):
        engine = Engine(1 << 30, 2)
        futures = [engine.submit(served(), [encoded(seed) for seed in range(seed % 40 + 1)]) for seed in range(60)]
        time.sleep(0.01 * number)
        engine.close()
        assert all(future.done() for future in futures)
        for future in futures:
            assert future.exception() is None or isinstance(future.exception(), Overloaded)
        assert engine.num_images == 0
