"""From a finished candidate to a verified bundle in storage."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app import failpoints
from app.artifact import bundle as bundles
from app.artifact import card, stored
from app.artifact import reference as references
from app.artifact import sample as samples
from app.artifact import seen as seen_items
from app.artifact.precisions import FP16, INT8, Second, SecondGraph
from app.artifact.seen import Seen
from app.artifact.spec import (
    Backbone,
    Dataset,
    File,
    Parity,
    Spec,
    classification_outputs,
    image_input,
    version_of,
)
from app.errors import JobFailure
from app.libraries import version
from app.serving import parity
from app.serving.runtime import Runtime, Session
from worker.attempt.context import RunContext
from worker.attempt.document import DatasetDocument
from worker.backbones import features
from worker.backbones.probes import probe_images
from worker.contract.candidate import SOURCE, Candidate
from worker.contract.task import Task
from worker.evaluate.sections import Evaluation
from worker.publication import sample
from worker.publication.second_graph import Judged

# A frozen backbone's graph was proven when it was prepared, and its features come from it: only the head is new.
PARITY_IMAGES, PARITY_IMAGES_SHARED = 64, 16
TOLERANCE = {"fp32": 1e-3, "bf16": 3e-2}
LIBRARIES = ("graft", "numpy", "onnx", "onnxruntime", "pillow", "pyarrow")
TORCH_LIBRARIES = ("torch", "torchvision", "timm")


def bundle(
    task: Task,
    candidate: Candidate,
    evaluation: Evaluation,
    seen: Sequence[Seen],
    judged: Mapping[Second, Judged],
) -> tuple[Spec, Parity]:
    """Writes the bundle into the scratch folder, and proves that its graphs say what training said.

    Args:
        task: the data.
        candidate: what is published.
        evaluation: of the candidate.
        seen: what it learned from.
        judged: what became of the graphs in other precisions that were asked for.

    Raises:
        JobFailure: the graphs differ from the training side by more than the tolerance.
    """
    context = task.context
    head = candidate.head
    head_graph = head.graph()
    runtime = Runtime(Session(candidate.graph, context.settings.num_compute_threads), Session(head_graph, 1))
    proof = _prove(task, candidate, runtime)
    graphs = {precision: one.graph for precision, one in judged.items() if one.graph is not None}
    others = {precision: Session(graph, 1) for precision, graph in graphs.items()}
    tried_on = sample.make(task, candidate, runtime, others)
    told = {precision: one.described for precision, one in judged.items() if one.described is not None}
    described = _describe(task, candidate, evaluation, proof, told)
    written = bundles.write(
        folder(context),
        described,
        head=head_graph,
        weights=head.tensors(),
        report=evaluation.report,
        predictions=evaluation.predictions,
        selected=evaluation.selected,
        readme=card.render(described, evaluation.report, context.document.model_name or context.document.id, tried_on),
        backbone=_shared(candidate) if candidate.shared else candidate.graph,
        features=stored.pack(evaluation.features, evaluation.predictions.labels, task.class_names),
        seen=seen_items.pack(seen),
        reference=_reference(evaluation),
        sample=samples.pack(tried_on),
        state=_state(context, candidate),
        second=graphs,
    )
    return written, proof


def folder(context: RunContext) -> Path:
    """Where the bundle is written before it is stored."""
    return context.scratch / "bundle"


def store(context: RunContext, candidate: Candidate, written: Spec) -> None:
    """Puts the bundle under the attempt's own prefix; spec.json last, so that a prefix that has one is whole."""
    shared = written.files[bundles.BACKBONE].key
    if shared and context.storage.stat(shared) is None:
        context.storage.put(shared, candidate.graph)
        failpoints.reach("graph_shared")
    names = [name for name, file in written.files.items() if file.key is None]
    for name in [*names, bundles.SPEC]:
        context.storage.put(f"{context.document.bundle_prefix}/{name}", folder(context) / name)
        failpoints.reach("bundle_file_stored")
    failpoints.reach("bundle_stored")


def _reference(evaluation: Evaluation) -> dict[str, NDArray[Any]] | None:
    """How the scored items look to the version: they taught it nothing, so their scores are as good as new ones'."""
    if len(evaluation.features) < 2:
        return None
    return references.pack(references.make(evaluation.features, evaluation.predictions.probabilities))


def _state(context: RunContext, candidate: Candidate) -> Path | None:
    """The weights behind a graph that the job changed, so that they can be a source of later transfers."""
    if candidate.shared or candidate.state is None:
        return None
    path = context.scratch / "state.safetensors"
    candidate.state(path)
    return path


def _prove(task: Task, candidate: Candidate, runtime: Runtime) -> Parity:
    num_images = PARITY_IMAGES_SHARED if candidate.shared else PARITY_IMAGES
    rows = (task.val if len(task.val) else task.pool)[:num_images]
    if len(rows):
        decoded = features.decoded(task.context, task.index, rows, candidate.backbone.preprocess)
        order, batches = zip(*decoded, strict=True)
        images, reference = np.concatenate(batches), candidate.reference(np.concatenate(order))
    else:
        # A model that was made without labelled images: noise and patterns, which every backbone was proven on.
        images = probe_images(candidate.backbone.preprocess)
        reference = features.open_extractor(task.context, candidate.backbone)(images)
    expected = candidate.head.probabilities(reference)
    tolerance = TOLERANCE[features.precision(task.context)]
    proof = parity.compare(runtime, images, expected, tolerance)
    if not proof.ok:
        raise JobFailure(
            "internal",
            f"expected the published graph to agree with training within {tolerance}; found {proof.max_abs:.3g} "
            f"on {proof.num_samples} images; nothing was published",
        )
    return proof


def _describe(
    task: Task, candidate: Candidate, evaluation: Evaluation, proof: Parity, second: Mapping[Second, SecondGraph]
) -> Spec:
    document = task.context.document
    names = LIBRARIES if candidate.shared else LIBRARIES + TORCH_LIBRARIES
    return Spec(
        spec_version=version_of(second),
        int8=second.get(INT8),
        fp16=second.get(FP16),
        task="classification",
        inputs=(image_input(candidate.backbone.preprocess),),
        outputs=classification_outputs(task.num_classes, candidate.backbone.feature_dim),
        labels=task.class_names,
        head=candidate.head.kind,
        recipe=document.recipe or {},
        seed=document.seed,
        dataset=_dataset(document.dataset),
        source=_dataset(document.datasets.get(SOURCE)) if SOURCE in candidate.learned_from else None,
        backbone=Backbone(
            name=candidate.backbone.name,
            digest=candidate.backbone.digest,
            licence=candidate.backbone.licence,
            feature_dim=candidate.backbone.feature_dim,
        ),
        libraries={name: version(name) for name in names},
        metrics=evaluation.metrics,
        calibrated=candidate.calibrated,
        temperature=candidate.head.temperature,
        parity=proof,
        created_at=datetime.now(UTC),
    )


def _dataset(data: DatasetDocument | None) -> Dataset | None:
    return None if data is None else Dataset(id=data.id, digest=data.digest or "", splits=data.splits)


def _shared(candidate: Candidate) -> File:
    return bundles.entry(candidate.graph, bundles.shared_key(candidate.backbone.digest))
