import io
import threading
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

from app.artifact import heads, preprocess
from app.artifact.spec import BundleError
from app.errors import BadImage, DeadlineExceeded, NotReady, Overloaded
from app.serving import lanes
from app.serving.deadlines import MAX_ENDED
from app.serving.decoders import WINDOW
from app.serving.engine import Engine
from app.serving.lanes import CPU_BATCH_SIZE
from app.serving.model import Graph, Served
from app.serving.room import Limits
from app.serving.runtime import BATCH_SIZE, Runtime, Session
from app.serving.sessions import NUM_LOADERS
from tests.app.onnx_factories import backbone_bytes, images, make_spec

LABELS = ("cat", "dog", "owl")
WEIGHT = np.random.default_rng(5).normal(size=(3, 6)) * 4
SPEC = make_spec(LABELS)
SECONDS = 30


def encoded(seed, size=(20, 14), form="PNG"):
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    pixels //= np.uint8(1 + seed % 5)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form)
    return buffer.getvalue()


class Watched(Session):
    """A real session that notes the sizes of its batches, and runs none while `door` is shut."""

    def __init__(self, data):
        super().__init__(data, threads=1)
        self.door = threading.Event()
        self.door.set()
        self.forget()

    def forget(self):
        self.sizes, self.entered = [], threading.Semaphore(0)

    def run(self, batch):
        self.sizes.append(len(batch))
        self.entered.release()
        assert self.door.wait(SECONDS)
        return super().run(batch)


def graph(data, name=None):
    return Graph(name or str(hash(data)), lambda _: Session(data, threads=1))


def served(weight=WEIGHT, backbone=None, alignment=None, bias=(0, 0, 0)):
    head = heads.linear(weight, np.array(bias, float))
    return Served(SPEC, backbone or graph(backbone_bytes(), "backbone"), graph(head), alignment)


def watched(engine):
    """A model that is in memory and whose backbone can be held, and that backbone."""
    session = Watched(backbone_bytes())
    model = served(backbone=Graph("watched", lambda _: session))
    load(engine, model)
    session.forget()
    return model, session


def load(engine, *models):
    for model in models:
        engine.load(model)


@contextmanager
def running(num_threads, limits=None):
    made = Engine(1 << 30, num_threads, limits)
    yield made
    made.close()
    assert made.num_images == 0


@pytest.fixture
def engine():
    with running(2) as made:
        yield made


@pytest.fixture
def single(monkeypatch):
    """An engine on one core: one batch after the other, none smaller since a test held the one before."""
    monkeypatch.setattr(lanes, "BATCH_SECONDS", 1000.0)
    with running(1) as made:
        yield made


@pytest.fixture
def reference():
    return Runtime(Session(backbone_bytes()), Session(heads.linear(WEIGHT, np.zeros(3))))


def until(condition):
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


@pytest.mark.parametrize("num", [1, 2, 16, 17, 47, 100])
def test_each_image_gets_what_it_gets_alone_in_the_order_of_the_request(engine, reference, num):
    data = [encoded(seed, form=("PNG", "JPEG", "WEBP")[seed % 3]) for seed in range(num)]
    found = engine.submit(served(), data).result(SECONDS)
    alone = [reference.run(preprocess.load(item, SPEC.preprocess)[None]) for item in data]
    np.testing.assert_allclose(found.probabilities_NC, np.concatenate([one.probabilities for one in alone]), atol=1e-6)
    np.testing.assert_allclose(found.features_ND, np.concatenate([one.features for one in alone]), atol=1e-6)
    assert found.timing.decode > 0
    assert found.timing.compute > 0


def test_pixels_need_no_decoding(engine, reference):
    pixels = images(40)
    found = engine.submit(served(), pixels).result(SECONDS)
    np.testing.assert_allclose(found.probabilities_NC, reference.run(pixels).probabilities, atol=1e-6)
    assert found.timing.decode == 0


def test_no_image_is_an_error(engine):
    with pytest.raises(ValueError, match="at least one image"):
        engine.submit(served(), [])


@pytest.mark.parametrize(("index", "num"), [(0, 1), (3, 5), (16, 20), (39, 40)])
def test_a_bad_image_is_named_by_its_place(engine, index, num):
    data = [encoded(seed) for seed in range(num)]
    data[index] = b"just text"
    with pytest.raises(BadImage, match=rf"^image {index}: expected one of JPEG") as caught:
        engine.submit(served(), data).result(SECONDS)
    assert caught.value.extra == {"index": index}
    assert caught.value.code == "image_unreadable"


def test_the_first_bad_image_is_the_one_named_with_its_own_code(engine):
    whole = encoded(1, size=(2000, 2000), form="JPEG")
    # The first takes longest to be found bad.
    data = [encoded(0), whole[: len(whole) - 5000], b"text", b"more"]
    with pytest.raises(BadImage, match=r"^image 1: ") as caught:
        engine.submit(served(), data).result(SECONDS)
    assert caught.value.code == "image_truncated"


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


def test_an_alignment_stands_before_the_head(engine):
    scores = Graph("softmax", lambda _: Session(heads.linear(np.eye(6)[::-1].copy(), np.zeros(6)), threads=1))
    found = engine.submit(served(alignment=scores), images(3)).result(SECONDS)
    plain = engine.submit(served(), images(3)).result(SECONDS)
    flipped = plain.features_ND[:, ::-1]
    powers = np.exp(flipped - flipped.max(1, keepdims=True))
    np.testing.assert_allclose(found.features_ND, powers / powers.sum(1, keepdims=True), atol=1e-5)


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


def test_what_was_cancelled_is_not_computed(single):
    model, session = watched(single)
    session.door.clear()
    first = single.submit(model, images(1))
    assert session.entered.acquire(timeout=SECONDS)
    others = [single.submit(model, images(3)) for _ in range(4)]
    assert all(future.cancel() for future in others[:3])
    assert single.num_images == 1 + 3
    session.door.set()
    assert len(others[3].result(SECONDS).probabilities_NC) == 3
    first.result(SECONDS)
    assert session.sizes == [1, 3]
    with pytest.raises(CancelledError):
        others[0].result()


def test_a_deadline_ends_what_has_not_been_computed(single):
    model, session = watched(single)
    session.door.clear()
    first = single.submit(model, images(1))
    assert session.entered.acquire(timeout=SECONDS)
    late = [
        single.submit(model, pixels, deadline=time.monotonic() + seconds)
        for pixels, seconds in [(images(2), 0.05), ([encoded(0)], -1), (images(3), 0.2), (images(4), 0.1)]
    ]
    answered = single.submit(model, images(1), deadline=time.monotonic() + 3600)
    # While the only runner is held.
    for future in late:
        with pytest.raises(DeadlineExceeded, match="before the request's deadline"):
            future.result(SECONDS)
    assert not first.done()
    session.door.set()
    first.result(SECONDS)
    answered.result(SECONDS)
    assert session.sizes == [1, 1]


def test_a_deadline_ends_what_is_being_loaded(single):
    door = threading.Event()
    slow = served(backbone=Graph("slow", lambda _: door.wait(SECONDS) and Session(backbone_bytes(), threads=1)))
    late = single.submit(slow, images(1), deadline=time.monotonic() + 0.05)
    with pytest.raises(DeadlineExceeded):
        late.result(SECONDS)
    door.set()


def test_calls_that_were_answered_are_not_kept_until_their_deadline(single):
    model, _ = watched(single)
    for _ in range(5 * MAX_ENDED):
        single.submit(model, images(1), deadline=time.monotonic() + 3600).result(SECONDS)
    assert len(single._deadlines._waiting) <= MAX_ENDED + 1


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


def test_too_many_images_are_refused_and_there_is_room_again():
    engine = Engine(1 << 30, 1, limits=Limits(max_images=4))
    model, session = watched(engine)
    session.door.clear()
    futures = [engine.submit(model, images(2)) for _ in range(2)]
    for call in (engine.check_room, lambda: engine.submit(model, images(1))):
        with pytest.raises(Overloaded, match="found 4 images before it") as caught:
            call()
        assert caught.value.extra["retry_after_seconds"] >= 1
    session.door.set()
    for future in futures:
        future.result(SECONDS)
    engine.submit(model, images(1)).result(SECONDS)
    engine.close()


def test_whoever_would_wait_too_long_is_refused():
    class Slow(Session):
        def run(self, batch):
            time.sleep(0.02)
            return super().run(batch)

    engine = Engine(1 << 30, 1, limits=Limits(max_wait_seconds=0.1))
    model = served(backbone=Graph("slow", lambda _: Slow(backbone_bytes(), threads=1)))
    for _ in range(6):
        engine.submit(model, images(1))
    engine.submit(model, images(100)).result(SECONDS)
    assert 100 < engine.room.per_second("slow") < 16 / 0.02
    # Alone, a request is never too large.
    large = engine.submit(model, images(400))
    with pytest.raises(Overloaded):
        engine.submit(model, images(1))
    large.result(SECONDS)
    engine.close()


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
