"""Fine-tuning: the linear probe first, then the network from there (LP-FT, Kumar et al., arXiv 2202.10054).

Scopes: the head alone; the last stage, on a CPU over cached activations of the frozen prefix; the whole network.
Batch-norm statistics stay frozen. A fifth of the pool, whole groups, is held out: it chooses learning rate, epoch and
temperature; nothing is refitted on it. Departures: the probe's temperature is folded into the start, and the probe
itself (epoch 0) stays in the choice: where training gained nothing on the hold-out, the frozen backbone is served.

Shape legend: N images, P of the pool, D features, C classes.
"""

import hashlib
import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import partial

import numpy as np
import torch

from app.recipes import FineTune
from worker.backbones import features, networks
from worker.contract.candidate import Candidate, Selection
from worker.contract.heads import LinearHead
from worker.contract.outcome import Outcome
from worker.contract.task import Float, Rows, Task
from worker.evaluate import judged
from worker.evaluate.distortion import relative_change
from worker.fine_tuning import forward, moved, scopes, start, tuning
from worker.fine_tuning.moved import Fold
from worker.fine_tuning.network import Network
from worker.fine_tuning.scopes import Material, Part
from worker.fine_tuning.tuning import Tuned
from worker.fine_tuning.workbench import Options, Workbench
from worker.methods import fine_tune_inputs, fine_tune_probe
from worker.methods.fine_tune_time import Limit
from worker.methods.reference import FALLBACK_OFF, holdout
from worker.scores import calibration
from worker.training import checks
from worker.training.checkpoint import Checkpoints, Snapshot

CHOSE = "the hold-out also chose learning rate and epoch, the start among them: a small gain may be that choice"
JUDGED = "hold-out of 20 %, each half at the epoch that the other half chose"
JUDGED_OPTIMISM = "the learning rate was chosen on both halves, by the loss after a few steps"


def job(recipe: FineTune, task: Task) -> Outcome:
    """The recipe as a job of its own: `max_minutes` bounds all of it, baselines and scoring included.

    Raises:
        JobFailure: as `run`.
        Yielded: the worker shuts down.
    """
    if not len(holdout(task)):
        probe, decision = fine_tune_probe.candidate(recipe, task, fine_tune_probe.TOO_FEW), fine_tune_probe.skipped()
        task.context.reporter.log(f"training: skipped, {decision.reason}", "warning", **asdict(decision))
        return Outcome(probe, (decision,), frozen=probe)
    limit = None if recipe.max_minutes is None else Limit(task, recipe.max_minutes, recipe.scope)
    candidate = run(recipe, limit.clock.watch(task) if limit else task, limit)
    if candidate.shared and candidate.start and not (limit and limit.excerpt):
        candidate = fine_tune_probe.refitted(task, candidate)
    # Without a training it is the probe on the frozen backbone.
    frozen, stays = None if candidate.start else candidate, None if recipe.fallback else FALLBACK_OFF
    if limit is None:
        return Outcome(candidate, frozen=frozen, stays=stays)
    return Outcome(
        candidate,
        tuple(limit.decisions),
        frozen=frozen,
        compared_by_seconds=limit.compared_by_seconds,
        image_seconds=limit.image_seconds,
        excerpt=limit.excerpt,
        stays=stays,
    )


def run(recipe: FineTune, task: Task, limit: Limit | None = None) -> Candidate:
    """Probe, material, training, graph.

    Args:
        recipe: with `max_minutes` of the training, where there is no limit.
        task: the data.
        limit: of the whole job; None where the caller minds what stands around the training.

    Raises:
        JobFailure: `diverged`; `out_of_memory`; `unsupported_scope`.
        ValueError: no image can be held out.
        Yielded: the worker shuts down.
    """
    began = time.monotonic()
    context = task.context
    torch.set_num_threads(context.settings.num_compute_threads)
    checkpoints = Checkpoints(context.storage, _checkpoint_prefix(recipe, task), context.scratch)
    snapshot = checkpoints.read()
    scopes.check(task.backbone, recipe)
    source = replace(task.backbone, preprocess=fine_tune_inputs.shape(recipe, task))
    task, pool_PD, extraction = fine_tune_inputs.frozen(recipe, task, source, limit, snapshot)
    trains = limit is None or snapshot is not None or fine_tune_inputs.fits(recipe, task, limit)
    details = limit.excerpt.details if limit and limit.excerpt else {}
    if limit and not trains and source.preprocess == task.backbone.preprocess:
        limit.trained()
        probed = fine_tune_probe.candidate(recipe, task, fine_tune_probe.NO_TIME)
        seconds = time.monotonic() - began
        return replace(probed, extraction=extraction, seconds=seconds, details=probed.details | details)
    held = holdout(task)
    if not len(held):
        raise ValueError("expected images to hold some out of; found none; ask reference.holdout before")
    train = np.setdiff1d(task.pool, held)
    task.foresee(task, pool_PD, len(train))
    train_ND, held_ND = (pool_PD[np.searchsorted(task.pool, rows)] for rows in (train, held))
    probe, facts = start.begin(task, train, train_ND, snapshot)
    with ThreadPoolExecutor(context.settings.num_compute_threads, thread_name_prefix="augment") as threads:
        wanted = fine_tune_inputs.groups(recipe, task, train)
        labels_allow = fine_tune_inputs.labels_allow(
            recipe, task, source, probe, (held, held_ND), wanted, limit, snapshot
        )
        facts |= {"labels_allow": labels_allow}
        allowed = {name for name, found in labels_allow.items() if found["allowed"]}
        groups = tuple(name for name in wanted if name in allowed)
        part = Part(
            train, held, train_ND, held_ND, "mirror" in allowed, threads, groups, crops=recipe.augment != "none"
        )
        opened = fine_tune_inputs.opened(recipe, task, part, source, facts, limit, snapshot, probe, trains=trains)
        material = opened.material
        facts |= {"is_trained": opened.is_trained, "num_rows": limit.num_rows if limit else None}
        deadline = (limit.deadline if opened.is_trained else began) if limit else _deadline(recipe, began, snapshot)
        network = Network(material.trunk, probe)
        bench = Workbench(
            context,
            network,
            material,
            checkpoints,
            recipe.epochs,
            task.seed,
            deadline,
            start_tensors=start.tensors(probe),
            start_facts=facts,
            snapshot=snapshot,
            options=Options(fine_tune_inputs.mixup(recipe, train), recipe.l2_sp, recipe.soup, recipe.wise),
            pace=fine_tune_inputs.pace(recipe, task, facts["views"], limit, opened.step_seconds) if limit else None,
        )
        tuned = tuning.run(bench)
        if limit:
            limit.trained()
        finished = moved.finish(material.network, task.backbone) if material.network else None
        logits_NC, tuned_ND = network.outputs(material.held, context.device)
    context.reporter.progress(0.8, "export")
    spent = snapshot.facts["seconds"] if snapshot else 0.0
    candidate = _candidate(
        recipe, task, network, material, tuned, Selection(held, logits_NC, "hold-out of 20 %", CHOSE), finished
    )
    return replace(
        candidate,
        judged=_judged(task, held, tuned),
        start=Selection(held, probe.logits(held_ND), "the probe that it started from, on the same images"),
        extraction=sum(material.views.extractions if material.views else (), extraction + material.extraction),
        seconds=spent + time.monotonic() - began,
        details=candidate.details
        | {
            "probe": facts["probe"],
            "mirrored": part.flip,
            "augmentation": {"groups": groups, "crops": part.crops, "invariance": labels_allow},
            "feature_distortion": relative_change(held_ND, tuned_ND),
            "images_trained_on": len(train),
            "images_held_out": len(held),
        }
        | details,
    )


def _judged(task: Task, held: Rows, tuned: Tuned) -> Selection | None:
    """The hold-out without the luck of the chosen epoch; None where the looks were not kept."""
    if not tuned.looks:
        return None
    labels_N = task.labels_N[held]
    half_N = judged.halves(labels_N, task.groups_N[held], task.seed)
    predicted_EN = np.stack([look.predicted_N for look in tuned.looks]).astype(np.int64)
    found_N = judged.cross_fitted(predicted_EN, half_N, lambda seen_N: checks.best(tuned.looks, labels_N, seen_N))
    optimism = JUDGED_OPTIMISM if len(tuned.pilots) > 1 else None
    return Selection(held, judged.one_hot(found_N, task.num_classes), JUDGED, optimism)


def _candidate(
    recipe: FineTune,
    task: Task,
    network: Network,
    material: Material,
    tuned: Tuned,
    selection: Selection,
    finished: Fold | None,
) -> Candidate:
    """Writes the graph and describes the result."""
    graph = task.backbone.graph
    network.cpu().eval()
    is_trained, is_resized = tuned.best.epoch > 0, material.backbone.preprocess != task.backbone.preprocess
    write = material.write if is_trained or is_resized else None
    if write is not None:
        graph = task.context.scratch / f"fine_tuned-{task.backbone.digest[:12]}.onnx"
        write(graph)
    head = LinearHead(
        network.head.weight.detach().numpy().copy(),
        network.head.bias.detach().numpy().copy(),
        network.mean_D.numpy().copy(),
        network.scale_D.numpy().copy(),
        calibration.temperature(selection.logits, task.labels_N[selection.rows]),
    )

    def served_features(rows: Rows) -> Float:
        if write is None:
            return forward.frozen(task, task.backbone, rows)[0]
        extractor = features.graph_extractor(graph, task.context.settings.num_compute_threads)
        return forward.by_row(task, rows, material.backbone.preprocess, extractor)

    return Candidate(
        method=recipe.method,
        name=f"fine_tune ({recipe.scope}, epoch {tuned.best.epoch} of {tuned.epochs}, learning rate {tuned.rate:g})",
        head=head,
        graph=graph,
        backbone=material.backbone,
        shared=write is None,
        selection=selection,
        features=served_features,
        reference=served_features if write is None else material.reference,
        seconds=0.0,
        fold_accuracy=(),
        calibrated=len(selection.rows) >= calibration.MIN_ITEMS,
        trained_params=tuned.trained_params if is_trained else head.num_params,
        moved=finished.tensors if finished and is_trained else (),
        state=partial(networks.save, material.network) if write is not None and material.network else None,
        details={
            "scope": recipe.scope,
            "learning_rate": tuned.rate,
            "pilots": tuned.pilots,
            "epochs": tuned.epochs,
            "planned_epochs": tuned.planned_epochs,
            "best_epoch": tuned.best.epoch,
            "ended": tuned.ended,
            "soup": list(tuned.soup),
            "wise_share": tuned.wise_share,
            "steps": tuned.num_steps,
            "training_seconds": round(tuned.seconds, 3),
            "images_per_second": tuned.images_per_second,
            "served": _what(is_trained, tuned),
            "optimiser": material.optimisation.kind,
            "curve": tuned.curve,
            "factors": finished.factors if finished and is_trained else None,
            **material.details,
            **({"views": len(material.views)} if material.views else {}),
        },
    )


def _what(is_trained: bool, tuned: Tuned) -> str:
    if is_trained:
        return "the trained network"
    return f"the frozen backbone: {'training gained nothing' if tuned.epochs else 'no epoch ran'}"


def _deadline(recipe: FineTune, began: float, snapshot: Snapshot | None) -> float | None:
    """When training must end: after the recipe's minutes over all attempts."""
    if recipe.max_minutes is None:
        return None
    spent: float = snapshot.facts["seconds"] if snapshot else 0.0
    return began + 60 * recipe.max_minutes - spent


def _checkpoint_prefix(recipe: FineTune, task: Task) -> str:
    """One run's own place below the job's: `auto` may fine-tune several backbones. The time is no part of it."""
    fixed = [recipe.model_dump(exclude={"max_minutes"}), task.backbone.digest, task.seed, len(task.pool)]
    name = hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()[:16]
    return f"{task.context.document.checkpoint_prefix}/fine_tune-{name}"
