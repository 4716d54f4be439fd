"""One call of a version: find its bundle, lease its graphs, decode, run, rank."""

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path

from app.artifact import alignment as artifact
from app.artifact import bundle
from app.artifact.alignment import MovingBackbone
from app.artifact.spec import Spec, image_input
from app.artifact.spec import load as load_spec
from app.db.models import Alignment, ModelVersion
from app.errors import BadRequest
from app.serving.pool import Graph, Pool, lease_runtime
from app.serving.predict import Prediction, predict
from app.serving.runtime import Session as GraphSession
from app.storage import Storage


@dataclass(frozen=True, slots=True)
class Served:
    """A version that can be called."""

    spec: Spec
    backbone: Graph
    head: Graph
    alignment: Graph | None = None


def open_version(storage: Storage, version: ModelVersion, threads: int) -> Served:
    """Where a version's graphs are; nothing is loaded yet."""
    spec = load_spec(storage.fetch(f"{version.prefix}/{bundle.SPEC}").read_bytes())
    return Served(
        spec=spec,
        backbone=_graph(storage, version.prefix, spec, bundle.BACKBONE, threads),
        # A head is one small product: threads would only wait for each other.
        head=_graph(storage, version.prefix, spec, bundle.HEAD, 1),
    )


def through(storage: Storage, served: Served, row: Alignment, threads: int) -> Served:
    """The version with an alignment between backbone and head; and under the images' own backbone, where it has one."""
    alignment = Graph(
        sha256=row.files[artifact.GRAPH]["sha256"],
        open=lambda: GraphSession(storage.fetch(f"{row.prefix}/{artifact.GRAPH}"), threads=1),
    )
    if row.moving_backbone is None:
        return replace(served, alignment=alignment)
    moving = MovingBackbone.model_validate(row.moving_backbone)
    backbone = Graph(
        sha256=moving.graph.sha256, open=lambda: GraphSession(storage.fetch(str(moving.graph.key)), threads=threads)
    )
    # From here on images are prepared for the network that they meet.
    spec = served.spec.model_copy(update={"inputs": (image_input(moving.preprocess),)})
    return Served(spec=spec, backbone=backbone, head=served.head, alignment=alignment)


def file_path(storage: Storage, prefix: str, spec: Spec, name: str) -> Path:
    """A local path of one of the bundle's files, wherever it is stored."""
    return storage.fetch(spec.files[name].key or f"{prefix}/{name}")


def run(
    pool: Pool[GraphSession],
    served: Served,
    images: Sequence[bytes],
    decoders: Executor,
    top_k: int,
    threshold: float | None,
    max_pixels: int,
) -> list[Prediction]:
    """Predictions in the order of the images.

    Raises:
        BadRequest: no image.
        BadImage: one of the images cannot be used; its index is named.
    """
    if not images:
        raise BadRequest(
            "expected at least one image; found none; send multipart `file`, an image body, or JSON images"
        )
    with lease_runtime(pool, served.backbone, served.head, served.alignment) as runtime:
        return predict(runtime, served.spec, images, decoders, top_k=top_k, threshold=threshold, max_pixels=max_pixels)


def open_session(storage: Storage, prefix: str, spec: Spec, name: str) -> GraphSession:
    """One small graph of a bundle, loaded for the caller alone."""
    return GraphSession(file_path(storage, prefix, spec, name), threads=1)


def _graph(storage: Storage, prefix: str, spec: Spec, name: str, threads: int) -> Graph:
    return Graph(
        sha256=spec.files[name].sha256,
        open=lambda: GraphSession(file_path(storage, prefix, spec, name), threads=threads),
    )


def composed(storage: Storage, prefix: str, spec: Spec) -> bytes:
    """`model.onnx`: images -> probabilities and features, in one graph; composed on demand."""
    head, backbone = (file_path(storage, prefix, spec, name) for name in (bundle.HEAD, bundle.BACKBONE))
    return bundle.model_bytes(spec, head, backbone)
