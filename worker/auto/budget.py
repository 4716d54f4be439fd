"""How `auto` spends its time (`clock`), and what it expects steps to take before they start. Torch-free.

Images are timed on this machine; what does not grow with them are seconds measured on two busy cores, for
EfficientNet-Lite0 (docs/auto.md). Once a step of a kind has run, what it really took corrects the next one's forecast.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from worker.auto.steps import EPOCHS, Facts, Step, num_draws
from worker.backbones import features
from worker.backbones.prepared import Prepared
from worker.contract.excerpt import Excerpt
from worker.contract.task import Rows, Task
from worker.data.samples import Index
from worker.methods.clock import CACHED_SHARE, WHOLE_SHARE, Clock
from worker.methods.reference import TORCH_SECONDS, fit_seconds, forecast_scratch

DEFAULT_MINUTES = {"cpu": 5.0, "cuda": 30.0}
EXPORT_SECONDS = 6.0
# Of every image whose activations are cached.
VIEWS = 4
# Ways to join source and target: two fits of the probe's size each, at most.
JOINT_FITS = 12.0
REFERENCE_DIM = 1280


@dataclass(frozen=True)
class Room:
    """What a step may take of the time that is left.

    Args:
        left_seconds: until the limit.
        kept_seconds: for what must follow the step.
        scoring_seconds: of these, for scoring; the rest is for the two networks from scratch.
        is_followed: whether the networks from scratch are waited for: each gets as much time as the step takes, too.
    """

    left_seconds: float
    kept_seconds: float
    scoring_seconds: float
    is_followed: bool = True

    @property
    def most(self) -> float:
        """Seconds that the step may take."""
        return (self.left_seconds - self.kept_seconds) / (3 if self.is_followed else 1)

    def refusal(self, forecast: float) -> str:
        """Why a step with this forecast does not start, in numbers that add up."""
        others = self.kept_seconds - self.scoring_seconds
        follows = f"{self.scoring_seconds:.1f} s for scoring"
        own = f"{forecast:.1f} s"
        if self.is_followed:
            follows += f" and {others:.1f} s for two networks from scratch"
            own = f"3 x {own} (its own, and as much more for each of these networks)"
        return (
            f"its forecast of {forecast:.1f} s does not fit: {own} and {self.kept_seconds:.1f} s that must follow "
            f"({follows}) are {forecast * (3 if self.is_followed else 1) + self.kept_seconds:.1f} s, and "
            f"{max(0.0, self.left_seconds):.1f} s are left"
        )


class Budget:
    """Time of one search.

    Args:
        task: the data; its context's reporter has the clock.
        limit_minutes: of the job; None takes the device's default.
    """

    def __init__(self, task: Task, limit_minutes: float | None) -> None:
        self._task = task
        self.clock = Clock(task, 60 * (limit_minutes or DEFAULT_MINUTES[task.context.device]))
        self._began = self.clock.elapsed_seconds
        self._slowness: dict[str, float] = {}
        # What is to be scored in the end: images whose features must follow whatever is served.
        self.scored: tuple[Index, Rows] = (task.index, task.to_score)

    @property
    def seconds(self) -> float:
        """Since the search began."""
        return self.clock.elapsed_seconds - self._began

    def narrow(self, part: Excerpt) -> None:
        """From here on there are the images of an excerpt."""
        self._task = part.of(self._task)
        self.scored = (self.scored[0], part.scored)

    def pace(self, backbone: Prepared) -> float:
        """Seconds to decode an image and pass it through."""
        return self.clock.pace(replace(self._task, backbone=backbone))

    def extraction(self, task: Task) -> tuple[float, int]:
        """Forecast of the features of what may be learned from, and how many of them are missing."""
        missing = features.num_missing(task.context, task.index, task.pool, task.backbone)
        return (missing * self.pace(task.backbone) if missing else 0.0), missing

    def head(self, step: Step, facts: Facts, backbone: Prepared) -> float:
        """Forecast of a head on features that are there."""
        width, number = backbone.feature_dim / REFERENCE_DIM, facts.num_images
        if step.recipe.method == "few_shot":
            seconds = 0.5 + width * (5e-4 * (1 + num_draws(number)) * number + 5e-8 * number**2)
        else:
            seconds = 1.0 + width * number * (3e-4 + 1.3e-5 * facts.num_classes)
        return seconds * self._slowness.get(step.name, self.clock.slowness)

    def tuning(self, step: Step, facts: Facts, backbone: Prepared) -> float:
        """Forecast of a training, its export included."""
        pace, number = self.pace(backbone), facts.num_images
        cached = step.name == "fine_tune last_stage" and facts.device == "cpu"
        passes = VIEWS + EPOCHS * CACHED_SHARE if cached else 1 + EPOCHS * WHOLE_SHARE[facts.device]
        return (TORCH_SECONDS + EXPORT_SECONDS + pace * number * passes) * self._slowness.get("tuning", 1.0)

    def joint(self, num_source: int, facts: Facts, backbone: Prepared) -> float:
        """Forecast of all ways to learn from source and target together, on features that are there."""
        both = num_source + facts.num_images
        return JOINT_FITS * fit_seconds(both, backbone.feature_dim, facts.num_classes)

    def learn(self, kind: str, seconds: float, forecast: float) -> None:
        """Corrects the forecasts of a kind by what one has really taken."""
        known = self._slowness.get(kind, 1.0 if kind == "tuning" else self.clock.slowness)
        self._slowness[kind] = known * float(np.clip(seconds / max(forecast, 1e-3), 0.2, 5.0))

    def room(self, backbone: Prepared, num_cached: int, *, trained: bool) -> Room:
        """For a step that is followed by scoring, and by two networks from scratch that it lengthens.

        These get as much time as the search took, features that were found in the cache counted in
        (`reference.scratch`). Where they do not fit any more, whatever follows, nothing is kept for them: it would be
        spent on nothing.
        """
        so_far = self.seconds + num_cached * self.pace(backbone)
        left, scoring = self.clock.left_seconds, self.scoring(backbone, trained=trained)
        kept = scoring + forecast_scratch(so_far)
        is_followed = kept <= left
        return Room(left, kept if is_followed else scoring, scoring, is_followed)

    def scoring(self, backbone: Prepared, *, trained: bool) -> float:
        """Forecast of scoring: a trained network has to see every image again."""
        index, rows = self.scored
        missing = len(rows) if trained else features.num_missing(self._task.context, index, rows, backbone)
        return self.clock.following(missing, self.pace(backbone) if missing else 0.0)

    def compared_by_seconds(self, backbone: Prepared, *, trained: bool) -> float:
        """When baselines must have ended, from the job's beginning: scoring follows them."""
        return self.clock.limit_seconds - self.scoring(backbone, trained=trained)

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """While an extraction runs without which there is something to serve: the time's end or a stop ends it."""
        with self.clock.leaving(self.clock.limit_seconds, hears_stop=True):
            yield
