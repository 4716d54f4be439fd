"""Domain adaptation: a labelled source serves an unlabelled target; what each candidate is stands in `domains.fits`.

Here they are tried while the time lasts (`adapt_budget`), and one of them is chosen; `adapt_candidates` fits them. The
probe of the source alone is always among the candidates, and is served when nothing is clearly better.

Shape legend: N source items, M target items, D features.
"""

import time
from dataclasses import asdict, replace
from typing import Any

from app.recipes import Adapt
from worker.backbones import features
from worker.backbones.extraction import Extraction
from worker.contract.adaptation import Adaptation, Spaces
from worker.contract.network_head import NetworkHead
from worker.contract.outcome import Decision, Outcome
from worker.contract.task import Float, Task
from worker.domains import validator
from worker.domains.distances import distances
from worker.domains.fits import SOURCE_ONLY
from worker.domains.spaces import shown
from worker.methods import target_labels
from worker.methods.adapt_budget import Budget
from worker.methods.adapt_candidates import ALL, Candidates, Finished, Unfinished
from worker.methods.clock import Clock
from worker.methods.reference import starts


def run(recipe: Adapt, task: Task, clock: Clock | None = None) -> Outcome:
    """Features of both domains, every candidate that fits the time, the choice.

    Args:
        recipe: of the adaptation.
        task: with a source.
        clock: of the job, where that has measured something already.
    """
    began = time.monotonic()
    clock = clock or Clock(task, 60 * recipe.max_minutes)
    source_ND, target_MD, extraction = _features(task)
    clock.learn_pace(task.backbone, extraction)
    if recipe.target_labels:
        return target_labels.run(recipe, task, source_ND, target_MD, extraction, began)
    return _Search(recipe, task, source_ND, target_MD, extraction, began, clock).run()


def _features(task: Task) -> tuple[Float, Float, Extraction]:
    """Pooled features of the source's pool and of the target's."""
    source, context = task.source, task.context
    assert source is not None
    source_ND, of_source = features.pooled(context, source.index, source.pool, task.backbone, ("features", 0.05, 0.2))
    target_MD, of_target = features.pooled(context, task.index, task.pool, task.backbone, ("features", 0.2, 0.35))
    both = of_source + of_target
    context.reporter.log(
        f"features of {len(source.pool)} source and {len(task.pool)} target images: {both.num_cached} cached, "
        f"{both.num_extracted} extracted in {both.seconds:.1f} s",
        **asdict(both),
    )
    return source_ND, target_MD, both


class _Search:
    """What has been tried, and the decisions so far."""

    def __init__(
        self,
        recipe: Adapt,
        task: Task,
        source_ND: Float,
        target_MD: Float,
        extraction: Extraction,
        began: float,
        clock: Clock,
    ) -> None:
        self._recipe, self._task, self._reporter, self._began = recipe, task, task.context.reporter, began
        self._budget = Budget(recipe, task, len(source_ND) + len(target_MD), clock)
        self._candidates = Candidates(task, source_ND, target_MD, extraction, began, self._budget.look)
        self._decisions: list[Decision] = []
        self._found: list[Finished] = []

    def run(self) -> Outcome:
        """Tries, chooses, describes."""
        wanted = [name for name in ALL if name == SOURCE_ONLY or name in (self._recipe.candidates or ALL)]
        for place, name in enumerate(wanted):
            self._reporter.progress(0.35 + 0.45 * place / len(wanted), name)
            self._reporter.check_yield()
            if name == SOURCE_ONLY or self._may_start(name):
                self._try(name)
        choice = validator.choose([one.evidence for one in self._found])
        for place, (one, reason) in enumerate(zip(self._found, choice.reasons, strict=True)):
            outcome = "kept" if place == choice.index else "dropped"
            self._decide(one.evidence.name, outcome, reason, score=one.evidence.reverse_accuracy)
        self._decide("served", "served", choice.why)
        served = self._found[choice.index]
        if served.write is not None:
            self._reporter.progress(0.82, "export")
            served.write()
        # The whole search is what this transfer took.
        final = replace(served.tried.candidate, seconds=time.monotonic() - self._began)
        tried = tuple(replace(one.tried, candidate=final) if one is served else one.tried for one in self._found)
        source_accuracy = self._found[0].fitted.accuracy
        assert source_accuracy is not None
        domain, spaces = self._domain(served)
        found = Adaptation(tried[0].candidate, tried, source_accuracy, domain, spaces)
        return Outcome(final, tuple(self._decisions), adaptation=found)

    def _may_start(self, name: str) -> bool:
        if self._reporter.stop_requested:
            self._decide(name, "skipped", "the job was asked to stop")
            return False
        # Before any forecast: what this backbone cannot have is the reason on a fast machine and on a slow one.
        if refusal := self._candidates.refusal(name):
            self._decide(name, "skipped", refusal)
            return False
        left = self._budget.left_seconds
        if left <= 0:
            # Not even a forecast: what an image takes may have to be timed on some.
            self._decide(name, "skipped", "the time is over")
            return False
        forecast, left = self._budget.forecast(name), self._budget.left_seconds
        if forecast > left:
            reason = f"its forecast of {forecast:.1f} s does not fit the {max(0.0, left):.1f} s that are left"
            self._decide(name, "skipped", reason, forecast_seconds=round(forecast, 1))
        return forecast <= left

    def _try(self, name: str) -> None:
        expected = self._budget.forecast(name)
        starts(self._reporter, name, expected)
        began = time.monotonic()
        try:
            found = self._candidates.fit(name)
        except Unfinished as unfinished:
            self._decide(name, "skipped", str(unfinished))
            return
        self._found.append(found)
        seconds = time.monotonic() - began
        self._budget.ran(name, seconds)
        evidence = found.evidence
        self._decide(
            name,
            "tried",
            f"{name}: leads back to the source's labels at {evidence.reverse_accuracy:.3f}, "
            f"{evidence.source_accuracy:.3f} on the source, {evidence.information:.3f} nats of information, "
            f"in {seconds:.1f} s",
            score=evidence.reverse_accuracy,
            seconds=round(seconds, 2),
            forecast_seconds=round(expected, 2),
        )

    def _domain(self, served: Finished) -> tuple[dict[str, Any], Spaces]:
        """Distances before, on the backbone's features, and after, as the served head sees the two domains."""
        plain, data, head = self._candidates.data, served.data, served.fitted.head
        after = [served.fitted.moved(data.source_ND), data.target_MD]
        if isinstance(head, NetworkHead):
            after = [head.hidden(feats) for feats in after]
        seed, before = self._task.seed, (plain.source_ND, plain.target_MD)
        return {
            "before": asdict(distances(*before, seed)),
            "after": asdict(distances(after[0], after[1], seed)),
            "num_source": len(plain.source_ND),
            "num_target": len(plain.target_MD),
            "validator": validator.NAME,
        }, shown(self._task, before, None if served is self._found[0] else (after[0], after[1]))

    def _decide(self, step: str, outcome: str, reason: str, **numbers: float | None) -> None:
        decision = Decision(step=step, outcome=outcome, reason=reason, **numbers)
        self._decisions.append(decision)
        data: dict[str, Any] = asdict(decision)
        self._reporter.log(f"{step}: {outcome}, {reason}", **data)
