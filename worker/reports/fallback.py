"""What a job falls back to: the baseline that is served where a verdict says that the transfer is worse than it.

Decided by selection data alone, before the test split is touched (docs/decisions/0040).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from app.errors import JobFailure
from worker.attempt import machine
from worker.contract.candidate import Candidate
from worker.contract.outcome import Decision, Outcome, Scratch
from worker.contract.task import Task

STEP = "fallback"
# To write the graph of a network from scratch and to prove it: what a fine-tuned last stage takes.
EXPORT_SECONDS = 6.0
NONE_NEGATIVE = "no verdict is negative; the transfer itself is served"
STAYS = "the transfer itself is served"
NOT_SERVABLE = "what is better cannot be published"
WORDS = {"frozen": "the frozen probe", "scratch": "a network from scratch", "source_only": "the source alone"}

Evidence = Mapping[str, Mapping[str, Any] | None]


@dataclass(frozen=True)
class Returned:
    """A baseline in the transfer's place.

    Args:
        over: its name among the baselines.
        candidate: that is served.
        decision: why.
    """

    over: str
    candidate: Candidate
    decision: Decision


@dataclass(frozen=True)
class Back:
    """What came of asking for a baseline.

    Args:
        returned: the baseline; None where the transfer itself is served.
        reason: why it is that.
        decisions: for the report.
    """

    returned: Returned | None = None
    reason: str = ""
    decisions: tuple[Decision, ...] = ()


def choose(
    task: Task,
    outcome: Outcome,
    verdicts: Evidence,
    frozen: Candidate,
    alone: Candidate | None,
    small: Scratch | None,
) -> Back:
    """The baseline to serve, or why it is the transfer itself.

    Args:
        task: the data.
        outcome: of the method.
        verdicts: the evidence of each, None where there is none.
        frozen: the probe.
        alone: the probe of a source.
        small: the network from scratch.
    """
    if outcome.stays is not None:
        # Whatever the verdicts say: one over a network from scratch may follow the version.
        return Back(reason=f"{STAYS} in any case: {outcome.stays}")
    found = worst(verdicts)
    if found is None:
        return Back(reason=NONE_NEGATIVE)
    over, told = found
    ready = {"frozen": frozen, "source_only": alone}
    made = ready[over] or NOT_SERVABLE if over in ready else _of_scratch(task, outcome, small)
    if isinstance(made, str):
        decision = Decision(STEP, "skipped", f"{told}; {STAYS}: {made}")
    else:
        decision = Decision(STEP, "served", f"{made.name}: {told}")
    task.context.reporter.log(f"{STEP}: {decision.outcome}, {decision.reason}", "warning", **asdict(decision))
    if isinstance(made, str):
        return Back(reason=decision.reason, decisions=(decision,))
    return Back(Returned(over, made, decision), decisions=(decision,))


def worst(verdicts: Evidence) -> tuple[str, str] | None:
    """The baseline that a transfer is worse than, by most where there are several; and what that stands on."""
    negative = [(row["difference"], name) for name, row in verdicts.items() if row and row["verdict"] == "negative"]
    if not negative:
        return None
    difference, name = min(negative)
    row = verdicts[name]
    assert row is not None
    over = name.removeprefix("vs_")
    return over, (
        f"the transfer is worse than {WORDS[over]} by {-difference:.3f} [{-row['high']:.3f}, {-row['low']:.3f}] on "
        f"{row['num_samples']} images that neither has learned from"
    )


def keep_seconds(outcome: Outcome) -> float:
    """Of the time, what must be left for writing a network from scratch."""
    return 0.0 if outcome.stays is not None else machine.slowness() * EXPORT_SECONDS


def section(found: Returned, transfer: dict[str, Any]) -> dict[str, Any]:
    """`fallback` of the report.

    Args:
        found: what is served.
        transfer: how the transfer itself does on the scored items, as a baseline is told.
    """
    return {"over": found.over, "what": found.candidate.name, "why": found.decision.reason, "transfer": transfer}


def _of_scratch(task: Task, outcome: Outcome, small: Scratch | None) -> Candidate | str:
    """The network from scratch with its graph; why it cannot be had, where that is so."""
    if small is None or small.serve is None:
        return NOT_SERVABLE
    forecast, by_seconds = keep_seconds(outcome), outcome.compared_by_seconds
    elapsed = task.context.reporter.elapsed_seconds
    if by_seconds is not None and elapsed + forecast > by_seconds:
        left = max(0.0, by_seconds - elapsed)
        return f"writing the network takes {forecast:.1f} s, and {left:.1f} s are left; raise max_minutes"
    task.context.reporter.progress(0.9, "export")
    try:
        return small.serve()
    except JobFailure as failure:
        # There is something to serve: what this network cannot do must not take it away.
        return f"{failure.code}: {failure.message}"
