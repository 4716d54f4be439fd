"""What `auto` makes of datasets beside its own: a labelled source of another domain, more images without labels.

Torch only where an adaptation needs it. A few labels of the target are the surest help where domains differ (arXiv
2304.00792), so they are learned from wherever each class has one; only without them is the choice left to a validator
that sees no label of the target.
"""

from dataclasses import replace
from functools import cache
from time import monotonic

import numpy as np

from app.errors import JobFailure
from app.recipes import Adapt, Auto
from worker.attempt.progress import SLACK_SECONDS
from worker.auto import frozen, steps
from worker.auto.bench import Bench, opened
from worker.auto.choice import Entry
from worker.auto.frozen import cost
from worker.backbones import features
from worker.backbones.extraction import NOTHING, Extraction
from worker.backbones.feature_cache import Features
from worker.contract.adaptation import Adaptation
from worker.contract.candidate import Candidate
from worker.contract.excerpt import Excerpt
from worker.contract.outcome import Outcome
from worker.contract.task import Domain, Recorded, Rows, Task
from worker.domains.distances import MIN_ITEMS as MIN_APART
from worker.domains.distances import SAMPLES, distances
from worker.domains.spaces import shown
from worker.methods import gathering, target_labels
from worker.methods.gathering import Wanted
from worker.methods.linear_probe import frozen_features
from worker.methods.reference import starts

# Proxy-A distance (0: cannot be told apart, 2: always). Parts of one set are at most 0.5 apart, with 40 images; the
# same emoji by two vendors 0.8 to 1.05; scikit-learn's digits and MNIST 1.9 to 2.
NEAR, FAR = 0.6, 1.5
# So many times as many images without labels as with: fewer add little to what the labels say already.
MANY_TIMES = 10
LABELS, JOINT, UNLABELLED, LAYERS = "labels of the dataset", "source and dataset together", "unlabelled", "other layers"


def is_labelled(task: Task) -> bool:
    """Whether each class has a labelled image outside the test split."""
    found = task.labels_N[task.pool]
    return len(np.unique(found[found >= 0])) == task.num_classes


def adapted(recipe: Auto, task: Task) -> Outcome:
    """A source for a dataset without labels of each class: the backbone by the source's folds, then adaptations of it.

    Raises:
        JobFailure: timed_out, not even the cheapest step fits the time.
        Yielded: the worker shuts down.
    """
    source = task.source
    assert source is not None
    nothing = source.pool[:0]
    known = replace(
        task,
        index=source.index,
        labels_N=source.labels_N,
        pool=source.pool,
        train=source.pool,
        val=nothing,
        source=None,
        recorded=_recorded_source(task),
    )
    bench = opened(recipe, known)
    bench.budget.scored = (task.index, np.arange(len(task.index)))
    bench.decide(LABELS, "skipped", "not each class has one outside the test split: they score and nothing else")
    if task.unlabelled is not None:
        reason = "adaptations learn from the images of the dataset, which has no labels to begin with"
        bench.decide(UNLABELLED, "skipped", reason)
    best = bench.choose(frozen.heads(bench, steps.HEADS[:1], " (source)")).candidate
    from worker.methods import adapt

    task = replace(task, backbone=best.backbone)
    part, extraction = _target(bench, task)
    clock = bench.budget.clock
    left = clock.limit_seconds - clock.finish_seconds
    assert recipe.source is not None
    wanted = Adapt(source=recipe.source, max_minutes=max(left, 1.0) / 60)
    outcome = adapt.run(wanted, part.of(task) if part else task, clock)
    assert outcome.adaptation is not None
    bench.decisions.extend(outcome.decisions)
    _say_if_far(bench, outcome.adaptation.domain["before"]["proxy_a"])
    seconds = max(outcome.candidate.seconds, bench.budget.seconds)
    details = outcome.candidate.details | (part.details if part else {})
    # The adaptation has found all features in the cache, where the steps before it had put them.
    taken = (best.extraction or NOTHING) + extraction
    final = replace(outcome.candidate, seconds=seconds, details=details, extraction=taken)
    found = tuple(
        replace(one, candidate=final) if one.candidate is outcome.candidate else one for one in outcome.adaptation.tried
    )
    alone = final if outcome.adaptation.source_only is outcome.candidate else outcome.adaptation.source_only
    adaptation = replace(outcome.adaptation, source_only=alone, tried=found)
    return Outcome(final, tuple(bench.decisions), adaptation=adaptation, excerpt=part)


def _target(bench: Bench, task: Task) -> tuple[Excerpt | None, Extraction]:
    """Features of the dataset's images, all of which are looked at and those with a label scored.

    Returns:
        which of them there was time for, None for all; and what it took.

    Raises:
        JobFailure: timed_out, the time does not hold the fewest.
    """
    clock, nothing = bench.budget.clock, task.pool[:0]
    opened = cache(lambda: features.open_extractor(task.context, task.backbone))

    def extract(rows: Rows) -> Extraction:
        return features.pooled(bench.task.context, task.index, rows, task.backbone, ("features", 0.7, 0.75), opened)[1]

    def num_missing(rows: Rows) -> int:
        return features.num_missing(task.context, task.index, rows, task.backbone)

    # What is drawn knows of no label.
    drawn = replace(task, labels_N=np.zeros(len(task.index), np.int64))
    order = gathering.order(drawn, nothing)
    first, others = order.rows[: order.num_least], order.rows[order.num_least :]

    def pace() -> float:
        return clock.pace(drawn, run=opened, rows=first)

    missing = num_missing(first)
    forecast = frozen.of_rounds(clock, missing * pace() if missing else 0.0, num_missing(others), pace)
    step = f"features of {task.backbone.name}"
    starts(task.context.reporter, step, forecast)
    by = clock.limit_seconds + SLACK_SECONDS
    try:
        found = gathering.gather(clock, drawn, Wanted(task.backbone, extract, num_missing, nothing), first_by=by)
    except features.Left as left_off:
        raise JobFailure(
            "timed_out",
            f"expected the features of a few images of the dataset after those of the source, within {by:.0f} "
            f"s; found that {left_off}; raise max_minutes, or run the job again: it goes on from there",
        ) from None
    frozen.done(bench, step, found.extraction, forecast)
    source = bench.part
    if found.part is None and source is None:
        return None, found.extraction
    rows = found.part.pool if found.part else task.pool
    part = Excerpt(rows, rows, len(task.pool), len(task.pool), has_split=False)
    if source is not None:
        part = replace(part, source=source.pool, num_source=source.num_pool, why=source.why)
    return part if found.part is None else replace(part, why=found.part.why), found.extraction


def _recorded_source(task: Task) -> Recorded | None:
    """What was looked at of the source, as the dataset of its own that it is while the backbone is chosen."""
    if task.recorded is None or task.recorded.source is None:
        return None
    return Recorded(task.recorded.source, task.recorded.source[:0])


def joined(bench: Bench, best: Candidate) -> tuple[list[Entry], Adaptation | None]:
    """Ways to learn from a source and the dataset's own labels together, on the folds that every head has."""
    task, budget = bench.on(best.backbone), bench.budget
    source = task.source
    if source is None:
        return [], None
    missing = features.num_missing(task.context, source.index, source.pool, task.backbone)
    forecast = budget.joint(len(source.pool), bench.facts, task.backbone)
    forecast += missing * budget.pace(task.backbone) if missing else 0.0
    room = budget.room(task.backbone, _cached(best), trained=False)
    if not bench.may_start(JOINT, forecast, room):
        return [], None
    began = monotonic()
    found = _features(bench, JOINT, task, source, source.pool, forecast)
    if found is None:
        return [], None
    source_ND, extraction = found
    target_MD = frozen_features(task, task.pool)
    both = (best.extraction or NOTHING) + extraction
    end_seconds = budget.clock.limit_seconds - room.kept_seconds
    tried, accuracy = target_labels.try_all(task, source_ND, target_MD, both, end_seconds, bench.decide)
    bench.decide(
        JOINT,
        "done",
        f"{len(tried)} ways; features of the source: {extraction.num_cached} cached, {extraction.num_extracted} "
        f"extracted in {extraction.seconds:.1f} s",
        seconds=round(monotonic() - began, 2),
        forecast_seconds=round(forecast, 2),
    )
    domain = target_labels.domain(task, source_ND, target_MD)
    if domain["before"] is not None:
        _say_if_far(bench, domain["before"]["proxy_a"])
    entries = [Entry(one.candidate.name, cost(task.backbone), one.candidate) for one in tried]
    drawn = shown(task, (source_ND, target_MD), None)
    return entries, Adaptation(tried[0].candidate, tuple(tried), accuracy, domain, drawn)


def unlabelled(bench: Bench, best: Candidate) -> str:
    """Measures how far more images without labels lie, and says what that means; no built recipe learns from them.

    Returns:
        where that is told; empty where there are no such images.
    """
    task, budget = bench.on(best.backbone), bench.budget
    more = task.unlabelled
    if more is None:
        return ""
    step = f"distance of {UNLABELLED}"
    told = f"of the images without labels see {step!r} in `decisions`"
    rows = _some(more.pool, task.seed)
    missing = features.num_missing(task.context, more.index, rows, task.backbone)
    forecast = 1.0 + (missing * budget.pace(task.backbone) if missing else 0.0)
    began = monotonic()
    if not bench.may_start(step, forecast, budget.room(task.backbone, _cached(best), trained=False)):
        return told
    found = _features(bench, step, task, more, rows, forecast)
    if found is None:
        return told
    if min(len(rows), len(task.pool)) < MIN_APART:
        few = f"needs {MIN_APART} images of either dataset; found {len(rows)} beside {len(task.pool)}"
        bench.decide(step, "skipped", few, forecast_seconds=round(forecast, 2))
        bench.decide(UNLABELLED, "skipped", "how far they lie is not known")
        return told
    apart = distances(frozen_features(task, _some(task.pool, task.seed)), found[0], task.seed).proxy_a
    text = f"proxy-A distance {apart:.2f} to the dataset"
    where = "near" if apart < NEAR else "far" if apart >= FAR else "neither near nor far"
    bench.decide(
        step,
        "done",
        f"{text}: {where} (near under {NEAR:g}, far from {FAR:g})",
        score=apart,
        seconds=round(monotonic() - began, 2),
        forecast_seconds=round(forecast, 2),
    )
    bench.decide(UNLABELLED, "skipped", _refusal(apart, len(more.pool), len(task.pool)))
    _say_if_far(bench, apart)
    return told


def _refusal(apart: float, num_more: int, num_labelled: int) -> str:
    """Why images without labels are not learned from; see docs/auto.md."""
    if apart >= NEAR:
        return f"a distance of {apart:.2f} is not near: names that are given to images of another kind mislead"
    if num_more < MANY_TIMES * num_labelled:
        return (
            f"needs {MANY_TIMES} times as many images as have labels, since fewer add little; found {num_more} beside "
            f"{num_labelled}"
        )
    return f"near, and {num_more} images beside {num_labelled} with labels: no built recipe learns from such images yet"


def _say_if_far(bench: Bench, apart: float) -> None:
    """Far from what a backbone knows, features of earlier layers may carry more (Head2Toe, arXiv 2201.03529)."""
    if apart >= FAR and not any(one.step == LAYERS for one in bench.decisions):
        reason = f"a distance of {apart:.2f} is far, where earlier layers may know more; no built recipe reads them"
        bench.decide(LAYERS, "skipped", reason)


def _features(
    bench: Bench, step: str, task: Task, domain: Domain, rows: Rows, forecast: float
) -> tuple[Features, Extraction] | None:
    """Features of another dataset; None where the time or the owner's patience was over before they were there."""
    try:
        with bench.budget.guarded():
            return features.pooled(task.context, domain.index, rows, task.backbone, ("features", 0.7, 0.75))
    except features.Left as left_off:
        stopped = task.context.reporter.stop_requested
        why = "the job was asked to stop" if stopped else "the time is over"
        bench.decide(step, "skipped", f"{why}; {left_off}", forecast_seconds=round(forecast, 2))
        return None


def _some(rows: Rows, seed: int) -> Rows:
    """As many as distances look at."""
    if len(rows) <= SAMPLES:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, SAMPLES, replace=False))


def _cached(candidate: Candidate) -> int:
    return candidate.extraction.num_cached if candidate.extraction else 0
