"""Whose images are decoded and computed first, and how many at a time."""

import threading
import time

import numpy as np

from app.serving import lanes
from app.serving.decoders import WINDOW
from app.serving.engine import Engine
from app.serving.lanes import CPU_BATCH_SIZE
from app.serving.model import Graph
from app.serving.runtime import Session
from tests.app.onnx_factories import backbone_bytes, images
from tests.app.serving.engines import SECONDS, SPEC, WEIGHT, Watched, encoded, load, served, until, watched


def test_images_that_come_during_a_batch_make_the_next_one_together(single):
    model, session = watched(single)
    session.door.clear()
    first = single.submit(model, images(1))
    assert session.entered.acquire(timeout=SECONDS)
    others = [single.submit(model, images(1, seed=seed)) for seed in range(20)]
    session.door.set()
    for future in (first, *others):
        future.result(SECONDS)
    assert session.sizes == [1, *5 * [CPU_BATCH_SIZE]]


def test_heads_share_the_batches_of_their_backbone(single, reference):
    session = Watched(backbone_bytes())
    shared = Graph("watched", lambda _: session)
    models = [served(weight * WEIGHT, shared) for weight in (1, 2, 3)]
    load(single, *models)
    session.forget()
    session.door.clear()
    first = single.submit(models[0], images(1))
    assert session.entered.acquire(timeout=SECONDS)
    futures = [single.submit(model, images(1, seed=7)) for model in models]
    session.door.set()
    first.result(SECONDS)
    features = reference.run(images(1, seed=7)).features
    for factor, future in zip((1, 2, 3), futures, strict=True):
        logits = features @ (factor * WEIGHT.T)
        powers = np.exp(logits - logits.max(1, keepdims=True))
        found = future.result(SECONDS).probabilities_NC
        np.testing.assert_allclose(found, powers / powers.sum(1, keepdims=True), atol=1e-5)
    assert session.sizes == [1, 3]


def test_idle_runners_share_what_waits(engine):
    model, session = watched(engine)
    session.door.clear()
    future = engine.submit(model, images(6))
    for _ in range(2):
        assert session.entered.acquire(timeout=SECONDS)
    assert session.sizes == [3, 3]
    session.door.set()
    assert len(future.result(SECONDS).probabilities_NC) == 6


def test_an_image_alone_gets_all_cores(engine):
    asked = []

    def opened(threads):
        asked.append(threads)
        return Session(backbone_bytes(), threads)

    model = served(backbone=Graph("wide", opened))
    engine.submit(model, images(1)).result(SECONDS)
    engine.submit(model, images(2)).result(SECONDS)
    engine.submit(model, images(1)).result(SECONDS)
    assert asked == [2, 1]


def test_batches_are_as_small_as_the_budget_for_what_runs_demands(monkeypatch):
    """Half of it, shared by all runners; an image more than it holds is run all the same."""
    monkeypatch.setattr(lanes, "BATCH_SECONDS", 1000.0)
    image = 274 * SPEC.preprocess.height * SPEC.preprocess.width
    for budget, largest in ((2 * 3 * image, 3), (2 * 100 * image, CPU_BATCH_SIZE), (image, 1)):
        engine = Engine(budget, 1)
        model, backbone = watched(engine)
        backbone.door.clear()
        first = engine.submit(model, images(1))
        assert backbone.entered.acquire(timeout=SECONDS)
        rest = engine.submit(model, images(21))
        backbone.door.set()
        for call in (first, rest):
            call.result(SECONDS)
        assert max(backbone.sizes) == largest
        engine.close()


def test_a_small_request_does_not_wait_for_a_large_one(single):
    model, session = watched(single)
    session.door.clear()
    large = single.submit(model, [encoded(seed) for seed in range(200)])
    assert session.entered.acquire(timeout=SECONDS)
    small = single.submit(model, [encoded(1)])
    until(lambda: len(list(single._lanes)) == 2)
    session.door.set()
    small.result(SECONDS)
    assert not large.done()
    large.result(SECONDS)


def test_of_what_waits_projects_are_computed_in_turn(single):
    model, session = watched(single)
    session.door.clear()
    order = []

    def ask(project, number):
        future = single.submit(model, images(number), project=project)
        future.add_done_callback(lambda _: order.append(project))
        return future

    first = ask("flood", 1)
    assert session.entered.acquire(timeout=SECONDS)
    futures = [first, *(ask("flood", 1) for _ in range(40)), ask("quiet", 2), ask("third", 1)]
    session.door.set()
    for future in futures:
        future.result(SECONDS)
    # The batch after the one that was held has an image of each, and one more of whoever came first.
    assert order.index("third") <= lanes.CPU_BATCH_SIZE
    assert order.index("quiet") <= 2 * lanes.CPU_BATCH_SIZE


def test_decoders_take_projects_in_turn(single):
    model, _ = watched(single)
    door, order = threading.Event(), []

    class Noted(list):
        """Images of a project that says when a decoder takes one."""

        def __init__(self, project):
            super().__init__([encoded(0)])
            self.project = project

        def __getitem__(self, index):
            assert door.wait(SECONDS)
            order.append(self.project)
            return super().__getitem__(index)

    asked = ["flood"] * 30 + ["quiet"]
    futures = [single.submit(model, Noted(project), project=project) for project in asked]
    door.set()
    for future in futures:
        future.result(SECONDS)
    assert len(order) == len(asked)
    # After the one that was taken at once, and one more.
    assert order.index("quiet") <= 2


def test_decoding_runs_a_window_ahead_and_no_further(single):
    model, session = watched(single)
    session.door.clear()
    future = single.submit(model, [encoded(0)] * 100)
    assert session.entered.acquire(timeout=SECONDS)
    until(lambda: list(single._lanes))
    (call,) = single._lanes
    until(lambda: call.num_under_way == WINDOW and not call.num_decoding)
    time.sleep(0.05)
    assert call.num_taken == WINDOW
    session.door.set()
    assert len(future.result(SECONDS).probabilities_NC) == 100
