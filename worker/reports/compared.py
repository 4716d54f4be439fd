"""What a transfer is compared with, by selection data alone, and what is served in the end. No test item is touched.

Where a baseline is clearly better it may take the transfer's place, see `fallback`.
"""

import time
from dataclasses import dataclass
from typing import Any

from worker.contract.outcome import Candidate, Decision, Outcome, Scratch
from worker.contract.task import Task
from worker.evaluate import sections
from worker.methods.reference import frozen, scratch
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
    baseline = outcome.frozen or frozen(task, candidate)
    learned = None
    if with_scratch:
        kept_seconds = fallback.keep_seconds(outcome)
        learned = scratch(task, candidate, outcome.compared_by_seconds, outcome.image_seconds, kept_seconds)
    small = learned if isinstance(learned, Scratch) else None
    # A gain over a network that was stopped before it could learn would be a lie; its accuracy is shown all the same.
    fair = None if small is None or small.unfair else small
    alone = outcome.adaptation.source_only if outcome.adaptation else None
    ours = candidate.judged or candidate.selection
    # Where the source's probe is what is served, nothing was adapted: it would be compared with unsaid.
    unchanged = alone is not None and sections.is_same(alone, candidate)
    # Where training began at a probe of its own, both learned from the same images and meet the same others.
    plain = candidate.start or baseline.selection
    verdicts = {
        "vs_frozen": None if baseline is candidate else on_selection.verdict(task, ours, plain),
        "vs_scratch": on_selection.verdict(task, ours, fair.selection) if fair else None,
        "vs_source_only": on_selection.verdict(task, ours, alone.selection) if alone and not unchanged else None,
    }
    return Compared(
        frozen=baseline,
        small=small,
        fair=fair,
        left_out=small.skipped if small else (learned,) if isinstance(learned, Decision) else (),
        alone=alone,
        unchanged=unchanged,
        verdicts=verdicts,
        back=fallback.choose(task, outcome, verdicts, baseline, alone, fair),
        seconds=time.monotonic() - began,
    )
