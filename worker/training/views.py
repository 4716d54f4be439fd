"""Cached activations of training images in several views, gathered as training comes to need them.

Gathering is most of what a CPU does before the first step. The pilots of the learning rate see a few hundred pictures,
each in one view, so they start on those alone: the first result of a job, and the first checkpoint that a killed one
resumes from, do not wait for the rest.

Shape legend: N images, B of a batch, V views.
"""

import time
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from worker.attempt.context import RunContext
from worker.backbones import features
from worker.backbones.extraction import Extraction
from worker.backbones.prepared import Prepared
from worker.data.samples import Index
from worker.training import inputs
from worker.training.augment import CachedView
from worker.training.batches import Draws, Rows
from worker.training.inputs import ArraySource

# Another view is extracted while it takes at most this part of the time that is left.
VIEW_SHARE = 0.25
# Of the job's progress: where gathering for the pilots begins, and gathering of the rest begins and ends.
PILOTS, REST, END = 0.21, 0.24, 0.45


class Views:
    """A `batches.Source` over what was gathered.

    Args:
        context: of the job.
        index: of its dataset.
        rows: the training images.
        backbone: with a proven split.
        augmented: the views beside the plain one, which is number 0.

    Shape:
        rows: [N]
    """

    def __init__(
        self, context: RunContext, index: Index, rows: Rows, backbone: Prepared, augmented: Sequence[CachedView]
    ) -> None:
        assert backbone.activation_shape is not None
        self._context, self._index, self._rows, self._backbone = context, index, rows, backbone
        self._views: list[CachedView | None] = [None, *augmented]
        self._source = ArraySource(np.empty((len(self._views), len(rows), *backbone.activation_shape), np.float16))
        self._is_known_VN = np.zeros((len(self._views), len(rows)), bool)
        self.extractions: list[Extraction] = []

    def __len__(self) -> int:
        return len(self._views)

    def take(self, items_B: Rows, draws_B: Draws | None) -> Tensor:
        """See batches.Source; only of what was gathered."""
        return self._source.take(items_B, draws_B)

    def gather_some(self, items_B: Rows, draws_B: Draws) -> None:
        """What `take` will be asked for by these items and draws.

        Raises:
            Left: see features.
        """
        views_B = self._source.view(draws_B)
        for number in np.unique(views_B):
            self._gather(int(number), items_B[views_B == number], ("activations for the pilots", PILOTS, REST))

    def gather_all(self, deadline: float | None) -> None:
        """The rest of every view; the last views are given up where the time is short.

        Args:
            deadline: when training must have ended, by `time.monotonic`.

        Raises:
            Left: see features; before the plain view was whole.
        """
        every = np.arange(len(self._rows))
        wanted = len(self)
        for number in range(wanted):
            missing = int((~self._is_known_VN[number]).sum())
            if deadline is not None and number:
                left = deadline - time.monotonic()
                if missing * self._seconds_per_image > VIEW_SHARE * left:
                    self._keep(number)
                    self._warn(f"{number} of {wanted} views fit the time: {left:.0f} s left")
                    return
            begin, end = (REST + (END - REST) * part / wanted for part in (number, number + 1))
            try:
                self._gather(number, every, (f"activations {number + 1} of {wanted}", begin, end))
            except features.Left as left_off:
                if not number:
                    raise
                self._keep(number)
                self._warn(f"{number} of {wanted} views are used, the rest was left: {left_off}")
                return

    def _gather(self, number: int, items_B: Rows, stage: tuple[str, float, float]) -> None:
        items_B = np.sort(items_B[~self._is_known_VN[number, items_B]])
        if not len(items_B):
            return
        rows_B, view = self._rows[items_B], self._views[number]
        found, extraction = inputs.activations(self._context, self._index, rows_B, self._backbone, view, stage)
        self._source.views_VN[number, items_B] = found
        self._is_known_VN[number, items_B] = True
        self.extractions.append(extraction)

    @property
    def _seconds_per_image(self) -> float:
        """Of the extractions until now; 0 while everything came from the cache."""
        done = [one for one in self.extractions if one.num_extracted]
        return sum(one.seconds for one in done) / max(1, sum(one.num_extracted for one in done))

    def _keep(self, number: int) -> None:
        """Goes on with the first views alone."""
        self._views = self._views[:number]
        self._source = ArraySource(self._source.views_VN[:number])

    def _warn(self, message: str) -> None:
        self._context.reporter.log(message, "warning")
