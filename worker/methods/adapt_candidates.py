"""What each candidate of an adaptation is fitted to, what it would serve, and what the validator sees of it.

Every candidate is fitted on everything, which is what would be served, and on half of each domain for the validator,
which knows no label of the target. The mathematics stands in `domains.fits`.

Shape legend: N source items, M target items, D features.
"""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from worker.backbones.extraction import Extraction
from worker.contract.adaptation import Tried
from worker.contract.candidate import DATASET, SOURCE, Candidate, Selection
from worker.contract.network_head import NetworkHead
from worker.contract.task import Float, Rows, Task
from worker.domains import validator
from worker.domains.fits import CLOSED, SOURCE_ONLY, TRAINED, Data, Fitted, trained
from worker.domains.store import Store
from worker.methods.linear_probe import frozen_features

BATCH_NORM = "batch_norm"
# The cheap ones first: a budget that ends cuts trainings.
ALL = (*CLOSED, BATCH_NORM, *TRAINED)
NO_SELECTION = "no labelled item of the target"


@dataclass(frozen=True)
class Finished:
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


class Unfinished(Exception):
    """A candidate cannot be finished; the others stand. Says why."""


class Candidates:
    """Fits candidates to both domains of a task.

    Args:
        task: with a source.
        source_ND: features of the source's pool.
        target_MD: features of the target's pool.
        extraction: what it took to get them.
        began: when the adaptation did, by `time.monotonic`.
        look: called with the number of each step of a training; what it raises ends the candidate.

    Shape:
        source_ND: [N, D]
        target_MD: [M, D]
    """

    def __init__(
        self,
        task: Task,
        source_ND: Float,
        target_MD: Float,
        extraction: Extraction,
        began: float,
        look: Callable[[int], None],
    ) -> None:
        assert task.source is not None
        rows = task.source.pool
        groups_N = task.source.index.group[rows]
        labels_N = task.source.labels_N[rows]
        self.data = Data(source_ND, labels_N, groups_N, target_MD, task.num_classes, task.seed)
        self._task, self._reporter = task, task.context.reporter
        self._cut = validator.halves(self.data, task.groups_N[task.pool])
        self._extraction, self._began, self._look = extraction, began, look
        self._num_steps = 0

    def refusal(self, name: str) -> str:
        """Why a candidate cannot be had from this backbone; empty where it can."""
        if name != BATCH_NORM:
            return ""
        from worker.domains import batch_norm

        backbone = self._task.backbone
        return "" if batch_norm.num_norms(backbone) else f"{backbone.name} has no batch norm to estimate again"

    def fit(self, name: str) -> Finished:
        """One candidate, on everything and on the halves; one without a `refusal`.

        Raises:
            Unfinished: as `look` says.
        """
        if name == BATCH_NORM:
            return self._batch_norm()
        if name in CLOSED:
            fit = CLOSED[name]
            return self._finished(name, self.data, fit(self.data), validator.look(name, self.data, self._cut, fit))
        fits = self._trainings(name)
        full = fits(self.data)
        return self._finished(name, self.data, full, validator.look(name, self.data, self._cut, fits))

    def _trainings(self, name: Any) -> Callable[[Data], Fitted]:
        """Trains, or reads what an earlier attempt has trained; called for everything, then for each half."""
        import torch

        torch.set_num_threads(self._task.context.settings.num_compute_threads)
        shapes = self.data.source_ND.shape, self.data.target_MD.shape
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

    def _batch_norm(self) -> Finished:
        """Both domains again, under statistics of their own."""
        from worker.domains import batch_norm

        task, source = self._task, self._task.source
        assert source is not None
        feats: list[Float] = []
        for index, rows in ((source.index, source.pool), (task.index, task.pool)):
            network = batch_norm.network(task.context, index, rows, task.backbone, task.seed)
            statistics = batch_norm.name(index, rows, task.seed)
            feats.append(
                batch_norm.extract(
                    task.context, index, rows, task.backbone, network, statistics, ("features", 0.6, 0.8)
                )[0]
            )
        data = replace(self.data, source_ND=feats[0], target_MD=feats[1])
        fit = CLOSED[SOURCE_ONLY]
        evidence = validator.look(BATCH_NORM, data, self._cut, fit, back=self.data)
        graph = task.context.scratch / "batch_norm.onnx"

        def served(rows: Rows) -> Float:
            return batch_norm.extract(
                task.context, task.index, rows, task.backbone, network, statistics, ("evaluate", 0.85, 0.9)
            )[0]

        found = self._finished(BATCH_NORM, data, fit(data), evidence)
        candidate = replace(
            found.tried.candidate,
            graph=graph,
            shared=False,
            features=served,
            reference=served,
            state=lambda path: batch_norm.save(network, path),
        )
        write = lambda: batch_norm.write(network, task.backbone, graph)  # noqa: E731
        return replace(found, tried=replace(found.tried, candidate=candidate), write=write)

    def _finished(self, name: str, data: Data, fitted: Fitted, evidence: validator.Evidence) -> Finished:
        task = self._task
        head = fitted.head
        if isinstance(head, NetworkHead):
            head = replace(head, temperature=evidence.temperature)
        none = np.empty(0, np.int64)
        candidate = Candidate(
            method="adapt",
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
            learned_from=(SOURCE,) if name == SOURCE_ONLY else (SOURCE, DATASET),
        )
        return Finished(
            Tried(candidate, evidence.scores, evidence.confidence), data, replace(fitted, head=head), evidence, None
        )
