"""What a transfer is compared with, by selection data alone, and what is served in the end. No test item is touched.

Where a baseline is clearly better it may take the transfer's place, see `fallback`.
"""

import time
from dataclasses import dataclass
from typing import Any

from worker.contract.candidate import Candidate, Selection
from worker.contract.outcome import Decision, Outcome, Scratch
from worker.contract.task import Task
from worker.evaluate import sections
from worker.methods import reference
from worker.reports import fallback, on_selection
from worker.reports.fallback import Back


@dataclass(frozen=True)
class Compared:
    """The baselines of one transfer, and the verdicts over them.

    Args:
        frozen: the probe on the same backbone, the candidate itself where it is one.
        small: the network from scratch; None without.
        fair: the same, where it had its chance.
        left_out: decisions that left networks from scratch out.
        alone: the probe of a source; None without a source.
        unchanged: whether that one is the candidate.
        against: what each baseline said of selection data, by its name; None where it is not compared with.
        verdicts: the evidence of each.
        back: whether a baseline is served.
        seconds: that all this took.
    """

    frozen: Candidate
    small: Scratch | None
    fair: Scratch | None
    left_out: tuple[Decision, ...]
    alone: Candidate | None
    unchanged: bool
    against: dict[str, Selection | None]
    verdicts: dict[str, dict[str, Any] | None]
    back: Back
    seconds: float

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """What the comparison adds to those of the method."""
        return (*self.left_out, *self.back.decisions)


def compare(task: Task, outcome: Outcome, *, with_scratch: bool) -> Compared:
    """Makes the baselines and decides what is served.

    Args:
        task: the data without the test split, on the candidate's backbone.
        outcome: the candidate, and what was compared on the way.
        with_scratch: whether networks from scratch are trained.
    """
    began, candidate = time.monotonic(), outcome.candidate
    baseline, ours = outcome.frozen or reference.frozen(task, candidate), candidate.judged or candidate.selection
    learned = _scratch(task, outcome, ours) if with_scratch else None
    small = learned if isinstance(learned, Scratch) else None
    # A gain over a network that was stopped before it could learn would be a lie; its accuracy is shown all the same.
    fair = None if small is None or small.unfair else small
    alone = outcome.adaptation.source_only if outcome.adaptation else None
    # Where the source's probe is what is served, nothing was adapted: it would be compared with unsaid.
    unchanged = alone is not None and sections.is_same(alone, candidate)
    # Where training began at a probe of its own, both learned from the same images and meet the same others.
    plain = candidate.start or baseline.selection
    against = {
        "frozen": None if baseline is candidate else plain,
        "scratch": fair.selection if fair else None,
        "source_only": alone.selection if alone and not unchanged else None,
    }
    verdicts = {f"vs_{name}": on_selection.verdict(task, ours, one) if one else None for name, one in against.items()}
    return Compared(
        frozen=baseline,
        small=small,
        fair=fair,
        left_out=small.skipped if small else (learned,) if isinstance(learned, Decision) else (),
        alone=alone,
        unchanged=unchanged,
        against=against,
        verdicts=verdicts,
        back=fallback.choose(task, outcome, verdicts, baseline, alone, fair),
        seconds=time.monotonic() - began,
    )


def _scratch(task: Task, outcome: Outcome, ours: Selection) -> Scratch | Decision:
    candidate = outcome.candidate
    own_seconds = reference.wall_seconds(task, candidate.seconds, candidate.extraction, outcome.image_seconds)
    kept_seconds = fallback.keep_seconds(outcome)
    by_seconds = outcome.compared_by_seconds
    return reference.scratch(task, ours.rows, candidate.seconds, own_seconds, by_seconds, kept_seconds)
