"""A class is added to a served model: features of a few images, surgery on the head, a new version. No training."""

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app import failpoints
from app.artifact import bundle, card, graph, predicted, sample, scores, seen, stored, surgery, tensors
from app.artifact import spec as specs
from app.artifact.precisions import SECOND
from app.artifact.predicted import Predictions
from app.artifact.sample import Said, Sample
from app.artifact.spec import Added, BundleError, File, Parity, Spec, classification_outputs
from app.db.base import new_id
from app.db.models import ModelVersion
from app.services import class_checks, stored_bytes
from app.services.class_checks import OldClasses
from app.services.publications import NewVersion
from app.services.waste import Reserved
from app.serving.engine import Engine
from app.serving.model import Served
from app.serving.runtime import Session as GraphSession
from app.serving.stored import fetch
from app.storage import Storage, out_of_space

TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class Made:
    """A bundle in storage that no row names yet.

    Args:
        version: what is to become a version.
        how: the rule that made the class.
        num_images: different ones, that the class was made from.
        old_classes: how they fare.
        warnings: what whoever serves the version should know, as sentences; also in its report and its card.
    """

    version: NewVersion
    how: str
    num_images: int
    old_classes: OldClasses
    warnings: list[str]


@dataclass(frozen=True, slots=True)
class _Scored:
    """The stored test items under the head before and after."""

    features_TD: NDArray[np.float32]
    labels_T: NDArray[np.int64]
    rows_T: NDArray[np.int64]
    before_TC: NDArray[np.float32]
    after_TC: NDArray[np.float32]

    @property
    def old_classes(self) -> OldClasses:
        """Accuracies of the two."""
        if not len(self.labels_T):
            return OldClasses(0, None, None)
        before, after = (float((found.argmax(1) == self.labels_T).mean()) for found in (self.before_TC, self.after_TC))
        return OldClasses(len(self.labels_T), before, after)


def make(
    storage: Storage,
    scratch: Path,
    engine: Engine,
    served: Served,
    base: ModelVersion,
    model: str,
    label: str,
    images: Sequence[bytes],
    reserved: Reserved,
) -> Made:
    """The new bundle, stored under its own, reserved prefix; whoever calls gives it back unless a row names it.

    An image that was given twice is used once. Alike are the same bytes: all are decoded, so that a bad one is named by
    its place in the request.

    Raises:
        BadImage: one of the images cannot be used; its index is named.
        Overloaded: too many images wait already.
        BundleError: the base's files do not fit together, or the new graph says something else than its arrays.
        OutOfSpace: there is no room; nothing is left.
    """
    spec = served.spec
    features_MD = engine.submit(served, images, project=base.project_id).result().features_ND[_first(images)]
    try:
        arrays = tensors.load(fetch(storage, base.prefix, spec, bundle.WEIGHTS))
        head = fetch(storage, base.prefix, spec, bundle.HEAD).read_bytes()
        from_words = spec.recipe.get("method") == "zero_shot"
        grown = surgery.add_class(spec.head, head, arrays, spec.temperature, features_MD, from_words=from_words)
    except (KeyError, ValueError) as error:
        raise BundleError(f"expected a {spec.head} head with its arrays; found {error!r}; publish it again") from error
    after = GraphSession(grown.graph, 1)
    scored = _score(storage, base.prefix, spec, after)
    old = scored.old_classes
    warnings = class_checks.warn(model, base.version, len(images), len(features_MD), old)
    proof = _prove(spec, grown, after, np.concatenate([scored.features_TD, features_MD]))
    described = Spec.model_validate(
        {
            **dict(spec),
            "labels": (*spec.labels, label),
            "outputs": classification_outputs(len(spec.labels) + 1, spec.backbone.feature_dim),
            "metrics": {},
            "calibrated": False,
            "files": {},
            "parity": proof,
            # What other graphs do to the new head is not known.
            **dict.fromkeys(SECOND),
            "spec_version": 1,
            "added": Added(label=label, model=model, version=base.version, num_images=len(features_MD), how=grown.how),
            "created_at": datetime.now(UTC),
        }
    )
    version_id = new_id("ver")
    prefix = f"bundles/{base.project_id}/{version_id}/added"
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch, prefix="class-") as folder:
        try:
            network = spec.files[bundle.BACKBONE]
            report = _report(described, old, warnings)
            known = _seen(storage, base, spec, label, images)
            place = Path(folder) / "bundle"
            tried_on = _sample(served, after)
            written = _write(storage, place, base, network, described, grown, scored, report, known, tried_on)
            new = NewVersion(version_id, prefix, specs.document(written))
            with reserved(prefix, stored_bytes.own_files(new.spec)):
                _store(storage, Path(folder) / "bundle", prefix, written)
        except OSError as error:
            raise out_of_space(error) from error
    return Made(new, grown.how, len(features_MD), old, warnings)


def _first(images: Sequence[bytes]) -> list[int]:
    """The places of images that no earlier one equals."""
    places: dict[bytes, int] = {}
    for place, image in enumerate(images):
        places.setdefault(hashlib.sha256(image).digest(), place)
    return list(places.values())


def _seen(
    storage: Storage, base: ModelVersion, spec: Spec, label: str, images: Sequence[bytes]
) -> dict[str, NDArray[Any]] | None:
    """What the base learned from, and the new class's images; None where the base has no record."""
    if bundle.SEEN not in spec.files:
        return None
    known = seen.unpack(tensors.load(fetch(storage, base.prefix, spec, bundle.SEEN)))
    digests = [hashlib.sha256(images[place]).digest() for place in _first(images)]
    return seen.pack([*known, seen.of_class(label, digests)])


def _sample(served: Served, after: GraphSession) -> Sample | None:
    """The base's pictures, and what the new head says of them; None where the base has none."""
    before = served.sample() if served.sample is not None else None
    if before is None:
        return None
    features_KD = before.said.features_KD
    return Sample(before.pictures, before.training, Said(features_KD, after.run(features_KD)[0]))


def _score(storage: Storage, prefix: str, spec: Spec, after: GraphSession) -> _Scored:
    num_classes, num_features = len(spec.labels), spec.backbone.feature_dim
    features_TD = np.empty((0, num_features), np.float32)
    labels_T = rows_T = np.empty(0, np.int64)
    before_TC, after_TC = np.empty((0, num_classes), np.float32), np.empty((0, num_classes + 1), np.float32)
    if bundle.FEATURES in spec.files:
        kept = tensors.load(fetch(storage, prefix, spec, bundle.FEATURES))
        features_TD, labels_T, rows_T = stored.unpack(kept)
    if len(features_TD):
        before_TC = GraphSession(fetch(storage, prefix, spec, bundle.HEAD), threads=1).run(features_TD)[0]
        after_TC = after.run(features_TD)[0]
    return _Scored(features_TD, labels_T, rows_T, before_TC, after_TC)


def _prove(spec: Spec, grown: surgery.Grown, after: GraphSession, features_ND: NDArray[np.float32]) -> Parity:
    """The new graph against its arrays, on the stored features and the new class's own."""
    # A text head's arrays are those made for its classes; the classifier it asks first lies in its graph alone.
    arrays = {**graph.constants(grown.graph), **grown.tensors}
    expected_NC = scores.probabilities(spec.head, arrays, spec.temperature, features_ND)
    found_NC = after.run(features_ND)[0]
    if found_NC.shape != expected_NC.shape:
        raise BundleError(f"expected probabilities {expected_NC.shape}; found {found_NC.shape}; publish the base again")
    proof = Parity(float(np.abs(found_NC - expected_NC).max()), len(features_ND), TOLERANCE)
    if not proof.ok:
        raise BundleError(
            f"expected the changed head to agree with its arrays within {TOLERANCE}; found {proof.max_abs:.3g}; "
            "nothing was published; publish the base again"
        )
    return proof


def _write(
    storage: Storage,
    folder: Path,
    base: ModelVersion,
    network: File,
    described: Spec,
    grown: surgery.Grown,
    scored: _Scored,
    report: dict[str, Any],
    known: dict[str, NDArray[Any]] | None,
    tried_on: Sample | None,
) -> Spec:
    assert described.added is not None
    before = predicted.read(storage.fetch(f"{base.prefix}/{bundle.PREDICTIONS}"))
    names = described.labels
    return bundle.write(
        folder,
        described,
        head=grown.graph,
        weights=grown.tensors,
        report=report,
        predictions=Predictions(
            ids=[before.ids[row] for row in scored.rows_T],
            sha256=[before.sha256[row] for row in scored.rows_T],
            labels=[names[label] for label in scored.labels_T],
            predicted=[names[label] for label in scored.after_TC.argmax(1)] if len(scored.after_TC) else [],
            splits=[before.splits[row] for row in scored.rows_T],
            probabilities=scored.after_TC,
        ),
        readme=card.render(described, report, described.added.model, tried_on),
        # A graph of its own is copied: the base may be deleted.
        backbone=network if network.key else storage.fetch(f"{base.prefix}/{bundle.BACKBONE}"),
        features=stored.pack(scored.features_TD, [names[label] for label in scored.labels_T], names),
        seen=known,
        sample=None if tried_on is None else sample.pack(tried_on),
        # Likewise the weights behind it, which are still those of this version.
        state=storage.fetch(f"{base.prefix}/{bundle.STATE}") if bundle.STATE in base.spec["files"] else None,
    )


def _report(spec: Spec, old: OldClasses, warnings: list[str]) -> dict[str, Any]:
    assert spec.added is not None
    return {
        "verdict": None,
        "added": spec.added.model_dump(mode="json"),
        "old_classes": {
            "num_samples": old.num_samples,
            "accuracy_before": old.accuracy_before,
            "accuracy_after": old.accuracy_after,
            "reason": old.reason,
            "what": "test items of the classes that were there before, from stored features",
        },
        "warnings": warnings,
        "metrics": {},
        "calibrated": False,
    }


def _store(storage: Storage, folder: Path, prefix: str, written: Spec) -> None:
    """spec.json last, so that a prefix that has one is whole."""
    names = [name for name, file in written.files.items() if file.key is None]
    for name in [*names, bundle.SPEC]:
        storage.put(f"{prefix}/{name}", folder / name)
        failpoints.reach("class_file_stored")
    failpoints.reach("class_stored")
