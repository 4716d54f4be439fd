"""Carries recipes out on sets, through the real pipeline; one home, so that features are extracted once."""

import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app import recipes
from app.artifact import bundle, preprocess
from app.artifact.spec import Spec
from app.serving.runtime import Runtime, Session
from app.serving.stored import fetch
from app.storage import FolderStorage
from benchmarks import _pipeline
from benchmarks.evaluation import sets
from benchmarks.evaluation.sets import File
from worker import transfer
from worker.attempt.document import DatasetDocument
from worker.backbones import features
from worker.by_recipe import METHODS
from worker.contract.outcome import Outcome
from worker.data.samples import Index
from worker.prepare import sources

BACKBONE = "timm/tf_efficientnet_lite0"


@dataclass(frozen=True)
class Measured:
    """A dataset as frozen features.

    Shape:
        features_ND: [N, D]
        labels_N: [N]
    """

    index: Index
    features_ND: NDArray[np.float32]
    labels_N: NDArray[np.int64]


@dataclass
class Lab:
    """One place to work in.

    Args:
        home: of the pipeline.
        data: folder of archives.
        fonts: folder below which fonts lie.
        seeds: of the splits.
        known: parts that were measured before, by name; for those that go on where they stopped.
    """

    home: Path
    data: Path
    fonts: Path
    seeds: tuple[int, ...]
    known: dict[str, Any] = field(default_factory=dict)
    _stored: dict[str, DatasetDocument] = field(default_factory=dict)

    def files(self, name: str) -> list[File]:
        """Every picture of a set.

        Raises:
            NotFound: this machine does not have it.
        """
        return sets.files(name, self.data, self.fonts)

    def found(self, names: Sequence[str]) -> tuple[dict[str, list[File]], list[str]]:
        """Every picture of the sets that this machine has, by name; and why it has not the others."""
        there: dict[str, list[File]] = {}
        missing = []
        for name in names:
            try:
                there[name] = self.files(name)
            except sets.NotFound as error:
                missing.append(str(error))
        return there, missing

    def store(self, name: str, pictures: Sequence[File], seed: int) -> DatasetDocument:
        """Ingests pictures as a dataset of that name and split; once."""
        key = f"{name}-{len(pictures)}-{seed}"
        if key not in self._stored:
            with tempfile.TemporaryDirectory() as folder:
                archive = sets.pack(Path(folder) / "set.zip", pictures)
                self._stored[key] = _pipeline.stored(self.home, archive, f"ds_{key}", seed)
        return self._stored[key]

    def run(
        self,
        recipe: dict[str, Any],
        dataset: DatasetDocument | None,
        *,
        seed: int = 0,
        backbone: str = BACKBONE,
        **datasets: DatasetDocument,
    ) -> dict[str, Any]:
        """What a job would publish."""
        return _pipeline.run(self.home, dataset, recipe, backbone, seed=seed, datasets=datasets)

    def outcome(self, recipe: dict[str, Any], dataset: DatasetDocument, seed: int) -> tuple[float, Outcome]:
        """Test accuracy of what a recipe would serve, and how it was found.

        As a job does it, but without the baselines of a report: those are two more trainings of equal length.
        """
        context = _pipeline.attempt(self.home, dataset, recipe, BACKBONE, seed=seed)
        index = transfer.load(context, dataset)
        task = transfer.make_task(context, index)
        wanted = recipes.parse(recipe)
        outcome = METHODS[type(wanted)](wanted, task)
        test, candidate = index.rows_of("test"), outcome.candidate
        named_N = candidate.head.logits(candidate.features(test)).argmax(1)
        return float((named_N == task.labels_N[test]).mean()), outcome

    def measured(self, dataset: DatasetDocument) -> Measured:
        """Frozen features of every picture of a dataset, its test split included."""
        context = _pipeline.attempt(self.home, dataset, {"method": "linear_probe"}, BACKBONE)
        index = transfer.load(context, dataset)
        backbone = sources.open_backbone(context, BACKBONE)
        found, _ = features.pooled(context, index, np.arange(len(index)), backbone, ("features", 0.0, 1.0))
        return Measured(index, found, np.asarray(index.label, np.int64))

    def hits(self, published: dict[str, Any], pictures: Sequence[File]) -> NDArray[np.bool_]:
        """Which pictures the published graphs give the name of their folder."""
        spec = Spec.model_validate(published["spec"])
        storage = FolderStorage(self.home / "storage")
        graphs = (fetch(storage, published["prefix"], spec, name) for name in (bundle.BACKBONE, bundle.HEAD))
        with ThreadPoolExecutor(2) as threads:
            runtime = Runtime(*(Session(graph, 2) for graph in graphs))
            images = np.stack(list(threads.map(lambda item: preprocess.load(item[1], spec.preprocess), pictures)))
        named = runtime.run(images).probabilities.argmax(1)
        return np.array(
            [spec.labels[one] == name.split("/")[0] for one, (name, _) in zip(named, pictures, strict=True)]
        )

    def accuracy(self, published: dict[str, Any], pictures: Sequence[File]) -> float:
        """Share of pictures that are named as their folder is."""
        return float(self.hits(published, pictures).mean())
