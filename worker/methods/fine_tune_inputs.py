"""What a fine-tuning is given: the input's size, the views that the label allows, and the material. Needs torch."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from app.artifact.preprocess import Preprocess
from app.recipes import FineTune
from worker.attempt.context import never
from worker.backbones import features
from worker.backbones.extraction import Extraction
from worker.backbones.prepared import Prepared
from worker.contract.heads import LinearHead
from worker.contract.task import Float, Rows, Task
from worker.fine_tuning import forward, invariance, pilots, scopes, workbench
from worker.fine_tuning.network import Network
from worker.fine_tuning.scopes import Material, Part
from worker.fine_tuning.workbench import Pace
from worker.methods.clock import CACHED_SHARE, WHOLE_SHARE
from worker.methods.fine_tune_time import MIN_EPOCHS, PROBE_SHARE, Limit
from worker.training import inputs, trivial
from worker.training.checkpoint import Snapshot

# Images in the median class from which views take an operation of TrivialAugment.
TRIVIAL_FROM = 20
MIXUP, MIXUP_FROM = 0.1, 20_000


@dataclass(frozen=True)
class Opened:
    """What there is to train on.

    Args:
        material: of the scope, or of the head alone.
        is_trained: whether it is.
        step_seconds: of a step for each image, where one was timed.
    """

    material: Material
    is_trained: bool
    step_seconds: float | None = None


def frozen(
    recipe: FineTune, task: Task, source: Prepared, limit: Limit | None, snapshot: Snapshot | None
) -> tuple[Task, Float, Extraction]:
    """The task, features of its pool, and what these took; with a limit, as many images as fit, and the rest planned.

    Raises:
        Left: without a limit.
    """
    if limit is None:
        return task, *forward.frozen(task, source, task.pool)
    known = None
    if snapshot is not None:
        limit.clock.spend(workbench.spent(snapshot)[1])
        known = snapshot.facts.get("num_rows")
    task, extraction = limit.gather(task, source, known)
    found, _ = forward.frozen(task, source, task.pool)
    views = inputs.num_views(task.backbone, len(task.pool))
    costs = passes(recipe, task, views), float(is_cached(recipe, task, views))
    limit.plan(task, source, extraction, *costs, min(MIN_EPOCHS, recipe.epochs))
    return task, found, extraction


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
            limit.clock.skip(step, f"the time is over; {left_off}")
    return found


def opened(
    recipe: FineTune,
    task: Task,
    part: Part,
    source: Prepared,
    facts: dict[str, Any],
    limit: Limit | None,
    snapshot: Snapshot | None,
    probe: LinearHead,
    *,
    trains: bool,
) -> Opened:
    """The material; where its inputs and an epoch do not fit the limit after all, it is the head's.

    Raises:
        JobFailure: `unsupported_scope`.
        Left: without a limit.
    """
    views = facts["views"]
    if limit is None:
        return Opened(material(recipe, task, part, source.preprocess, views), True)
    whole = replace(task, context=replace(task.context, leaves=never))
    if snapshot is not None and snapshot.facts.get("is_trained", True):
        # What an earlier attempt has learned is served with these inputs, whatever time is left.
        return Opened(material(recipe, whole, part, source.preprocess, views), True)
    if snapshot is None and trains:
        try:
            made = material(recipe, task, part, source.preprocess, views)
            seconds = _timed(recipe, task, made, probe)
            if seconds is not None:
                limit.share(seconds * _epoch_items(part) * min(MIN_EPOCHS, recipe.epochs))
            if seconds is None or limit.allows_seconds("training", seconds * _epoch_items(part)):
                return Opened(made, True, seconds)
        except features.Left as left_off:
            limit.clock.skip("training", f"the time is over; {left_off}")
    if source.preprocess == task.backbone.preprocess:
        return Opened(scopes.head_only(task, part), False)
    # At another resolution the head stands on a graph of its own, which the training's material writes.
    untrained = replace(part, train=part.train[:1], train_ND=part.train_ND[:1])
    return Opened(material(recipe, whole, untrained, source.preprocess, views), False)


def fits(recipe: FineTune, task: Task, limit: Limit) -> bool:
    """Whether there is time for the inputs of a training and one epoch, by the pace of passes; says where not."""
    views = inputs.num_views(task.backbone, len(task.pool))
    needed = passes(recipe, task, views) + is_cached(recipe, task, views)
    return recipe.scope == "head" or limit.allows("training", len(task.pool), passes=needed)


def _timed(recipe: FineTune, task: Task, made: Material, probe: LinearHead) -> float | None:
    """Seconds of a step for each image, timed; None where inputs are gathered later, or are features."""
    if recipe.scope == "head" or made.views is not None:
        return None
    return pilots.step_seconds(Network(made.trunk, probe), made.train, task.context.device)


def _epoch_items(part: Part) -> float:
    """Steps of an epoch and of the looks around it, in items of a step."""
    return len(part.train) + 3 * workbench.LOOK_SHARE * len(part.held)


def passes(recipe: FineTune, task: Task, views: int) -> float:
    """What one epoch takes for each image, in passes of the whole network; of activations, without gathering them."""
    if recipe.scope == "head":
        return 0.0
    return CACHED_SHARE if is_cached(recipe, task, views) else WHOLE_SHARE[task.context.device]


def is_cached(recipe: FineTune, task: Task, views: int) -> bool:
    """Whether the last stage is trained on activations that are gathered before."""
    return recipe.scope == "last_stage" and task.context.device == "cpu" and views > 0


def pace(recipe: FineTune, task: Task, views: int, limit: Limit, step_seconds: float | None) -> Pace:
    """What the phases of a training within a limit are planned by."""
    return limit.pace(passes(recipe, task, views), float(is_cached(recipe, task, views)), step_seconds)


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
