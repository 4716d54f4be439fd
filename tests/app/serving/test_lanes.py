"""How many images a batch takes: by what waits, by the time that each took before, and by their memory."""

import numpy as np
import pytest

from app.serving.call import Call, Ready
from app.serving.lanes import BATCH_SECONDS, CPU_BATCH_SIZE, Lanes
from app.serving.model import Graph
from app.serving.runtime import BATCH_SIZE
from tests.app.serving.engines import served

PIXELS = np.zeros((8, 8, 3), np.uint8)


def lined_up(number, device="cpu", batch_bytes=1 << 30):
    """Lanes in which so many images of one request wait."""
    model = served(backbone=Graph("backbone", lambda _: pytest.fail("expected nothing to be loaded"), device))
    call = Call(model, [b""] * number, 100)
    call.ready.extend(Ready(index, PIXELS) for index in range(number))
    lanes = Lanes(batch_bytes)
    lanes.put(call)
    return lanes, ("backbone", PIXELS.shape)


def taken(lanes, num_idle=1):
    return len(lanes.take(num_idle)[1])


@pytest.mark.parametrize(("device", "most"), [("cpu", CPU_BATCH_SIZE), ("cuda", BATCH_SIZE)])
def test_a_batch_takes_what_waits_up_to_its_device(device, most):
    lanes, _ = lined_up(most + 1, device)
    assert [taken(lanes), taken(lanes), lanes.take(1)] == [most, 1, None]


def test_idle_runners_share_what_waits():
    lanes, _ = lined_up(4)
    assert [taken(lanes, 2), taken(lanes, 2), taken(lanes, 1)] == [2, 1, 1]


def test_batches_are_smaller_where_images_take_long_and_grow_again():
    lanes, lane = lined_up(300, "cuda")
    sizes = []
    # Seconds of an image: ever longer, then quick again.
    for seconds in (0.001, BATCH_SECONDS / 4, BATCH_SECONDS, 10 * BATCH_SECONDS, *[0.001] * 12):
        sizes.append(taken(lanes))
        lanes.ran(lane, 1, seconds)
    assert sizes[:2] == [BATCH_SIZE, BATCH_SIZE]
    # Each time counts for a half, those before it for the other.
    assert sizes[2:5] == [7, 1, 1]
    assert sizes[5:] == sorted(sizes[5:])
    assert sizes[-1] == BATCH_SIZE


def test_another_backbone_is_not_slowed_by_it():
    lanes, lane = lined_up(BATCH_SIZE, "cuda")
    lanes.ran(("another", PIXELS.shape), 1, 10 * BATCH_SECONDS)
    lanes.ran((lane[0], (9, 9, 3)), 1, 10 * BATCH_SECONDS)
    assert taken(lanes) == BATCH_SIZE


def test_memory_bounds_a_batch_but_never_below_one_image():
    lanes, _ = lined_up(4, batch_bytes=1)
    assert taken(lanes) == 1
