"""What the parts of `auto` share: the data, the clock, and the decisions, each an event and a row of the report."""

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from app.recipes import Auto
from worker.auto import steps
from worker.auto.budget import Budget, Room
from worker.auto.choice import Chosen, Entry, choose
from worker.auto.steps import Facts
from worker.backbones.prepared import Prepared
from worker.contract.candidate import BLIND, CHEAPEST, Candidate
from worker.contract.excerpt import Excerpt
from worker.contract.outcome import Decision
from worker.contract.task import Task
from worker.methods.reference import starts
from worker.scores import intervals
from worker.scores.objective import item_scores


@dataclass
class Bench:
    """One search.

    Args:
        recipe: of the job.
        task: its data; extractions are left when the budget says so.
        budget: its time.
        facts: that decide what is tried.
        decisions: so far.
        part: of the images that there is time for; None where that is all.
        leading: what the last choice says of its best, where there was one.
    """

    recipe: Auto
    task: Task
    budget: Budget
    facts: Facts
    decisions: list[Decision]
    part: Excerpt | None = None
    leading: Decision | None = None

    def on(self, backbone: Prepared) -> Task:
        """The data under one of the backbones."""
        return replace(self.task, backbone=backbone)

    def narrow(self, part: Excerpt) -> None:
        """From here on there are the images of an excerpt."""
        self.task, self.part = part.of(self.task), part
        self.facts = steps.facts(self.task)
        self.budget.narrow(part)

    def decide(self, step: str, outcome: str, reason: str, **numbers: float | None) -> None:
        """Writes a decision down and tells it."""
        decision = Decision(step=step, outcome=outcome, reason=reason, **numbers)
        self.decisions.append(decision)
        data: dict[str, Any] = asdict(decision)
        self.task.context.reporter.log(f"{step}: {outcome}, {reason}", **data)

    def skipped(self, step: str) -> str:
        """Why a step was skipped; empty where it was not."""
        return next((one.reason for one in self.decisions if one.step == step and one.outcome == "skipped"), "")

    def may_start(self, step: str, forecast: float, room: Room, beside: float = 0.0) -> bool:
        """Whether there is time for a step, and nobody has asked to stop; tells its forecast, or why not.

        Args:
            step: what would start.
            forecast: seconds that it is expected to take.
            room: that it has.
            beside: seconds of what it would be for nothing without.
        """
        self.task.context.reporter.check_yield()
        if self.task.context.reporter.stop_requested:
            self.decide(step, "skipped", "the job was asked to stop", forecast_seconds=round(forecast, 1))
            return False
        needed = forecast + beside
        if needed > room.most:
            self.decide(step, "skipped", room.refusal(needed), forecast_seconds=round(needed, 1))
            return False
        starts(self.task.context.reporter, step, forecast)
        return True

    def tried(self, step: str, candidate: Candidate, seconds: float, forecast: float) -> None:
        """Writes down how a finished candidate does, by the objective, with its interval."""
        evidence = candidate.judged or candidate.selection
        took = {"seconds": round(seconds, 2), "forecast_seconds": round(forecast, 2)}
        if evidence.is_blind:
            self.decide(step, "tried", f"{candidate.name}: no score, {BLIND}, in {seconds:.1f} s", **took)
            return
        labels_N, objective = self.task.labels_N[evidence.rows], self.recipe.objective
        draws = [logits.argmax(1) for logits in (evidence.logits, *evidence.again)]
        # The very number that the choice compares: over all draws of the folds, and so are the ends of its interval.
        value = float(np.mean([item_scores(predicted_N, labels_N, objective).mean() for predicted_N in draws]))
        found = [intervals.of_scores(labels_N, one, self.task.num_classes).get(objective) for one in draws]
        ends = [(one.low, one.high) for one in found if one]
        low, high = (float(end) for end in np.mean(ends, axis=0)) if ends else (None, None)
        told = f"{low:.3f} to {high:.3f}" if ends else intervals.missing(labels_N)[objective]
        drawn = f"{evidence.what}, mean of {len(draws)} draws" if len(draws) > 1 else evidence.what
        self.decide(
            step,
            "tried",
            f"{candidate.name}: {objective.replace('_', ' ')} {value:.3f} ({told}) {drawn}, in {seconds:.1f} s",
            score=value,
            low=low,
            high=high,
            **took,
        )

    def choose(self, entries: list[Entry]) -> Entry:
        """The cheapest that is not clearly worse than the best; every candidate's fate is written down.

        More may be tried after it: `keep` says which is kept in the end.
        """
        chosen: Chosen = choose(entries, self.task, self.recipe.objective)
        if len(entries) > 1:
            for entry, reason in zip(entries, chosen.reasons, strict=True):
                score = None if chosen.is_blind else reason.mean
                text = CHEAPEST if chosen.is_blind else reason.text
                self.decide(entry.step, "leads" if reason.chosen else "dropped", text, score=score)
                if reason.chosen:
                    self.leading = self.decisions[-1]
        return chosen.entry

    def keep(self) -> None:
        """Says which of all choices holds, where there were some."""
        if self.leading is not None:
            self.decide(self.leading.step, "kept", self.leading.reason, score=self.leading.score)


def opened(recipe: Auto, task: Task) -> Bench:
    """The search at its beginning."""
    budget = Budget(task, recipe.max_minutes)
    return Bench(recipe, budget.clock.watch(task), budget, steps.facts(task), budget.clock.decisions)
