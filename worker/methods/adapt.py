"""Domain adaptation: a labelled source serves an unlabelled target; what each candidate is stands in `domain_fits`.

Every candidate is fitted on everything, which is what would be served, and on half of each domain for the validator,
which knows no label of the target. The probe of the source alone is always among the candidates, and is served when
nothing is clearly better.

Shape legend: N source items, M target items, D features.
"""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from app.recipes import Adapt
from worker import features
from worker.domain_fits import CLOSED, SOURCE_ONLY, TRAINED, Data, Fitted, trained
from worker.domain_spaces import shown
from worker.domain_store import Store
from worker.evaluate import validator
from worker.evaluate.domains import distances
from worker.features import Extraction
from worker.methods import target_labels
from worker.methods.linear_probe import frozen_features
from worker.methods.network_head import NetworkHead
from worker.methods.outcome import Adaptation, Candidate, Decision, Outcome, Selection, Spaces, Tried
from worker.methods.reference import SLACK_SECONDS, seconds_per_image, starts
from worker.methods.task import Float, Rows, Task

BATCH_NORM = "batch_norm"
# The cheap ones first: a budget that ends cuts trainings.
ALL = (*CLOSED, BATCH_NORM, *TRAINED)
# Forecasts in seconds of what cannot be timed before it has run.
TORCH_SECONDS, TRAINING_SECONDS, EXPORT_SECONDS = 6.0, 25.0, 12.0
# A closed form is the source's own fit and, at worst, a few decompositions of D x D: against the time of that fit.
CLOSED_SLOWNESS = 3.0
# A pass of torch over images, against one of the exported graph.
TORCH_SLOWNESS = 4.0
STEPS_BETWEEN_LOOKS = 25
NO_SELECTION = "no labelled item of the target"


@dataclass(frozen=True)
class _Try:
    """One finished candidate, and what it stands on.

    Args:
        tried: for the report.
        data: the features that it was fitted to.
        fitted: on all of them.
        evidence: for the choice.
        write: makes the graph that serves it, where that is not the backbone's own.
    """

    tried: Tried
    data: Data
    fitted: Fitted
    evidence: validator.Evidence
    write: Callable[[], None] | None


class _Stopped(Exception):
    """A training has to end unfinished; what is finished is served. Says why."""


def run(recipe: Adapt, task: Task) -> Outcome:
    """Features of both domains, every candidate that fits the time, the choice."""
    began = time.monotonic()
    source_ND, target_MD, extraction = _features(task)
    if recipe.target_labels:
        return target_labels.run(recipe, task, source_ND, target_MD, extraction, began)
    return _Search(recipe, task, source_ND, target_MD, extraction, began).run()


def _features(task: Task) -> tuple[Float, Float, Extraction]:
    """Pooled features of the source's pool and of the target's."""
    source, context = task.source, task.context
    assert source is not None
    source_ND, of_source = features.pooled(context, source.index, source.pool, task.backbone, ("features", 0.05, 0.2))
    target_MD, of_target = features.pooled(context, task.index, task.pool, task.backbone, ("features", 0.2, 0.35))
    both = Extraction(
        of_source.num_cached + of_target.num_cached,
        of_source.num_extracted + of_target.num_extracted,
        of_source.seconds + of_target.seconds,
    )
    context.reporter.log(
        f"features of {len(source.pool)} source and {len(task.pool)} target images: {both.num_cached} cached, "
        f"{both.num_extracted} extracted in {both.seconds:.1f} s",
        **asdict(both),
    )
    return source_ND, target_MD, both


class _Search:
    """The budget, what has been tried, and the decisions so far."""

    def __init__(
        self, recipe: Adapt, task: Task, source_ND: Float, target_MD: Float, extraction: Extraction, began: float
    ) -> None:
        assert task.source is not None
        self._recipe, self._task, self._reporter = recipe, task, task.context.reporter
        rows = task.source.pool
        groups_N = task.source.index.group[rows]
        labels_N = task.source.labels_N[rows]
        self._data = Data(source_ND, labels_N, groups_N, target_MD, task.num_classes, task.seed)
        self._cut = validator.halves(self._data, task.groups_N[task.pool])
        self._extraction, self._began = extraction, began
        self._training_seconds = TORCH_SECONDS + TRAINING_SECONDS
        self._closed_seconds = 0.0
        self._num_steps = 0
        self._decisions: list[Decision] = []
        self._found: list[_Try] = []

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
        forecast = self._forecast(name)
        left = 60 * self._recipe.max_minutes - self._reporter.elapsed_seconds
        if forecast > left:
            reason = f"its forecast of {forecast:.0f} s does not fit the {left:.0f} s that are left"
            self._decide(name, "skipped", reason, forecast_seconds=round(forecast, 1))
        return forecast <= left

    def _forecast(self, name: str) -> float:
        if name in CLOSED:
            return self._closed_seconds
        if name != BATCH_NORM:
            return self._training_seconds
        num_images = len(self._data.labels_N) + len(self._data.target_MD)
        passes = 2 * num_images * TORCH_SLOWNESS * seconds_per_image(self._task)
        return TORCH_SECONDS + passes + self._closed_seconds + EXPORT_SECONDS

    def _try(self, name: str) -> None:
        # How long the source's probe takes is what all other forecasts are made of.
        expected = None if name == SOURCE_ONLY else self._forecast(name)
        if expected is not None:
            starts(self._reporter, name, expected)
        began = time.monotonic()
        try:
            found = self._fit(name)
        except _Stopped as stopped:
            self._decide(name, "skipped", str(stopped))
            return
        if found is None:
            return
        self._found.append(found)
        seconds = time.monotonic() - began
        if name == SOURCE_ONLY:
            self._closed_seconds = CLOSED_SLOWNESS * seconds
        if name in TRAINED:
            self._training_seconds = seconds
        evidence = found.evidence
        self._decide(
            name,
            "tried",
            f"{name}: leads back to the source's labels at {evidence.reverse_accuracy:.3f}, "
            f"{evidence.source_accuracy:.3f} on the source, {evidence.information:.3f} nats of information, "
            f"in {seconds:.1f} s",
            score=evidence.reverse_accuracy,
            seconds=round(seconds, 2),
            forecast_seconds=None if expected is None else round(expected, 2),
        )

    def _fit(self, name: str) -> _Try | None:
        if name == BATCH_NORM:
            return self._batch_norm()
        if name in CLOSED:
            fit = CLOSED[name]
            return self._finished(name, self._data, fit(self._data), validator.look(name, self._data, self._cut, fit))
        fits = self._trainings(name)
        full = fits(self._data)
        return self._finished(name, self._data, full, validator.look(name, self._data, self._cut, fits))

    def _trainings(self, name: Any) -> Callable[[Data], Fitted]:
        """Trains, or reads what an earlier attempt has trained; called for everything, then for each half."""
        import torch

        torch.set_num_threads(self._task.context.settings.num_compute_threads)
        shapes = self._data.source_ND.shape, self._data.target_MD.shape
        fixed = json.dumps([name, self._task.backbone.digest, self._task.seed, shapes])
        digest = hashlib.sha256(fixed.encode()).hexdigest()[:12]
        store, numbers = Store(self._task.context, f"{name}-{digest}"), iter(range(1 + validator.NUM_HALVES))

        def fit(data: Data) -> Fitted:
            number = next(numbers)
            known = store.read(number)
            fitted = trained(name, data, self._look, known)
            assert isinstance(fitted.head, NetworkHead)
            if known is None:
                store.write(number, fitted.head)
                self._reporter.check_yield()
            else:
                self._num_steps += 1
                self._reporter.log(f"resumed from step {self._num_steps}: {name} was trained by an earlier attempt")
            return fitted

        return fit

    def _look(self, step: int) -> None:
        if step % STEPS_BETWEEN_LOOKS == 0:
            self._reporter.check_yield()
            if self._reporter.stop_requested:
                raise _Stopped("the job was asked to stop while it trained")
            if self._reporter.elapsed_seconds > 60 * self._recipe.max_minutes + SLACK_SECONDS:
                raise _Stopped("it trained longer than its forecast, and beyond the time")

    def _batch_norm(self) -> _Try | None:
        """Both domains again, under statistics of their own."""
        from worker import domain_norm

        task, source = self._task, self._task.source
        assert source is not None
        if not domain_norm.num_norms(task.backbone):
            self._decide(BATCH_NORM, "skipped", f"{task.backbone.name} has no batch norm to estimate again")
            return None
        feats: list[Float] = []
        for index, rows in ((source.index, source.pool), (task.index, task.pool)):
            network = domain_norm.network(task.context, index, rows, task.backbone, task.seed)
            statistics = domain_norm.name(index, rows, task.seed)
            feats.append(
                domain_norm.extract(
                    task.context, index, rows, task.backbone, network, statistics, ("features", 0.6, 0.8)
                )[0]
            )
        data = replace(self._data, source_ND=feats[0], target_MD=feats[1])
        fit = CLOSED[SOURCE_ONLY]
        evidence = validator.look(BATCH_NORM, data, self._cut, fit, back=self._data)
        graph = task.context.scratch / "batch_norm.onnx"

        def served(rows: Rows) -> Float:
            return domain_norm.extract(
                task.context, task.index, rows, task.backbone, network, statistics, ("evaluate", 0.85, 0.9)
            )[0]

        found = self._finished(BATCH_NORM, data, fit(data), evidence)
        candidate = replace(
            found.tried.candidate,
            graph=graph,
            shared=False,
            features=served,
            reference=served,
            state=lambda path: domain_norm.save(network, path),
        )
        write = lambda: domain_norm.write(network, task.backbone, graph)  # noqa: E731
        return replace(found, tried=replace(found.tried, candidate=candidate), write=write)

    def _finished(self, name: str, data: Data, fitted: Fitted, evidence: validator.Evidence) -> _Try:
        task = self._task
        head = fitted.head
        if isinstance(head, NetworkHead):
            head = replace(head, temperature=evidence.temperature)
        none = np.empty(0, np.int64)
        candidate = Candidate(
            method=self._recipe.method,
            name=name,
            head=head,
            graph=task.backbone.graph,
            backbone=task.backbone,
            shared=True,
            selection=Selection(none, np.empty((0, task.num_classes)), NO_SELECTION),
            features=lambda rows: frozen_features(task, rows),
            reference=lambda rows: frozen_features(task, rows),
            seconds=time.monotonic() - self._began,
            fold_accuracy=(),
            calibrated=False,
            trained_params=head.num_params,
            details={"candidate": name, "temperature": head.temperature},
            extraction=self._extraction,
        )
        return _Try(
            Tried(candidate, evidence.scores, evidence.confidence), data, replace(fitted, head=head), evidence, None
        )

    def _domain(self, served: _Try) -> tuple[dict[str, Any], Spaces]:
        """Distances before, on the backbone's features, and after, as the served head sees the two domains."""
        data, head = served.data, served.fitted.head
        after = [served.fitted.moved(data.source_ND), data.target_MD]
        if isinstance(head, NetworkHead):
            after = [head.hidden(feats) for feats in after]
        seed, before = self._task.seed, (self._data.source_ND, self._data.target_MD)
        return {
            "before": asdict(distances(*before, seed)),
            "after": asdict(distances(after[0], after[1], seed)),
            "num_source": len(self._data.source_ND),
            "num_target": len(self._data.target_MD),
            "validator": validator.NAME,
        }, shown(self._task, before, None if served is self._found[0] else (after[0], after[1]))

    def _decide(self, step: str, outcome: str, reason: str, **numbers: float | None) -> None:
        decision = Decision(step=step, outcome=outcome, reason=reason, **numbers)
        self._decisions.append(decision)
        data: dict[str, Any] = asdict(decision)
        self._reporter.log(f"{step}: {outcome}, {reason}", **data)
