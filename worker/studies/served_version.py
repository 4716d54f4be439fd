"""A published version as the server would run it: its bundle's graphs over a dataset's images. Torch-free.

Features under a shared, unchanged backbone come from the feature cache; a graph of a version's own is run on every
image. Either way the numbers are those of onnxruntime in full precision, also on a machine with a GPU: what is judged
is what is served.

Shape legend: N items, D features, C classes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.artifact import alignment as artifact
from app.artifact import bundle
from app.artifact import spec as specs
from app.artifact.alignment import MovingBackbone
from app.artifact.preprocess import Preprocess
from app.artifact.seen import Seen
from app.artifact.spec import Spec
from app.errors import NotFound
from app.serving.runtime import Runtime, Session
from worker.attempt.context import RunContext
from worker.attempt.gone import version_deleted
from worker.backbones import features
from worker.backbones.feature_cache import Space
from worker.contract.task import Rows
from worker.data.samples import Index
from worker.reports import lineage

Float = NDArray[np.float32]
Stage = tuple[str, float, float]


@dataclass(frozen=True)
class ServedVersion:
    """One side of an evaluation, with all its files at hand.

    Args:
        model: its name.
        version: its number.
        domain: whose alignment its features pass through; None without.
        prefix: of its bundle in storage.
        spec: of its bundle.
        graph: of the backbone that the images meet.
        digest: of that backbone; under it features are cached.
        shape: of that backbone's input.
        shared: whether the graph is a backbone's own, so that its features may be in the cache.
        head: session.
        alignment: session; None without a domain.
        seen: what it learned from; None where its bundle is older than such records.
    """

    model: str
    version: int
    domain: str | None
    prefix: str
    spec: Spec
    graph: Path
    digest: str
    shape: Preprocess
    shared: bool
    head: Session
    alignment: Session | None
    seen: tuple[Seen, ...] | None

    @property
    def name(self) -> str:
        """For people."""
        through = f" through domain {self.domain}" if self.domain else ""
        return f"{self.model} version {self.version}{through}"

    def described(self) -> dict[str, Any]:
        """Which version it is, and what it was made from, JSON-ready."""
        spec = self.spec
        return {
            "model": {"name": self.model, "version": self.version},
            "domain": self.domain,
            "backbone": {"name": spec.backbone.name, "digest": spec.backbone.digest, "shared": self.shared},
            "made_from": None if spec.dataset is None else {"dataset": spec.dataset.id, "digest": spec.dataset.digest},
        }

    def probabilities(self, context: RunContext, index: Index, rows: Rows, stage: Stage) -> Float:
        """What the version says of some samples, in the order of `rows`.

        Shape:
            rows: [N]
            result: [N, C]
        """
        if not self.shared:
            runtime = Runtime(Session(self.graph, context.settings.num_compute_threads), self.head, self.alignment)
            return _by_row(context, index, rows, self.shape, lambda images: runtime.run(images).probabilities, stage)
        found = self.features(context, index, rows, stage)
        if self.alignment is not None:
            found = self.alignment.run(found)[0]
        return self.head.run(found)[self.head.output_names.index("probabilities")]

    def features(self, context: RunContext, index: Index, rows: Rows, stage: Stage) -> Float:
        """What its backbone makes of some samples, before any alignment, in the order of `rows`.

        Shape:
            rows: [N]
            result: [N, D]
        """
        threads = context.settings.num_compute_threads
        if not self.shared:
            run = features.graph_extractor(self.graph, threads)
            return _by_row(context, index, rows, self.shape, run, stage)
        space = Space(self.digest, self.shape.digest, "pooled", "center", "fp32")
        extractor = lambda: features.graph_extractor(self.graph, threads)  # noqa: E731
        found, extraction = features.features(context, index, rows, space, self.shape, extractor, stage=stage)
        context.reporter.log(
            f"features of {len(rows)} images for {self.name}: {extraction.num_cached} cached, "
            f"{extraction.num_extracted} extracted in {extraction.seconds:.1f} s",
            num_cached=extraction.num_cached,
            num_extracted=extraction.num_extracted,
        )
        return found


def open_version(context: RunContext, side: dict[str, Any]) -> ServedVersion:
    """Fetches all that a side of the job's inputs needs, before anything is computed.

    Raises:
        JobFailure: version_deleted, a file of it is gone.
    """
    storage = context.storage
    prefix, alignment = side["prefix"], side["alignment"]
    try:
        spec = specs.load(storage.fetch(f"{prefix}/{bundle.SPEC}").read_bytes())
        network = spec.files[bundle.BACKBONE]
        moving = MovingBackbone.model_validate(alignment["moving_backbone"]) if moves(alignment) else None
        key = (moving.graph.key if moving else network.key) or f"{prefix}/{bundle.BACKBONE}"
        return ServedVersion(
            model=side["model"],
            version=side["version"],
            domain=side["domain"],
            prefix=prefix,
            spec=spec,
            graph=storage.fetch(key),
            digest=moving.digest if moving else cache_digest(spec),
            shape=moving.preprocess if moving else spec.preprocess,
            shared=moving is not None or network.key is not None,
            head=Session(storage.fetch(f"{prefix}/{bundle.HEAD}"), threads=1),
            alignment=Session(storage.fetch(f"{alignment['prefix']}/{artifact.GRAPH}"), 1) if alignment else None,
            seen=lineage.of_version(storage, prefix, spec.files),
        )
    except NotFound as error:
        raise version_deleted(side, "evaluated", "name another one") from error


def cache_digest(spec: Spec) -> str:
    """What the features of a version's images are cached under: the weights' digest, where a job here has proven it.

    An imported graph that no job here has made goes by its own digest, so that what its bundle claims to be cannot put
    its features among those of another backbone.
    """
    network = spec.files[bundle.BACKBONE]
    proven = network.key is None or network.key == bundle.shared_key(spec.backbone.digest)
    return spec.backbone.digest if proven else network.sha256


def moves(alignment: dict[str, Any] | None) -> bool:
    """Whether images meet another backbone than the head's."""
    return alignment is not None and alignment["moving_backbone"] is not None


def _by_row(
    context: RunContext,
    index: Index,
    rows: Rows,
    shape: Preprocess,
    run: Callable[[features.Images], Float],
    stage: Stage,
) -> Float:
    order, done = np.argsort(rows), 0
    name, start, end = stage
    out: Float | None = None
    for batch_rows, images in features.decoded(context, index, rows, shape):
        found = run(images)
        out = np.empty((len(rows), found.shape[1]), np.float32) if out is None else out
        out[order[np.searchsorted(rows, batch_rows, sorter=order)]] = found
        done += len(batch_rows)
        context.reporter.progress(start + (end - start) * done / len(rows), name)
        context.reporter.check_yield()
    assert out is not None
    return out
