"""The ranking job, told in order: load -> stage 1 on some images -> the better half on all -> order. No torch on a CPU.

The test split takes no part. Features go through the cache, so that a later transfer finds them there. A step starts
only when its forecast fits the time, and none once the job was asked to stop; what was left out is in the result, with
its forecast. Every decision is an event.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from app.errors import JobFailure
from app.rankings import RankingIn
from worker import transfer
from worker.attempt.context import RunContext
from worker.backbones import features
from worker.contract.candidate import BLIND
from worker.data.samples import Index
from worker.data.splits import SPLITS
from worker.prepare import sources
from worker.ranking import document, order, subset
from worker.ranking.contender import PILOT_IMAGES, Contender, Data, Rows
from worker.ranking.entrants import entrants, is_prepared
from worker.ranking.ledger import Ledger
from worker.ranking.order import Entry, Place

# More images move no standard error that matters (0.005), and neighbours cost their square.
MAX_IMAGES = 10_000
# Forecasts in seconds of what does not grow with the data: export and proof of a backbone that this machine has not
# seen (its download comes on top, and is told), and the scores of stage 1.
PREPARE_SECONDS, SCORE_SECONDS = 30.0, 2.0
STOPPED = "the job was asked to stop"
# Fractions of the job's progress at which each stage begins and ends.
PROGRESS = {1: (0.02, 0.57), 2: (0.57, 0.97)}

# Contenders and where they stand, best first.
Ranked = list[tuple[Contender, Place]]


def run(context: RunContext) -> dict[str, Any]:
    """Puts the job's backbones in order.

    Returns:
        `result` for the study, `metrics` for the job.

    Raises:
        JobFailure: dataset_invalid, fewer than two pictures or classes; timed_out, stopped or weights_unavailable, no
            candidate could be looked at.
    """
    wish = RankingIn.model_validate(context.document.inputs["request"])
    context.reporter.progress(0.01, "load")
    data = load(context, wish.seed)
    ledger = Ledger(context.reporter, wish.max_minutes * 60)
    race = _Race(context, data, ledger)
    ranked = race.run(entrants(context, wish.names))
    return document.answer(context.reporter, ranked, race.data, ledger)


def load(context: RunContext, seed: int) -> Data:
    """The images to rank on: all but the test split, at most ``MAX_IMAGES``.

    Raises:
        JobFailure: dataset_invalid.
    """
    index = transfer.load(context, context.document.dataset)
    labels_N = np.asarray(index.label, np.int64)
    rows = np.flatnonzero((index.split != SPLITS.index("test")) & (labels_N >= 0))
    num_classes, num_pictures = len(np.unique(labels_N[rows])), len(np.unique(index.group[rows]))
    if min(num_classes, num_pictures) < 2:
        raise JobFailure(
            "dataset_invalid",
            "expected at least 2 different pictures and 2 classes outside the test split; found "
            f"{num_pictures} and {num_classes}; add images",
        )
    rows = _some(index, rows, MAX_IMAGES, seed)
    first = _some(index, rows, subset.size(len(rows)), seed)
    return Data(index, rows, first, labels_N, len(index.classes), seed)


def _some(index: Index, rows: Rows, wanted: int, seed: int) -> Rows:
    labels_N = np.asarray(index.label, np.int64)
    return rows[subset.choose(labels_N[rows], index.group[rows], wanted, seed)]


class _Race:
    """Both stages, inside the budget."""

    def __init__(self, context: RunContext, data: Data, ledger: Ledger) -> None:
        self._context, self.data, self._ledger = context, data, ledger
        self._is_whole = False

    def run(self, contenders: list[Contender]) -> Ranked:
        """Who was looked at, best first: those on all images, then those that stage 1 or the time kept from it.

        Raises:
            JobFailure: nobody was.
        """
        contenders = self._fitted(contenders)
        entered = self._stage(contenders, 2 if self._is_whole else 1)
        if not entered and self._context.reporter.stop_requested:
            raise JobFailure("stopped", "expected one candidate at least that was looked at; found none; ask again")
        if not entered:
            raise self._ledger.nobody()
        self._ledger.slack_seconds = 0.0
        stage_1 = [] if self._is_whole else self._order(entered, 1)
        if not self._is_whole:
            self._stage(self._better_half(stage_1), 2)
        stage_2 = [one for one in entered if one.stage == 2]
        return [*(self._order(stage_2, 2) if stage_2 else []), *(row for row in stage_1 if row[0].stage == 1)]

    def _fitted(self, contenders: list[Contender]) -> list[Contender]:
        """Those candidates that may be had; with fewer images where the first stage does not fit the time for all."""
        self._is_whole = len(self.data.first) == len(self.data.rows) or len(contenders) == 1
        wanted = self.data.rows if self._is_whole else self.data.first
        opened: list[Contender] = []
        for place, one in enumerate(contenders, 1):
            if self._context.reporter.stop_requested:
                return [*opened, *contenders[place - 1 :]]
            began = time.monotonic()
            is_open = self._open(one, PROGRESS[1][0])
            one.seconds += time.monotonic() - began
            self._context.reporter.check_yield()
            if not is_open:
                continue
            opened.append(one)
            rest = contenders[place:]
            # The first ones are the largest as a rule: where there is time for them, others open in their turn.
            if (len(opened) + len(rest)) * self._forecast(one, wanted) <= self._ledger.left_seconds:
                self._ledger.slack_seconds = 0.0
                return [*opened, *rest]
            one.close()
        if opened:
            self._shrink(opened, wanted)
        return opened

    def _shrink(self, contenders: list[Contender], wanted: Rows) -> None:
        """Draws as many of the wanted images as the time holds for all, or the fewest that say anything."""
        data, first = self.data, wanted
        labels_N, groups_N = data.labels_N[wanted], data.groups(wanted)
        for size, least in subset.smaller(len(wanted), data.num_classes):
            if self._holds(contenders, first):
                break
            first = wanted[subset.choose(labels_N, groups_N, size, data.seed, least)]
        if self._holds(contenders, first):
            self._ledger.slack_seconds = 0.0
        if len(first) == len(wanted):
            return
        self.data, self._is_whole = replace(data, first=first), False
        self._ledger.note(
            f"stage 1 looks at {len(first)} of {len(data.rows)} images ({len(first) / len(data.rows):.0%}), drawn by "
            f"class: the time holds no more for {len(contenders)} candidates; read the intervals, or raise max_minutes"
        )

    def _holds(self, contenders: list[Contender], rows: Rows) -> bool:
        return sum(self._forecast(one, rows) for one in contenders) <= self._ledger.left_seconds

    def _forecast(self, one: Contender, rows: Rows) -> float:
        """Seconds of the first look at some images."""
        missing = features.num_missing(self._context, self.data.index, rows, one.backbone)
        return one.seconds_per_image * missing + _first_scores(len(rows))

    def _stage(self, contenders: Sequence[Contender], stage: int) -> list[Contender]:
        """Looks at each on the stage's images; returns those that there was time for, and numbers from."""
        start, end = PROGRESS[stage]
        width, found = (end - start) / max(len(contenders), 1), []
        for number, one in enumerate(contenders):
            if self._context.reporter.stop_requested:
                self._ledger.skip(one, f"stage {stage}", STOPPED)
                continue
            began = time.monotonic()
            share = (f"stage {stage}", start + width * number, start + width * (number + 1))
            if (one.is_timed or self._open(one, share[1])) and self._look(one, stage, share):
                found.append(one)
            one.seconds += time.monotonic() - began
            one.close()
            self._context.reporter.check_yield()
        return found

    def _open(self, one: Contender, progress: float) -> bool:
        """Has the backbone prepared, loaded and timed; whether there was time and it could be had."""
        context, data = self._context, self.data
        ready = is_prepared(context, one.name)
        if not ready and not self._ledger.fits(one, "prepare", PREPARE_SECONDS, "and a download"):
            return False
        try:
            backbone = sources.open_backbone(context, one.name)
        except JobFailure as failure:
            self._ledger.skip(one, "prepare", failure.message)
            return False
        _, images = next(features.decoded(context, data.index, data.first[:1], backbone.preprocess))
        one.open(context, backbone, images[0])
        if not self._ledger.fits(one, "time", one.latency_ms / 1000 * PILOT_IMAGES):
            return False
        one.pilot(context, data, progress)
        return True

    def _look(self, one: Contender, stage: int, share: tuple[str, float, float]) -> bool:
        missing, step = one.num_missing(self._context, self.data, stage), f"stage {stage}"
        forecast = one.seconds_per_image * missing + self._scoring_seconds(one)
        if not self._ledger.fits(one, step, forecast, f"for {missing} images to extract"):
            return False
        began = time.monotonic()
        extraction = one.look(self._context, self.data, stage, share)
        if isinstance(extraction, str):
            self._ledger.skip(one, step, extraction)
            return False
        found = one.stages[stage].evidence
        decisive_N = found.decisive_N[found.can_be_right_N]
        accuracy = None if found.is_blind else float(decisive_N.mean())
        named = BLIND if accuracy is None else f"neighbours and ridge name {accuracy:.3f} of {len(decisive_N)} images"
        self._ledger.decide(
            one,
            step,
            "tried",
            f"{named}; {extraction.num_cached} cached, {extraction.num_extracted} extracted",
            score=accuracy,
            seconds=round(time.monotonic() - began, 3),
            forecast_seconds=round(forecast, 3),
        )
        return True

    def _scoring_seconds(self, one: Contender) -> float:
        """What scoring will take; neighbours grow with the square, all else more slowly."""
        if 1 not in one.stages:
            return _first_scores(len(self.data.first))
        return one.stages[1].scoring_seconds * (len(self.data.rows) / len(self.data.first)) ** 2

    def _better_half(self, ranked: Ranked) -> list[Contender]:
        kept = order.better_half([place for _, place in ranked])
        for one, place in ranked:
            outcome = "kept" if place in kept else "dropped"
            self._ledger.decide(one, "halving", outcome, one.reasons[1], score=place.score)
            if place not in kept:
                one.notes.append("not in the better half of stage 1, so its figures are of these fewer images")
        return [one for one, place in ranked if place in kept]

    def _order(self, contenders: Sequence[Contender], stage: int) -> Ranked:
        looks = [one.stages[stage] for one in contenders]
        # All have looked at the same images. Those that nobody can name right tell no candidate from another.
        counted_N = looks[0].evidence.can_be_right_N
        entries = [
            Entry(one.name, one.top1, one.cost, look.evidence.decisive_N[counted_N])
            for one, look in zip(contenders, looks, strict=True)
        ]
        is_blind = looks[0].evidence.is_blind
        places = (
            order.by_prior(entries) if is_blind else order.order(entries, self.data.groups(looks[0].rows)[counted_N])
        )
        ranked = [(contenders[place.index], place) for place in places]
        for one, place in ranked:
            one.reasons[stage] = document.compared(place, ranked)
        return ranked


def _first_scores(num_images: int) -> float:
    """What the scores of a first look take."""
    return SCORE_SECONDS * min(1.0, num_images / subset.MIN_IMAGES)
