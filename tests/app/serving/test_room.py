"""What is refused: by the line of a backbone and its own rate."""

import pytest

from app.errors import Overloaded
from app.serving import lanes, room
from app.serving.engine import Engine
from app.serving.model import Graph
from app.serving.room import Limits, Room
from app.serving.runtime import Session
from tests.app.onnx_factories import backbone_bytes, heavy_backbone_bytes, images
from tests.app.serving.test_engine import SECONDS, Watched, load, running, served, until

HEAVY = heavy_backbone_bytes()
LIMITS = Limits(max_wait_seconds=0.5)


def admitted(engine, model, most):
    """How many of so many images that come one by one are let in before one is refused."""
    for number in range(most):
        try:
            engine.submit(model, images(1))
        except Overloaded:
            return number
    return most


@pytest.fixture
def pair():
    """An engine on one core, a fast model, and one that is hundreds of times slower and can be held."""
    session = Watched(HEAVY)
    engine = Engine(1 << 30, 1, LIMITS)
    fast, slow = (
        served(backbone=Graph("fast", lambda _: Session(backbone_bytes(), 1))),
        served(backbone=Graph("slow", lambda _: session)),
    )
    load(engine, fast, slow)
    session.forget()
    yield engine, fast, slow, session
    session.door.set()
    engine.close()


@pytest.mark.parametrize("slow_first", [True, False])
def test_neither_a_slow_model_nor_a_fast_one_counts_for_the_other(pair, slow_first):
    engine, fast, slow, session = pair
    asked = [(slow, 40), (fast, 400)]
    for model, number in asked if slow_first else asked[::-1]:
        engine.submit(model, images(number)).result(SECONDS)
    # Nothing is computed while they come: what is let in depends on the rates alone.
    session.forget()
    session.door.clear()
    engine.submit(slow, images(1))
    assert session.entered.acquire(timeout=SECONDS)
    of_slow = admitted(engine, slow, 1000)
    assert of_slow < 1000
    with pytest.raises(Overloaded, match=f"found {of_slow + 1} images before it"):
        engine.submit(slow, images(1))
    assert admitted(engine, fast, 2 * of_slow) == 2 * of_slow


def test_an_overload_of_one_model_does_not_refuse_another_at_the_door(pair):
    engine, _, slow, session = pair
    engine.submit(slow, images(40)).result(SECONDS)
    session.forget()
    session.door.clear()
    engine.submit(slow, images(1))
    assert session.entered.acquire(timeout=SECONDS)
    assert admitted(engine, slow, 1000) < 1000
    with pytest.raises(Overloaded):
        engine.check_room(["slow"])
    # One that is fast, may be fast, or is unknown.
    for backbones in (["fast"], ["slow", "fast"], ["another"], []):
        engine.check_room(backbones)


def test_a_rate_that_was_low_once_rises_again_where_images_come_one_by_one(monkeypatch):
    """Also where another model leaves no runner idle."""
    monkeypatch.setattr(lanes, "BATCH_SECONDS", 1000.0)

    class Changing(Session):
        is_heavy = True

        def run(self, batch):
            return super().run(batch) if not self.is_heavy else (heavy.run(batch), super().run(batch))[1]

    heavy = Session(HEAVY, 1)
    model = served(backbone=Graph("changing", lambda _: Changing(backbone_bytes(), threads=1)))
    other = served(backbone=Graph("other", lambda _: Session(backbone_bytes(seed=1), threads=1)))
    with running(1) as engine:
        load(engine, model, other)
        futures = [engine.submit(model, images(20)) for _ in range(2)]
        for future in futures:
            future.result(SECONDS)
        low = engine.room.per_second("changing")
        assert low > 0
        Changing.is_heavy = False

        def rises():
            busy = [engine.submit(other, images(64)) for _ in range(4)]
            engine.submit(model, images(1)).result(SECONDS)
            for future in busy:
                future.result(SECONDS)
            return engine.room.per_second("changing") > 10 * low

        until(rises)


def test_a_rate_under_the_limit_keeps_nobody_out_for_good():
    """One that says that every image waits too long lets in what a core is free for, and so is measured again."""
    found = Room(Limits(max_wait_seconds=5.0), num_threads=2)
    found.enter("slow", 1)
    found.ran("slow", 1, 100.0, 100.0, is_last=True)
    assert found.per_second("slow") == pytest.approx(0.01)
    found.check(["slow"])
    found.enter("slow", 1)
    with pytest.raises(Overloaded, match=r"found 2 images before it, about 200\.0 s"):
        found.check(["slow"])
    found.leave("slow", 1)
    found.check(["slow"])
    found.ran("slow", 1, 0.1, 0.1, is_last=True)
    assert found.per_second("slow") == pytest.approx(10)


def test_the_first_batch_says_how_long_it_was_computed_and_not_how_long_its_graph_was_loaded():
    found = Room(Limits(), num_threads=1)
    found.ran("slow", 16, 60.0, 8.0, is_last=True)
    assert found.per_second("slow") == pytest.approx(2)


def test_time_in_which_nothing_waits_says_nothing(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("app.serving.rate.time.monotonic", lambda: clock[0])
    found = Room(Limits(), num_threads=1)
    found.enter("a", 30)
    for _ in range(3):
        clock[0] += 1
        found.ran("a", 10, 1.0, 1.0, is_last=False)
    assert found.per_second("a") == pytest.approx(10)
    # What was still in line has been cancelled.
    found.leave("a", 30)
    clock[0] += 3600
    found.ran("a", 1, 1.0, 1.0, is_last=True)
    assert found.per_second("a") == pytest.approx(10)


def test_rates_are_bounded_in_number_and_lines_end(monkeypatch):
    monkeypatch.setattr(room, "NUM_RATES", 3)
    found = Room(Limits(), num_threads=1)
    for name in "abcdad":
        found.enter(name, 2)
        found.ran(name, 2, 1.0, 1.0, is_last=True)
        found.leave(name, 2)
    assert [name for name in "abcd" if found.per_second(name)] == ["a", "c", "d"]
    assert found.num_images == 0
    assert not found._waiting


def test_images_in_all_are_bounded_whatever_they_are_for():
    found = Room(Limits(max_images=10), num_threads=1)
    for name in ("a", "b"):
        found.enter(name, 5)
    for backbones in (["a"], ["c"], []):
        with pytest.raises(Overloaded, match="found 10 images before it"):
            found.check(backbones)
    found.leave("b", 5)
    found.check(["a"])
