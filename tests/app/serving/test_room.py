"""What is refused: by the line of a backbone and its own rate, and by what the projects in it hold."""

import threading
import time

import pytest

from app.errors import Overloaded
from app.serving import lanes, room
from app.serving.engine import Engine
from app.serving.model import Graph
from app.serving.room import Limits, Room
from app.serving.runtime import Session
from tests.app.onnx_factories import backbone_bytes, heavy_backbone_bytes, images
from tests.app.serving.engines import SECONDS, Watched, load, running, served, until

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
            # Several times, so that it is more than ten times as slow on every machine.
            for _ in range(4 * self.is_heavy):
                heavy.run(batch)
            return super().run(batch)

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
    found.enter("slow", 1, "p")
    found.ran("slow", 1, 100.0, 100.0, is_last=True)
    assert found.per_second("slow") == pytest.approx(0.01)
    found.check(["slow"], "p")
    found.enter("slow", 1, "p")
    with pytest.raises(Overloaded, match=r"found 2 images before it, about 200\.0 s"):
        found.check(["slow"], "p")
    found.leave("slow", 1, "p")
    found.check(["slow"], "p")
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
    found.enter("a", 30, "p")
    for _ in range(3):
        clock[0] += 1
        found.ran("a", 10, 1.0, 1.0, is_last=False)
    assert found.per_second("a") == pytest.approx(10)
    # What was still in line has been cancelled.
    found.leave("a", 30, "p")
    clock[0] += 3600
    found.ran("a", 1, 1.0, 1.0, is_last=True)
    assert found.per_second("a") == pytest.approx(10)


def test_rates_are_bounded_in_number_and_lines_end(monkeypatch):
    monkeypatch.setattr(room, "NUM_RATES", 3)
    found = Room(Limits(), num_threads=1)
    for name in "abcdad":
        found.enter(name, 2, "p")
        found.ran(name, 2, 1.0, 1.0, is_last=True)
        found.leave(name, 2, "p")
    assert [name for name in "abcd" if found.per_second(name)] == ["a", "c", "d"]
    assert found.num_images == 0
    assert not found._waiting


def test_images_in_all_are_bounded_whatever_they_are_for():
    found = Room(Limits(max_images=10), num_threads=1)
    for name in ("a", "b"):
        found.enter(name, 5, "p")
    for backbones in (["a"], ["c"], []):
        with pytest.raises(Overloaded, match="found 10 images before it"):
            found.check(backbones, "p")
    found.leave("b", 5, "p")
    found.check(["a"], "p")


def let_in(found, project, most=10_000):
    """How many images of a project come one by one into the line of `b` before one is refused."""
    for number in range(most):
        try:
            found.check(["b"], project)
        except Overloaded:
            return number
        found.enter("b", 1, project)
    return most


def test_in_a_full_line_a_project_is_let_in_until_it_would_wait_as_long_as_the_others():
    found = Room(Limits(max_wait_seconds=5), num_threads=1)
    found.ran("b", 100, 1.0, 1.0, is_last=True)
    assert let_in(found, "flood") == 501
    found.check(["b"], "quiet")
    # Each of its images has one of the other's before it.
    assert let_in(found, "quiet") == 250
    assert let_in(found, "third") == 167
    with pytest.raises(Overloaded, match=r"found 918 images before it, about 9\.2 s"):
        found.check(["b"], "flood")
    # What comes next to the line of a project that is alone, all of it stands before.
    found.leave("b", 501, "flood")
    found.leave("b", 167, "third")
    assert let_in(found, "quiet") == 251


def test_where_too_many_are_in_the_engine_a_project_is_let_in_up_to_its_share_of_so_many():
    found = Room(Limits(max_images=12), num_threads=1)
    assert [let_in(found, name) for name in ("flood", "quiet", "third")] == [12, 6, 4]
    assert [let_in(found, name) for name in ("flood", "quiet", "third")] == [0, 0, 0]
    # Whatever backbone it is for.
    with pytest.raises(Overloaded, match="found 22 images before it"):
        found.check([], "flood")
    found.check([], "fourth")
    found.leave("b", 2, "third")
    assert [let_in(found, name) for name in ("flood", "quiet", "third")] == [0, 0, 2]
    found.leave("b", 12, "flood")
    found.leave("b", 6, "quiet")
    assert let_in(found, "third") == 8


def test_a_project_that_asks_too_much_refuses_itself_and_no_other_one_on_its_backbone():
    """With threads of both that ask as fast as they can, while the line is full."""
    model = served(backbone=Graph("heavy", lambda threads: Session(HEAVY, threads)))
    stop, refused = threading.Event(), []
    with running(2, Limits(max_wait_seconds=0.5)) as engine:
        load(engine, model)
        engine.submit(model, images(40)).result(SECONDS)

        def flood():
            while not stop.is_set():
                try:
                    engine.submit(model, images(4), project="flood")
                except Overloaded:
                    refused.append(time.monotonic())
                    time.sleep(0.005)

        threads = [threading.Thread(target=flood) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            until(lambda: refused)
            before = len(refused)
            for _ in range(10):
                engine.submit(model, images(1), project="quiet").result(SECONDS)
            assert len(refused) > before
        finally:
            stop.set()
            for thread in threads:
                thread.join()
