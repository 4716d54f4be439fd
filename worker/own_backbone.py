"""The backbone job: a user's own checkpoint is opened in a limited child, mapped, refused or prepared, and stored.

A finished version can be a source too: the weights that its job has trained come out of its bundle, and what they
learned from comes along, so that later transfers from it can be asked which of their test items it has met.
"""

from dataclasses import asdict, replace
from typing import Any

from app import backbones, failpoints
from app.artifact import bundle, tensors
from app.artifact import seen as artifact
from app.artifact import spec as specs
from app.artifact.spec import BundleError, Spec
from app.backbones import Backbone, Weights
from app.errors import JobFailure, NotFound
from worker.attempt.context import RunContext
from worker.attempt.gone import version_deleted
from worker.backbones.prepared import Prepared
from worker.prepare.checkpoints import Refused, admit
from worker.reports import lineage


def run(context: RunContext) -> dict[str, Any]:
    """Admits the job's checkpoint, or a version's weights.

    Returns:
        what `services.outcomes` writes: the mapping, and either the backbone's document or why it was refused.
    """
    inputs = context.document.inputs
    base = backbones.find(inputs["architecture"])
    if base is None:
        raise JobFailure(
            "weights_unavailable", f"expected an architecture of the catalogue; found {inputs['architecture']!r}"
        )
    if "source" in inputs:
        return _of_version(context, base)
    # A job that waited while the service was renewed has no input of its own.
    shape = backbones.preprocess_from(inputs["input"]) if "input" in inputs else base.preprocess
    return _of_upload(context, replace(base, preprocess=shape))


def _of_upload(context: RunContext, base: Backbone) -> dict[str, Any]:
    inputs = context.document.inputs
    destination = context.scratch / "backbones"
    try:
        admitted = admit(
            inputs["name"], base, context.storage.fetch(inputs["file"]), destination, context.reporter.progress
        )
    except Refused as refused:
        return {
            "failure": refused.message,
            "mapping": refused.report and refused.report.to_document(),
            "document": None,
        }
    prefix, size_bytes = _store(context, admitted.prepared)
    mapping = admitted.report.to_document()
    context.reporter.log(
        f"{admitted.report.share:.1%} of {base.name} filled from the checkpoint", mapping=mapping["counts"]
    )
    new = {"tensors": admitted.prepared.new, "num_params": admitted.prepared.num_new}
    return {
        "failure": None,
        "mapping": mapping,
        "document": {"backbone": asdict(admitted.backbone), "prefix": prefix, "architecture": base.name, "new": new},
        "size_bytes": size_bytes,
    }


def _of_version(context: RunContext, base: Backbone) -> dict[str, Any]:
    """Weights that Graft wrote itself: they fit as they are, or the network was changed beyond its architecture."""
    inputs, storage, reporter = context.document.inputs, context.storage, context.reporter
    source = inputs["source"]
    try:
        described = specs.load(storage.fetch(f"{inputs['prefix']}/{bundle.SPEC}").read_bytes())
        file = storage.fetch(f"{inputs['prefix']}/{bundle.STATE}")
        taught = lineage.of_version(storage, inputs["prefix"], described.files) or ()
    except NotFound as error:
        raise version_deleted(source, "checked with its weights", "name another one") from error
    if bundle.entry(file).sha256 != described.files[bundle.STATE].sha256:
        raise BundleError(f"expected {bundle.STATE} as {bundle.SPEC} names it; found another content; restore it")
    backbone = _backbone(inputs["name"], base, described)
    try:
        done = _prepare(context, base, backbone, file)
    except ValueError as error:
        return {"failure": str(error), "mapping": None, "document": None}
    prefix, size_bytes = _store(context, done)
    key = f"{prefix}/{bundle.SEEN}"
    record = context.scratch / bundle.SEEN
    record.write_bytes(tensors.dump(artifact.pack(taught)))
    storage.put(key, record)
    reporter.log(f"{backbone.name} is the network of {source['model']} version {source['version']}", **source)
    return {
        "failure": None,
        "mapping": None,
        "document": {
            "backbone": asdict(backbone),
            "prefix": prefix,
            "architecture": base.name,
            "source": source,
            "seen": key,
            "taught_by": [{**one.describe(), "backbone": one.backbone or None} for one in taught],
        },
        "size_bytes": size_bytes + record.stat().st_size,
    }


def _backbone(name: str, base: Backbone, described: Spec) -> Backbone:
    """The catalogue's row with the version's input: training may have changed the resolution."""
    weights = Weights(kind="user", location=name, sha256=described.files[bundle.STATE].sha256, classifier=False)
    return replace(
        base,
        name=name,
        provider="user",
        architecture=base.name,
        licence=described.backbone.licence,
        preprocess=described.preprocess,
        recommended=False,
        rank=None,
        weights=weights,
    )


def _prepare(context: RunContext, base: Backbone, backbone: Backbone, file: Any) -> Prepared:
    """Builds, fills and exports.

    Raises:
        ValueError: the weights have tensors or shapes that the architecture has no place for.
    """
    from worker.backbones import networks as builders
    from worker.prepare import image_tower

    features = builders.feature_module(builders.build(base, None), base.provider)
    try:
        features.network.load_state_dict(builders.read_state(file), strict=True)  # type: ignore[union-attr]
    except RuntimeError as error:
        raise ValueError(
            f"expected weights that fit {base.name} as it is; found a network that its job has changed: "
            f"{str(error)[:400]}; train with scope full, last_stage or norm at the backbone's own resolution"
        ) from error
    inner: Any = features.network
    destination = context.scratch / "backbones"
    return image_tower.write(inner, backbone, backbone.weights.sha256, destination, context.reporter.progress)


def _store(context: RunContext, done: Prepared) -> tuple[str, int]:
    """Puts the prepared files in a place of this backbone alone; its prefix, and their bytes.

    Not under their digest: one of equal weights would go with it.
    """
    prefix, size_bytes = f"backbones/{context.document.project}/{context.document.inputs['backbone_id']}", 0
    for path in sorted(done.folder.iterdir()):
        context.storage.put(f"{prefix}/{path.name}", path)
        failpoints.reach("backbone_file_stored")
        size_bytes += path.stat().st_size
    return prefix, size_bytes
