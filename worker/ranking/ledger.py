"""The time budget of a ranking, and what was decided: every decision is an event of the job. No torch."""

from typing import Any

import numpy as np

from app.errors import JobFailure
from worker.attempt.progress import SLACK_SECONDS, Reporter
from worker.ranking.contender import Contender


class Ledger:
    """What was done and what was left out.

    Args:
        reporter: where decisions go.
        limit_seconds: of the whole job.
    """

    def __init__(self, reporter: Reporter, limit_seconds: float) -> None:
        self.skipped: list[dict[str, Any]] = []
        self.notes: list[str] = []
        # What there is no result without may overrun the limit.
        self.slack_seconds = SLACK_SECONDS
        self._reporter, self._limit_seconds = reporter, limit_seconds
        # What a job would need for a look, or to open a candidate at all.
        self._least_seconds = {True: float("inf"), False: float("inf")}

    @property
    def left_seconds(self) -> float:
        """Until the limit."""
        return self._limit_seconds - self._reporter.elapsed_seconds

    def note(self, told: str) -> None:
        """Something that whoever reads the order must know; a flag of the result, and an event."""
        self.notes.append(told)
        self._reporter.log(told, "warning")

    def fits(self, one: Contender, step: str, forecast: float, what: str = "") -> bool:
        """Whether a step may begin; if not, it is written down.

        Args:
            one: whose step it is.
            step: its name.
            forecast: seconds that it will take.
            what: what these are for.
        """
        left = self.left_seconds + self.slack_seconds
        if forecast <= left:
            return True
        is_look = step.startswith("stage")
        self._least_seconds[is_look] = min(self._least_seconds[is_look], self._limit_seconds + forecast - left)
        told = f" {what}" if what else ""
        reason = f"its forecast of {forecast:.1f} s{told} does not fit the {max(left, 0):.1f} s that are left"
        self.skip(one, step, reason, round(forecast, 3))
        return False

    def skip(self, one: Contender, step: str, reason: str, forecast: float | None = None) -> None:
        """Writes a step down that is not done, with its forecast where time is the reason."""
        self.skipped.append({"backbone": one.name, "step": step, "forecast_seconds": forecast, "reason": reason})
        if one.stage:
            one.notes.append(f"its place is from stage {one.stage}: {reason}")
        self.decide(one, step, "skipped", reason, forecast_seconds=forecast)

    def decide(self, one: Contender, step: str, outcome: str, reason: str, **numbers: float | None) -> None:
        """One event, with its numbers and its reason."""
        self._reporter.log(
            f"{one.name}, {step}: {outcome}, {reason}", backbone=one.name, step=step, outcome=outcome, **numbers
        )

    def nobody(self) -> JobFailure:
        """Why no candidate could be looked at."""
        told = "; ".join(f"{one['backbone']}: {one['reason']}" for one in self.skipped)
        if any(one["forecast_seconds"] is not None for one in self.skipped):
            look, opening = self._least_seconds[True], self._least_seconds[False]
            least = look if np.isfinite(look) else opening
            return JobFailure(
                "timed_out",
                f"expected time for one candidate at least within {self._limit_seconds:.0f} s and "
                f"{SLACK_SECONDS:.0f} s more; found none; {told}; set max_minutes to "
                f"{np.ceil(least / 0.6) / 100:g} or more, or name smaller backbones",
            )
        return JobFailure("weights_unavailable", f"expected one candidate at least that works; found none; {told}")
