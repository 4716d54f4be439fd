"""An engine answers each request as if it were alone, and only while somebody waits."""

import threading
import time
from concurrent.futures import CancelledError

import numpy as np
import pytest

from app.artifact import heads, preprocess
from app.errors import BadImage, DeadlineExceeded, Overloaded
from app.serving.deadlines import MAX_ENDED
from app.serving.engine import Engine
from app.serving.model import Graph
from app.serving.room import Limits
from app.serving.runtime import Session
from tests.app.onnx_factories import backbone_bytes, images
from tests.app.serving.engines import SECONDS, SPEC, encoded, running, served, watched


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


class Held(list):
    """Images that are given out once the door is open."""

    def __init__(self, items):
        super().__init__(items)
        self.taken, self.door = threading.Event(), threading.Event()

    def __getitem__(self, index):
        self.taken.set()
        assert self.door.wait(SECONDS)
        return super().__getitem__(index)


def test_the_wait_for_a_decoder_is_a_wait():
    """Else a service whose decoders have work for seconds would say that nothing waits."""
    held, waits = Held([encoded(0)]), 0.2
    with running(1) as engine:
        before = engine.submit(served(), held)
        assert held.taken.wait(SECONDS)
        began = time.monotonic()
        behind = engine.submit(served(), [encoded(1)])
        time.sleep(waits)
        held.door.set()
        timing = behind.result(SECONDS).timing
        took = time.monotonic() - began
        assert before.result(SECONDS).timing.decode >= waits
    assert timing.queue >= waits
    assert timing.decode + timing.queue + timing.compute <= took


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


def test_an_alignment_stands_before_the_head(engine):
    scores = Graph("softmax", lambda _: Session(heads.linear(np.eye(6)[::-1].copy(), np.zeros(6)), threads=1))
    found = engine.submit(served(alignment=scores), images(3)).result(SECONDS)
    plain = engine.submit(served(), images(3)).result(SECONDS)
    flipped = plain.features_ND[:, ::-1]
    powers = np.exp(flipped - flipped.max(1, keepdims=True))
    np.testing.assert_allclose(found.features_ND, powers / powers.sum(1, keepdims=True), atol=1e-5)


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


def test_a_deadline_that_no_thread_can_wait_for_keeps_no_other_one_from_its_own(single):
    model, session = watched(single)
    session.door.clear()
    far = single.submit(model, images(1), deadline=time.monotonic() + 1e10)
    assert session.entered.acquire(timeout=SECONDS)
    # Only once the thread of the deadlines has begun to wait for that one alone.
    time.sleep(0.2)
    near = single.submit(model, images(1), deadline=time.monotonic() + 0.1)
    with pytest.raises(DeadlineExceeded):
        near.result(SECONDS)
    session.door.set()
    far.result(SECONDS)


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
