"""Batches of training: what a source is, the order of an epoch, and batches prepared ahead of the device.

Shape legend: N items, B of a batch.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

AHEAD_BATCHES = 2

Rows = NDArray[np.int64]
Draws = NDArray[np.uint64]


class Source(Protocol):
    """Where inputs come from; items are numbered from 0."""

    def take(self, items_B: Rows, draws_B: Draws | None) -> Tensor:
        """Inputs of some items, on the CPU; `draws_B` decides each one's augmentation, None means as they are."""


@dataclass(frozen=True, slots=True)
class Data:
    """Items with labels.

    Shape:
        labels_N: [N]
    """

    source: Source
    labels_N: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels_N)


def epoch_order(num_items: int, seed: int, epoch: int) -> tuple[Rows, Draws]:
    """The order of an epoch, and the number that decides each place's augmentation.

    Shape:
        result: [N], [N]
    """
    generator = np.random.default_rng((seed, epoch))
    return generator.permutation(num_items), generator.integers(0, 2**63, num_items, dtype=np.uint64)


def epoch_batches(
    data: Data, batch_size: int, order: tuple[Rows, Draws], skip: int, device: str, *, is_training: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs and labels of the rest of an epoch, prepared in a thread a few batches ahead of the device.

    Args:
        data: the items.
        batch_size: of a batch; the last one may be smaller.
        order: of `epoch_order`.
        skip: batches that are done already.
        device: where they go.
        is_training: whether batch norm uses the batch: without a last batch of one then, which has no variance.
    """
    order_N, draws_N = order
    end = len(data) - 1 if is_training and len(data) % batch_size == 1 and len(data) > 1 else len(data)
    starts = iter(range(skip * batch_size, end, batch_size))

    def load(start: int) -> tuple[Tensor, Tensor]:
        here = slice(start, start + batch_size)
        inputs = data.source.take(order_N[here], draws_N[here])
        labels = torch.from_numpy(data.labels_N[order_N[here]])
        return (inputs.pin_memory(), labels.pin_memory()) if device == "cuda" else (inputs, labels)

    with ThreadPoolExecutor(1, thread_name_prefix="batches") as thread:
        waiting = [thread.submit(load, start) for start in islice(starts, AHEAD_BATCHES)]
        while waiting:
            inputs, labels = waiting.pop(0).result()
            waiting += [thread.submit(load, start) for start in islice(starts, 1)]
            yield inputs.to(device, non_blocking=True), labels.to(device, non_blocking=True)
