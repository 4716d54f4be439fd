"""Versions and alignments as they lie in storage -> what can be called. Graphs are fetched when they are first run."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from app.artifact import alignment as artifact
from app.artifact import bundle, tensors
from app.artifact import reference as references
from app.artifact import sample as samples
from app.artifact.alignment import MovingBackbone
from app.artifact.precisions import FLOAT, FP16, Precision, Second
from app.artifact.reference import Reference
from app.artifact.sample import Sample
from app.artifact.spec import BundleError, Spec
from app.errors import NotFound
from app.serving.model import Graph, Served
from app.serving.providers import CPU, Device
from app.serving.runtime import Session
from app.storage import Storage

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AlignmentPlace:
    """Where an alignment lies.

    Args:
        prefix: of its files in storage.
        sha256: of its graph.
        moving_backbone: that of the images, where it is not the version's.
    """

    prefix: str
    sha256: str
    moving_backbone: dict[str, Any] | None


def key(prefix: str, spec: Spec, name: str) -> str:
    """Where one of a bundle's files lies in storage: with the others, or once for many bundles."""
    file = spec.files.get(name)
    return (file.key if file is not None else None) or f"{prefix}/{name}"


def fetch(storage: Storage, prefix: str, spec: Spec, name: str) -> Path:
    """A local path of one of a bundle's files, `spec.json` among them, to be read only.

    Raises:
        BundleError: it is gone, or cut short.
    """
    try:
        path = storage.fetch(key(prefix, spec, name))
    except NotFound as error:
        # No such model is what a caller would take it for, and the key is none of his.
        raise BundleError(f"expected {name} of this version in storage; found none; restore its files") from error
    file = spec.files.get(name)
    # One that many bundles share was written by whoever came first, maybe with other libraries.
    if file is not None and file.key is None and (size := path.stat().st_size) != file.size_bytes:
        storage.forget(key(prefix, spec, name))
        raise BundleError(f"expected {name} of {file.size_bytes} bytes; found {size}; restore its files")
    return path


def version(storage: Storage, prefix: str, spec: Spec, device: Device = CPU) -> Served:
    """The version whose bundle lies under a prefix, its backbone on a device."""
    backbone, head = (
        _graph(storage, spec.files[name].sha256, key(prefix, spec, name), where)
        for name, where in ((bundle.BACKBONE, device), (bundle.HEAD, CPU))
    )
    sample = (lambda: _sample(storage, prefix, spec)) if bundle.SAMPLE in spec.files else None

    def forget(places: Iterable[str]) -> None:
        for place in (*places, key(prefix, spec, bundle.SAMPLE)):
            try:
                storage.forget(place)
            except OSError as error:
                # Of a disk that has failed; whoever asks is told that the version is not ready, and why.
                log.warning("the copy of %s cannot be dropped: %s", place, error)

    return Served(spec=spec, backbone=backbone, head=head, sample=sample, forget=forget)


def second(storage: Storage, prefix: str, served: Served, precision: Second) -> Served:
    """A version that has a second graph of that precision, on it: in half precision where the first one is run."""
    name = bundle.SECOND[precision]
    # One in 8 bits is made for processors.
    device = served.backbone.device if precision == FP16 else CPU
    graph = _graph(storage, served.spec.files[name].sha256, key(prefix, served.spec, name), device, precision)
    return replace(served, backbone=graph, precision=precision)


def through(storage: Storage, served: Served, place: AlignmentPlace) -> Served:
    """The version with an alignment before its head."""
    graph = _graph(storage, place.sha256, f"{place.prefix}/{artifact.GRAPH}")
    if place.moving_backbone is None:
        return served.through(graph)
    moving = MovingBackbone.model_validate(place.moving_backbone)
    network = _graph(storage, moving.graph.sha256, str(moving.graph.key), served.backbone.device)
    return served.through(graph, (network, moving.preprocess))


def reference(storage: Storage, prefix: str, spec: Spec) -> Reference | str:
    """What a version's answers are held against, or why there is nothing, in words."""
    if spec.added is not None:
        return (
            f"class {spec.added.label!r} was added to this version, and no test item shows how it is predicted; ask "
            f"for version {spec.added.version}, or train a version with the class"
        )
    if bundle.REFERENCE not in spec.files:
        return (
            "this version was published without a reference: before there was one, or without labelled test items; "
            "train it again on a dataset with a test split"
        )
    try:
        arrays = tensors.load(storage.fetch(key(prefix, spec, bundle.REFERENCE)))
        found = references.unpack(arrays, spec.backbone.feature_dim, len(spec.labels))
    except (NotFound, BundleError, KeyError, TypeError, ValueError) as error:
        log.warning("reference of %s: %r", prefix, error)
        storage.forget(key(prefix, spec, bundle.REFERENCE))
        return "the reference of this version is damaged or gone; restore its bundle, or train it again"
    return found or "the reference of this version was written by a newer Graft; upgrade this one"


def _sample(storage: Storage, prefix: str, spec: Spec) -> Sample | None:
    arrays = tensors.load(fetch(storage, prefix, spec, bundle.SAMPLE))
    try:
        return samples.unpack(arrays, spec.backbone.feature_dim, len(spec.labels))
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(f"expected {bundle.SAMPLE} as Graft writes it; found {error!r}; restore it") from error


def _graph(storage: Storage, sha256: str, place: str, device: Device = CPU, precision: Precision = FLOAT) -> Graph:
    def load(threads: int) -> Session:
        try:
            path = storage.fetch(place)
        except NotFound as error:
            # No such model is what a caller would take it for.
            raise BundleError("expected the graph of this version in storage; found none; restore its files") from error
        return Session(path, threads, device, precision=precision)

    return Graph(sha256, load, device, place)
