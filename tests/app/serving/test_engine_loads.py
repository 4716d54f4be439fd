"""Models that an engine loads while it answers, and graphs that go and come."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from app.artifact import heads
from app.artifact.spec import BundleError
from app.errors import NotReady, Unavailable
from app.serving.engine import Engine
from app.serving.model import Graph, Served
from app.serving.runtime import BATCH_SIZE, Runtime, Session
from app.serving.sessions import NUM_LOADERS
from tests.app.onnx_factories import backbone_bytes, images
from tests.app.serving.engines import SECONDS, SPEC, WEIGHT, graph, served


def test_a_model_that_loads_slowly_keeps_no_other_one_waiting(engine):
    """However many of its images wait, and for however many heads."""
    door, opened = threading.Event(), []

    def slow(threads):
        opened.append(threads)
        assert door.wait(SECONDS)
        return Session(backbone_bytes(seed=1), threads)

    loading = [served(weight * WEIGHT, Graph("slow", slow)) for weight in (1, 2, 3)]
    waiting = [engine.submit(loading[number % 3], images(2, seed=number)) for number in range(20)]
    for number in range(3):
        other = served(backbone=graph(backbone_bytes(seed=7 + number)))
        assert len(engine.submit(other, images(4)).result(SECONDS).features_ND) == 4
    assert not any(future.done() for future in waiting)
    door.set()
    for number, future in enumerate(waiting):
        alone = Runtime(Session(backbone_bytes(seed=1)), Session(heads.linear((number % 3 + 1) * WEIGHT, np.zeros(3))))
        expected = alone.run(images(2, seed=number)).probabilities
        np.testing.assert_allclose(future.result(SECONDS).probabilities_NC, expected, atol=1e-5)
    assert opened == [1]


def test_few_models_are_loaded_at_once_however_many_are_asked_for_by_name(engine):
    door, opened = threading.Event(), threading.Semaphore(0)

    def slow(threads):
        opened.release()
        assert door.wait(SECONDS)
        return Session(backbone_bytes(), threads)

    models = [served(backbone=Graph(f"slow {number}", slow)) for number in range(3 * NUM_LOADERS)]
    with ThreadPoolExecutor(len(models)) as threads:
        loads = [threads.submit(engine.load, model) for model in models]
        assert all(opened.acquire(timeout=SECONDS) for _ in range(NUM_LOADERS))
        assert not opened.acquire(timeout=0.2)
        door.set()
        for one in loads:
            one.result(SECONDS)
    assert all(map(engine.trials.passed, models))


def test_the_time_that_a_load_takes_says_nothing_about_the_rate(single):
    def slow(threads):
        time.sleep(0.3)
        return Session(backbone_bytes(), threads)

    futures = [single.submit(served(backbone=Graph("slow", slow)), images(1, seed=seed)) for seed in range(40)]
    for future in futures:
        future.result(SECONDS)
    rate = single.room.per_second("slow")
    assert not rate or rate > 40 / 0.3


def test_all_that_wait_for_storage_that_is_away_are_told_after_one_attempt(engine):
    """One after the other they would fill the engine, and keep those out whose models are in memory."""
    door, opened = threading.Event(), []

    def away(threads):
        opened.append(threads)
        assert door.wait(SECONDS)
        raise Unavailable("expected the object store to answer; found none")

    cold = served(backbone=Graph("cold", away))
    futures = [engine.submit(cold, images(1, seed=seed)) for seed in range(40)]
    door.set()
    for future in futures:
        with pytest.raises(Unavailable, match="found none"):
            future.result(SECONDS)
    assert len(opened) <= 2, "one for the first image, alone, and one for those that came meanwhile"
    assert engine.trials.failure(cold) is None


def test_those_whose_graphs_are_there_are_answered_while_a_head_of_others_is_away(engine):
    door = threading.Event()

    def slow(threads):
        assert door.wait(SECONDS)
        return Session(backbone_bytes(), threads)

    def away(_):
        raise Unavailable("expected the object store to answer; found none")

    backbone = Graph("slow", slow)
    cut_off, whole = replace(served(backbone=backbone), head=Graph("away", away)), served(backbone=backbone)
    lost = engine.submit(cut_off, images(1))
    answered = [engine.submit(whole, images(1, seed=seed)) for seed in range(6)]
    door.set()
    with pytest.raises(Unavailable):
        lost.result(SECONDS)
    for future in answered:
        assert len(future.result(SECONDS).features_ND) == 1


def test_a_graph_that_does_not_load_fails_its_requests_alone(engine):
    def broken(_):
        raise BundleError("expected a graph; found none")

    bad = served(backbone=Graph("bad", broken))
    bad_head = Served(SPEC, graph(backbone_bytes(), "backbone"), Graph("bad head", broken))
    futures = [engine.submit(model, images(2)) for model in (bad, served(), bad_head, served())]
    for future in futures[::2]:
        with pytest.raises(NotReady, match="found none"):
            future.result(SECONDS)
    for future in futures[1::2]:
        assert len(future.result(SECONDS).probabilities_NC) == 2


def test_fifty_models_on_one_backbone_hold_one_backbone(engine):
    weights = np.random.default_rng(0).normal(size=(50, 3, 6))
    for weight in weights:
        engine.submit(served(weight), images(1)).result(SECONDS)
    assert engine.pool.stats().num_entries == 51
    backbone = Session(backbone_bytes())
    backbone.run(images(1))
    heads_only = (Session(heads.linear(weight, np.zeros(3))) for weight in weights)
    size = backbone.size_bytes + sum(head.size_bytes for head in heads_only)
    assert engine.pool.stats().size_bytes == size


def test_fifty_graphs_under_a_budget_of_five_all_answer():
    largest = Session(backbone_bytes())
    largest.run(images(BATCH_SIZE))
    room = 5 * largest.size_bytes
    engine = Engine(room, 2)
    models = [served(backbone=graph(backbone_bytes(seed=seed))) for seed in range(50)]
    futures = [engine.submit(model, images(2)) for _ in range(3) for model in models]
    found = [future.result(SECONDS).features_ND for future in futures]
    for first, second in zip(found[:50], found[50:100], strict=True):
        np.testing.assert_allclose(first, second, atol=1e-5)
    assert engine.pool.stats().size_bytes <= room
    engine.close()


def test_many_threads_many_models_all_right(engine, reference):
    """Random requests from many threads, some cancelled, some bad: every answer is the one that it gets alone."""
    broken = []

    def work(seed):
        chance = np.random.default_rng(seed)
        for _ in range(15):
            factor, pixels = (
                int(chance.integers(1, 4)),
                images(int(chance.integers(1, 40)), seed=int(chance.integers(9))),
            )
            future = engine.submit(served(factor * WEIGHT), pixels)
            if chance.random() < 0.2 and future.cancel():
                continue
            logits = reference.run(pixels).features @ (factor * WEIGHT.T)
            powers = np.exp(logits - logits.max(1, keepdims=True))
            found = future.result(SECONDS).probabilities_NC
            if not np.allclose(found, powers / powers.sum(1, keepdims=True), atol=1e-5):
                broken.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * SECONDS)
    assert not any(thread.is_alive() for thread in threads)
    assert broken == []
