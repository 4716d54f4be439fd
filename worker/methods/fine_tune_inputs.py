"""What a fine-tuning is given: the input's size, the views that the label allows, and the material. Needs torch."""

from typing import Any

import numpy as np

from app.artifact.preprocess import Preprocess
from app.recipes import FineTune
from worker import features, forward, inputs, invariance, scopes, trivial
from worker.checkpoint import Snapshot
from worker.features import Extraction
from worker.methods.auto_budget import CACHED_SHARE, WHOLE_SHARE
from worker.methods.fine_tune_time import PROBE_SHARE, Limit
from worker.methods.heads import LinearHead
from worker.methods.task import Float, Rows, Task
from worker.prepared import Prepared
from worker.scopes import Material, Part
from worker.workbench import Pace

# Images in the median class from which views take an operation of TrivialAugment.
TRIVIAL_FROM = 20
MIXUP, MIXUP_FROM = 0.1, 20_000


def frozen(task: Task, source: Prepared, limit: Limit | None, snapshot: Snapshot | None) -> tuple[Float, Extraction]:
    """Features of the pool; with a limit, the rest of the time is planned by how long they took.

    Raises:
        JobFailure: `timed_out`, they do not fit the limit.
        Left: without a limit.
    """
    if limit is None:
        return forward.frozen(task, source, task.pool)
    limit.spend(snapshot.facts["seconds"] if snapshot else 0.0)
    try:
        found, extraction = forward.frozen(task, source, task.pool)
    except features.Left as left_off:
        raise limit.first_left(left_off) from None
    limit.plan(task, source, extraction)
    return found, extraction


def labels_allow(
    recipe: FineTune,
    task: Task,
    source: Prepared,
    probe: LinearHead,
    held: tuple[Rows, Float],
    wanted: tuple[str, ...],
    limit: Limit | None,
    snapshot: Snapshot | None,
) -> dict[str, dict[str, Any]]:
    """Which changes of an image leave its label alone; see `invariance`. An earlier attempt's where there was one.

    Args:
        recipe: of the run.
        task: the data.
        source: the backbone, with the input size that the probe learned from.
        probe: learned from other images.
        held: rows and their features.
        wanted: groups of operations; mirroring is always asked about.
        limit: of the job; a change that there is no time to ask about is not made.
        snapshot: where an earlier attempt stood.

    Raises:
        Left: without a limit.
    """
    asked = () if recipe.scope == "head" or recipe.augment == "none" else ("mirror", *wanted)
    if snapshot is not None and "labels_allow" in snapshot.facts:
        known: dict[str, dict[str, Any]] = snapshot.facts["labels_allow"]
        return known
    if limit is None:
        return invariance.check(task, source, probe, held, asked)
    found: dict[str, dict[str, Any]] = {}
    for name in asked:
        step = f"augmentation {name}"
        if not limit.allows(step, min(len(held[0]), invariance.NUM_IMAGES), PROBE_SHARE):
            continue
        try:
            found |= invariance.check(task, source, probe, held, (name,))
        except features.Left as left_off:
            limit.skip(step, f"the time is over; {left_off}")
    return found


def opened(
    recipe: FineTune,
    task: Task,
    part: Part,
    source: Prepared,
    facts: dict[str, Any],
    limit: Limit | None,
    snapshot: Snapshot | None,
) -> tuple[Material, bool]:
    """The material, and whether it is trained: where its inputs and an epoch do not fit the limit, it is the head's.

    Raises:
        JobFailure: `unsupported_scope`; `timed_out`, an earlier attempt's inputs are gone and there is no time.
        Left: without a limit.
    """
    views = facts["views"]
    if limit is None:
        return material(recipe, task, part, source.preprocess, views), True
    # A checkpoint is of what was begun with.
    is_trained = snapshot.facts.get("is_trained", True) if snapshot else recipe.scope == "head"
    if snapshot is None and not is_trained:
        num_images = len(part.train) + len(part.held)
        # Its inputs and one epoch.
        needed = passes(recipe, task, views) + is_cached(recipe, task, views)
        is_trained = limit.allows("training", num_images, passes=needed)
    # At another resolution the head stands on a graph of its own, which the training's material writes.
    if is_trained or source.preprocess != task.backbone.preprocess:
        try:
            return material(recipe, task, part, source.preprocess, views), bool(is_trained)
        except features.Left as left_off:
            if snapshot is not None:
                raise limit.first_left(left_off) from None
            limit.skip("training", f"the time is over; {left_off}")
    return scopes.head_only(task, part), False


def passes(recipe: FineTune, task: Task, views: int) -> float:
    """What one epoch takes for each image, in passes of the whole network; of activations, without gathering them."""
    if recipe.scope == "head":
        return 0.0
    return CACHED_SHARE if is_cached(recipe, task, views) else WHOLE_SHARE


def is_cached(recipe: FineTune, task: Task, views: int) -> bool:
    """Whether the last stage is trained on activations that are gathered before."""
    return recipe.scope == "last_stage" and task.context.device == "cpu" and views > 0


def pace(recipe: FineTune, task: Task, views: int, limit: Limit) -> Pace:
    """What the phases of a training within a limit are planned by."""
    return limit.pace(passes(recipe, task, views), float(is_cached(recipe, task, views)))


def material(recipe: FineTune, task: Task, part: Part, shape: Preprocess, views: int) -> Material:
    """What is trained and read, by scope.

    Raises:
        JobFailure: `unsupported_scope`.
        Left: see features.
    """
    if recipe.scope == "head":
        return scopes.head_only(task, part)
    if recipe.scope == "last_stage" and task.context.device == "cpu":
        if views:
            return scopes.last_stage(task, part, recipe, views)
        why = (
            "it has no proven split" if task.backbone.prefix is None else "its activations exceed the memory set aside"
        )
        task.context.reporter.log(f"{task.backbone.name}: the prefix is computed in every step, {why}", "warning")
    return scopes.on_images(task, part, recipe, shape)


def shape(recipe: FineTune, task: Task) -> Preprocess:
    """The input's size: the recipe's for the whole network where the network takes it, else the backbone's own."""
    own = task.backbone.preprocess
    if recipe.resolution is None or recipe.resolution == own.height:
        return own
    if recipe.scope in ("head", "last_stage"):
        task.context.reporter.log(
            f"resolution is for scopes full, norm, ssf and lora; {recipe.scope} keeps {own.height} px", "warning"
        )
        return own
    shape = inputs.at_resolution(own, recipe.resolution)
    try:
        forward.restore_at(task.backbone, shape)
    except ValueError as error:
        task.context.reporter.log(f"{error}; it keeps {own.height} px", "warning")
        return own
    return shape


def mixup(recipe: FineTune, train: Rows) -> float:
    """BiT's rule (arXiv 1912.11370, section 3.3): none on small data."""
    if recipe.mixup is not None:
        return recipe.mixup
    return MIXUP if len(train) >= MIXUP_FROM else 0.0


def groups(recipe: FineTune, task: Task, train: Rows) -> tuple[str, ...]:
    """Groups of operations that the views take beside crops, as far as the label allows them."""
    median = float(np.median(np.bincount(task.labels_N[train], minlength=task.num_classes)))
    kind = recipe.augment or ("trivial" if median >= TRIVIAL_FROM else "default")
    return tuple(trivial.GROUPS) if kind == "trivial" else ()
