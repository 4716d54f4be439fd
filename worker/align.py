"""The align job, told in order: load -> features -> fit and measure -> fit on all -> verify -> store. No torch.

Shape legend: M items of the target (which moves), N of the source (which stays), D and E their features.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app import alignments, failpoints
from app.alignments import Paired, PairedAffine
from app.artifact import alignment as artifact
from app.artifact import bundle, tensors
from app.artifact.alignment import MovingBackbone
from app.errors import JobFailure
from app.serving.runtime import Session
from worker import transfer
from worker.alignments import pairs, summary
from worker.alignments.affine import Affine, Floats
from worker.alignments.table import FITS, Fitted, Given, held_out
from worker.attempt.context import RunContext
from worker.backbones import features
from worker.backbones.prepared import Prepared
from worker.data.samples import Index
from worker.data.splits import SPLITS
from worker.prepare import sources

MIN_ITEMS = 10
# A slope from n pairs is off by about sqrt((1 - r^2) / (r^2 n)) of itself: a quarter at 30 pairs that correlate by 0.6.
FEW_PAIRS = 30
# Factors beyond this (either sign) are warned of. Features that mean the same in both domains have factors near 1; a
# large one belongs to a feature that hardly varies in the target, whose noise it carries into the head.
MAX_FACTOR = 10.0
# Of the largest aligned feature: float32 sums of a thousand products.
TOLERANCE = 1e-3

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Side:
    """One of the two domains: its dataset, the rows that may be used, the backbone that its images go through."""

    index: Index
    rows: Rows
    backbone: Prepared

    @property
    def groups(self) -> NDArray[np.int64]:
        """Copies of one picture share a number."""
        return self.index.group[self.rows]


def run(context: RunContext) -> dict[str, Any]:
    """Fits the job's alignment.

    Returns:
        what `services.alignments.complete` writes.

    Raises:
        JobFailure: what the owner of the job can understand.
    """
    recipe, reporter = alignments.parse(context.document.recipe or {}), context.reporter
    reporter.progress(0.01, "load")
    moving, fixed = sides(context, recipe)
    moving_MD = _features(context, moving, ("features", 0.05, 0.35))
    fixed_NE = _features(context, fixed, ("features", 0.35, 0.65))
    reporter.progress(0.65, "fit")
    result = _measure(recipe, moving, fixed, moving_MD, fixed_NE)
    reporter.check_yield()
    reporter.progress(0.85, "fit")
    fitted = FITS[type(recipe)](recipe, Given(moving_MD, fixed_NE, moving.groups, fixed.groups))
    result |= {
        "dims": {"taken": fitted.affine.dim_in, "given": fitted.affine.dim_out},
        "num_samples": {"source": len(fixed.rows), "target": len(moving.rows)},
        "learned": summary.learned(fitted),
        "warnings": [*_warnings(recipe, fixed, fitted.affine), *_no_better_than_the_mean(result["pairs"])],
    }
    other = moving.backbone.digest != fixed.backbone.digest
    reporter.progress(0.95, "verify")
    graph = artifact.affine(fitted.affine.alpha, fitted.affine.offset)
    result["parity"] = verify(graph, fitted.affine, moving_MD)
    files = _store(context, graph, fitted, moving.backbone if other else None)
    _announce(context, result)
    return {
        "prefix": context.document.bundle_prefix,
        "files": files,
        "backbone_digest": fixed.backbone.digest,
        "moving_backbone": _moving(moving.backbone) if other else None,
        "result": result,
    }


def sides(context: RunContext, recipe: Any) -> tuple[Side, Side]:
    """The moving domain and the fixed one; the test split of neither is used.

    Raises:
        JobFailure: dataset_invalid, too few samples or pairs.
    """
    document = context.document
    source = transfer.load(context, document.dataset)
    target = transfer.load(context, document.datasets["target"]) if "target" in document.datasets else source
    backbone = sources.open_backbone(context, recipe.backbone)
    own = (isinstance(recipe, Paired) and recipe.from_backbone) or recipe.backbone
    other = backbone if own == recipe.backbone else sources.open_backbone(context, own)
    source_rows, target_rows = (np.flatnonzero(index.split != SPLITS.index("test")) for index in (source, target))
    pairing = isinstance(recipe, Paired) and target is not source
    if pairing:
        source_rows, target_rows = pairs.match(source, target, source_rows, target_rows, recipe.pair_by)
    elif target is source:
        target_rows = source_rows
    if pairing and len(source_rows) < MIN_ITEMS:
        raise JobFailure(
            "dataset_invalid",
            f"expected at least {MIN_ITEMS} pairs outside the test splits, items being paired by "
            f"{alignments.PAIRED_BY[recipe.pair_by]} (`pair_by`: {recipe.pair_by}); found {len(source_rows)}; give the "
            "same picture the same in both datasets, once in each, or choose among "
            f"{', '.join(alignments.PAIRED_BY)}; for other pictures take an unpaired method, such as coral",
        )
    for name, rows in (("source", source_rows), ("target", target_rows)):
        if len(rows) < MIN_ITEMS:
            raise JobFailure(
                "dataset_invalid",
                f"expected at least {MIN_ITEMS} images outside the test split; found {len(rows)} in {name}; add images",
            )
    return Side(target, target_rows, other), Side(source, source_rows, backbone)


def _warnings(recipe: Any, fixed: Side, affine: Affine) -> list[str]:
    """What is said of a fit that stands on little: least squares is not shrunken, whoever asks for it gets it."""
    if not isinstance(recipe, PairedAffine):
        return []
    num_pairs = len(np.unique(fixed.groups))
    found = []
    if num_pairs < FEW_PAIRS:
        found.append(
            f"one factor per feature was fitted to {num_pairs} different pairs, expected at least {FEW_PAIRS}: compare "
            "`pairs.held_out` with `pairs.unchanged`, give more pairs, or take moment_matching with order 1"
        )
    size_D = np.abs(affine.alpha)
    num_large = int((size_D > MAX_FACTOR).sum())
    if num_large:
        largest = int(size_D.argmax())
        found.append(
            f"{num_large} of {len(size_D)} features get a factor beyond {MAX_FACTOR:g}, the largest "
            f"{affine.alpha[largest]:.3g} (feature {largest}): they hardly vary in the target, and their noise is "
            "amplified; take ridge or procrustes, or give more pairs"
        )
    return found


def _no_better_than_the_mean(errors: dict[str, Any] | None) -> list[str]:
    """What is said of paired fits that explain nothing of pairs that they have not seen."""
    if errors is None or errors["held_out"]["r2"] > 0:
        return []
    return [
        "on held-out pairs the aligned features are no nearer to their partners than the mean of all partners is "
        f"(`pairs.held_out.r2` {errors['held_out']['r2']:.2f}), expected above 0: classes may get lost on the way; "
        "give more pairs, or take ridge, which is shrunken"
    ]


def verify(graph: bytes, affine: Affine, feats_ND: Floats) -> dict[str, float | int]:
    """Runs the graph that will be served, and compares it with what was fitted.

    Raises:
        JobFailure: internal, they differ beyond float32; nothing is published.
    """
    rows = feats_ND[:64].astype(np.float32)
    wanted = affine.apply(rows.astype(np.float64))
    apart = float(np.abs(Session(graph, threads=1).run(rows)[0] - wanted).max())
    largest = max(float(np.abs(wanted).max()), 1.0)
    if not apart <= TOLERANCE * largest:
        raise JobFailure(
            "internal",
            f"expected the graph to agree with the fit within {TOLERANCE * largest:.3g}; found {apart:.3g}; "
            "nothing was published; ask for more shrinkage or strength",
        )
    return {"max_abs": apart, "num_samples": len(rows), "tolerance": TOLERANCE * largest}


def _features(context: RunContext, side: Side, stage: tuple[str, float, float]) -> Floats:
    found, extraction = features.pooled(context, side.index, side.rows, side.backbone, stage)
    context.reporter.log(
        f"features of {len(side.rows)} images under {side.backbone.name}: {extraction.num_cached} cached, "
        f"{extraction.num_extracted} extracted in {extraction.seconds:.1f} s",
        num_cached=extraction.num_cached,
        num_extracted=extraction.num_extracted,
    )
    return found


def _measure(recipe: Any, moving: Side, fixed: Side, moving_MD: Floats, fixed_NE: Floats) -> dict[str, Any]:
    """Fits on four fifths and looks at the rest; the same pairs are held out on both sides where there are pairs."""
    paired = isinstance(recipe, Paired)
    held_N = held_out(fixed.groups, recipe.seed)
    held_M = held_N if paired else held_out(moving.groups, recipe.seed)
    split_moving = moving_MD[~held_M], moving_MD[held_M]
    split_fixed = fixed_NE[~held_N], fixed_NE[held_N]
    if min(map(len, (*split_moving, *split_fixed))) < 2:
        raise JobFailure(
            "dataset_invalid",
            "expected at least 2 images to fit and 2 to measure on, copies of a picture counted once; "
            f"found {len(np.unique(moving.groups))} and {len(np.unique(fixed.groups))} different pictures; add images",
        )
    tried = FITS[type(recipe)](
        recipe, Given(split_moving[0], split_fixed[0], moving.groups[~held_M], fixed.groups[~held_N])
    )
    return {
        "distance": summary.distances(split_moving, split_fixed, tried.affine, recipe.seed),
        "pairs": summary.errors(split_moving, split_fixed, tried.affine) if paired else None,
    }


def _store(context: RunContext, graph: bytes, fitted: Fitted, moving: Prepared | None) -> dict[str, Any]:
    """Puts the files under the attempt's own prefix, and another backbone's graph where all share it."""
    folder = context.scratch / "alignment"
    folder.mkdir()
    (folder / artifact.GRAPH).write_bytes(graph)
    arrays = {"alpha": fitted.affine.alpha, "offset": fitted.affine.offset}
    (folder / artifact.ARRAYS).write_bytes(tensors.dump(arrays))
    files = {name: bundle.entry(folder / name).model_dump(mode="json") for name in artifact.FILES}
    for name in artifact.FILES:
        context.storage.put(f"{context.document.bundle_prefix}/{name}", folder / name)
        failpoints.reach("alignment_file_stored")
    if moving is not None:
        key = bundle.shared_key(moving.digest)
        if context.storage.stat(key) is None:
            context.storage.put(key, moving.graph)
            failpoints.reach("moving_graph_shared")
    return files


def _moving(backbone: Prepared) -> dict[str, Any]:
    return MovingBackbone(
        name=backbone.name,
        digest=backbone.digest,
        graph=bundle.entry(backbone.graph, bundle.shared_key(backbone.digest)),
        preprocess=backbone.preprocess,
    ).model_dump(mode="json")


def _announce(context: RunContext, result: dict[str, Any]) -> None:
    before, after = result["distance"]["before"], result["distance"]["after"]
    told = "" if before is None else f" (before: {before['proxy_a']:.2f})"
    context.reporter.metric(
        f"proxy A-distance on held-out items {after['proxy_a']:.2f}{told}",
        **{f"after_{name}": value for name, value in after.items()},
    )
