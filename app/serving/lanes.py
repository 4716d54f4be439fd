"""Decoded images that wait, in a lane for each backbone, and the next batch of them. Held by the engine's lock."""

from collections import OrderedDict
from collections.abc import Iterator

from app.serving.call import Call, Ready
from app.serving.model import Served
from app.serving.providers import CPU
from app.serving.runtime import BATCH_SIZE, bytes_per_pixel
from app.serving.turns import Turns

# A batch that takes longer makes the others wait; where one image takes long, batches are smaller.
BATCH_SECONDS = 0.25
# On a processor, whose caches hold no more images at once: on one core one of EfficientNet-Lite0, Lite1 or MobileNetV2
# takes 12 to 17 % less time in batches of 4 than of 16, and hardly less in smaller ones.
CPU_BATCH_SIZE = 4
# Of the pool's budget: what the images of all runners take while they run, so that the graphs themselves have room, and
# two backbones that were asked one after the other. Smaller batches cost a processor nothing.
RUNNING_SHARE = 0.5
# Of which that is remembered, those that ran last.
NUM_LANES = 256

# File of the backbone, and shape of its input.
Lane = tuple[str, tuple[int, ...]]
Batch = list[tuple[Call, Ready]]


class Lanes:
    """Lanes take turns, in a lane its projects do, and of a project its requests, image by image.

    Args:
        batch_bytes: of memory that a batch may take on a processor while it runs; one image may always.
    """

    def __init__(self, batch_bytes: int) -> None:
        self._batch_bytes = batch_bytes
        self._calls: OrderedDict[Lane, Turns[Call]] = OrderedDict()
        self._seconds_per_image: dict[Lane, float] = {}

    def __iter__(self) -> Iterator[Call]:
        """Every request that waits."""
        return (call for calls in self._calls.values() for call in calls)

    def holds(self, backbone: str) -> bool:
        """Whether an image that somebody waits for stands in line for the backbone of that file."""
        return any(
            call.ready and not call.future.done()
            for (file, _), calls in self._calls.items()
            if file == backbone
            for call in calls
        )

    def put(self, call: Call) -> None:
        """Lines up a request that has something ready."""
        lane = (call.model.backbone.file, call.ready[0].pixels_HWC.shape)
        calls = self._calls.setdefault(lane, Turns())
        if call not in calls:
            calls.put(call.project, call)

    def take(self, num_idle: int) -> tuple[Lane, Batch] | None:
        """The next batch, marked as computing; None when nothing waits.

        Args:
            num_idle: runners that could take one; they share what waits.
        """
        while self._calls:
            lane, calls = self._calls.popitem(last=False)
            waiting = sum(len(call.ready) for call in calls)
            batch = _take(calls, min(self._most(lane, calls), max(1, -(-waiting // num_idle))))
            if calls:
                self._calls[lane] = calls
            if batch:
                return lane, batch
        return None

    def ran(self, lane: Lane, number: int, seconds: float) -> None:
        """Notes how long a batch took, for the size of the next ones."""
        known = self._seconds_per_image.pop(lane, None)
        self._seconds_per_image[lane] = (known + seconds / number) / 2 if known else seconds / number
        if len(self._seconds_per_image) > NUM_LANES:
            del self._seconds_per_image[next(iter(self._seconds_per_image))]

    def clear(self) -> None:
        """Forgets every request."""
        self._calls.clear()

    def _most(self, lane: Lane, calls: Turns[Call]) -> int:
        """Images of a batch, by the time and the memory that each takes."""
        model = next(iter(calls)).model
        most = CPU_BATCH_SIZE if model.backbone.device == CPU else BATCH_SIZE
        seconds = self._seconds_per_image.get(lane)
        if seconds:
            most = min(most, int(BATCH_SECONDS / seconds))
        if model.backbone.device == CPU:
            height, width = lane[1][:2]
            most = min(most, self._batch_bytes // (bytes_per_pixel(model.precision, CPU) * height * width))
        return max(1, most)


def _take(calls: Turns[Call], most: int) -> Batch:
    batch: Batch = []
    while calls and len(batch) < most:
        call = calls.take()
        if call.ended() or not call.ready:
            continue
        batch.append((call, call.ready.popleft()))
        call.num_computing += 1
        if call.ready:
            calls.put(call.project, call)
    return batch


def by_head(batch: Batch) -> list[tuple[Served, list[int]]]:
    """The places in a batch that one version, behind one alignment, is for."""
    found: dict[tuple[str, ...], tuple[Served, list[int]]] = {}
    for place, (call, _) in enumerate(batch):
        found.setdefault(call.model.key, (call.model, []))[1].append(place)
    return list(found.values())
