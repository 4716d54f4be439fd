"""Whether forecasts hold: what was foretold from the pool alone against what training then gave on the test set.

Repeated splits of one set share pictures, so the share of intervals that held is no average over independent sets.
stamps_photos, and scikit-learn's digits as raw pixels, were looked at while the forecast was designed; the other sets
were not.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.evaluation.lab import Lab, Measured
from worker.forecasting.forecast import Expected, Extrapolation, Forecast, forecast
from worker.forecasting.labels_needed import NOT_REACHED
from worker.forecasting.more_images import More
from worker.methods import few_shot
from worker.solvers.even import even_order
from worker.training import probing

SETS = ("stamps_photos", "emoji_google", "emoji_twitter", "digits", "mnist")
# A small pool trains in a tenth of the time.
RUNS = {"small": 20, "all": 10}
MORE_RUNS = 20
TEST = 0.2
# Images of each class in a small pool; and of the class that is made rare on purpose.
SHOTS, RARE = 10, 8
_ROUNDING = 1e-9

Rows = NDArray[np.int64]


def run(lab: Lab) -> Iterator[dict[str, Any]]:
    """Rows of `expected`, `half`, `needed`, `rare` and `grown`.

    From half of the images, all are foretold, and how many lead to what all gave; then what more of one class buy,
    where it is rare, and where it has images as the others have.
    """
    there, missing = lab.found(SETS)
    document: dict[str, Any] = {"rows": [], "not_found": missing}
    for name, pictures in there.items():
        measured = lab.measured(lab.store(name, pictures, 0))
        for pool, runs in RUNS.items():
            rows = [_split(measured, seed, small=pool == "small") for seed in range(runs)]
            for method in ("linear_probe", "few_shot"):
                told = [_expected(measured, *row, method, seed) for seed, row in enumerate(rows)]
                document["rows"].append(
                    {"what": "expected", "set": name, "pool": pool, "method": method, **_held(told)}
                )
                if (pool, method) == ("all", "linear_probe"):
                    halves = [_half(measured, *row, seed) for seed, row in enumerate(rows)]
                    later = [_twice(one) for one in halves]
                    pairs = [(one, found) for one, (_, found) in zip(later, told, strict=True) if one is not None]
                    reached = float(np.mean([found for _, found in told]))
                    document["rows"].append({"what": "needed", "set": name, **_needed(halves, rows, reached)})
                    document["rows"].append(
                        {"what": "half", "set": name, **_held(pairs), "not_told": runs - len(pairs)}
                    )
        for what, begin in (("rare", _rare), ("grown", _grown)):
            document["rows"].append({"what": what, "set": name, **_bought(measured, begin)})
        yield document


def _split(measured: Measured, seed: int, *, small: bool) -> tuple[Rows, Rows]:
    """Pool and test set, each with every class in its share; copies stay together."""
    chance = np.random.default_rng(1000 + seed)
    order = even_order(measured.labels_N, measured.index.group, chance)
    pool, test = order[: round((1 - TEST) * len(order))], order[round((1 - TEST) * len(order)) :]
    test = test[~np.isin(measured.index.group[test], measured.index.group[pool])]
    if small:
        pool = np.concatenate(
            [pool[measured.labels_N[pool] == label][:SHOTS] for label in np.unique(measured.labels_N[pool])]
        )
    return np.sort(pool), test


def _expected(
    measured: Measured, pool: Rows, test: Rows, method: str, seed: int
) -> tuple[Expected | Extrapolation, float]:
    told = _told(measured, pool, test, seed, unit=method == "few_shot").expected
    assert told is not None
    return told, float(_found(measured, pool, test, seed, method).mean())


def _half(measured: Measured, pool: Rows, test: Rows, seed: int) -> Forecast:
    order = pool[even_order(measured.labels_N[pool], measured.index.group[pool], np.random.default_rng(seed))]
    return _told(measured, np.sort(order[: len(order) // 2]), test, seed)


def _twice(told: Forecast) -> Extrapolation | None:
    return next((one for one in told.extrapolation if one.times == 2), None)


def _needed(halves: list[Forecast], rows: list[tuple[Rows, Rows]], reached: float) -> dict[str, Any]:
    """How often the interval of labels that lead to an accuracy held the number that was seen to lead there.

    Args:
        halves: forecasts from half of each pool.
        rows: the pools and test sets.
        reached: mean accuracy with whole pools: one test set alone says it less surely than the interval does.
    """
    told = [(one.reading.at(reached), len(pool)) for one, (pool, _) in zip(halves, rows, strict=True) if one.reading]
    if not told:
        return {"num_runs": 0, "not_told": len(halves)}
    known = [one.num_samples for one, _ in told if one.num_samples is not None]
    return {
        "num_runs": len(told),
        "held": round(float(np.mean([(one.low or 0) <= num <= (one.high or np.inf) for one, num in told])), 3),
        "accuracy": round(reached, 4),
        "num_samples": told[0][1],
        "told": round(float(np.median(known))) if known else None,
        "without_end": sum(one.high is None for one, _ in told),
        "not_reached": sum(one.outcome == NOT_REACHED for one, _ in told),
        "not_told": len(halves) - len(told),
    }


def _rare(measured: Measured, pool: Rows, label: int, seed: int) -> tuple[Rows, Rows]:
    """One class is cut down to a few images; what may come back."""
    own = np.random.default_rng(seed).permutation(pool[measured.labels_N[pool] == label])
    return np.concatenate([pool[measured.labels_N[pool] != label], own[:RARE]]), own[RARE:]


def _grown(measured: Measured, pool: Rows, label: int, seed: int) -> tuple[Rows, Rows]:
    """Half of all images; the other half of one class."""
    order = pool[even_order(measured.labels_N[pool], measured.index.group[pool], np.random.default_rng(seed))]
    other = order[len(order) // 2 :]
    return np.sort(order[: len(order) // 2]), other[measured.labels_N[other] == label]


def _bought(measured: Measured, begin: Callable[[Measured, Rows, int, int], tuple[Rows, Rows]]) -> dict[str, Any]:
    """What images of one class were foretold to buy, and what they bought; each time another class.

    `held` allows for the chance in which images the test split has: with ten of a class, one is worth as much as many
    a gain. Runs in which the split leaves less than half of the images that were asked for are left out.
    """
    runs = []
    counts_C = np.bincount(measured.labels_N)
    for seed in range(MORE_RUNS):
        label = int(np.argsort(-counts_C)[seed % len(counts_C)])
        pool, test = _split(measured, seed, small=False)
        before, more = begin(measured, pool, label, seed)
        advice = _told(measured, before, test, seed, advise=True).more_images or ()
        row = next((one for one in advice if one.label == label and one.gain_points is not None), None)
        if row is None or 2 * len(more) < row.images:
            continue
        rights = [
            _found(measured, rows, test, seed, "linear_probe")
            for rows in (before, np.concatenate([before, more[: row.images]]))
        ]
        runs.append((row, advice[0].label == label, *_points(*rights, measured.labels_N[test])))
    if not runs:
        return {"num_runs": 0}
    told, found = np.array([row.gain_points for row, *_ in runs]), np.array([found for *_, found, _ in runs])
    return {
        "num_runs": len(runs),
        "first": round(float(np.mean([is_first for _, is_first, *_ in runs])), 3),
        "held": round(float(np.mean([_holds(row, found, error) for row, _, found, error in runs])), 3),
        "told_points": round(float(told.mean()), 2),
        "found_points": round(float(found.mean()), 2),
        "chance_points": round(float(np.mean([error for *_, error in runs])), 2),
        "off_points": round(float(np.sqrt(np.square(told - found).mean())), 2),
        "width": round(float(np.mean([(row.high or 0) - (row.low or 0) for row, *_ in runs])), 2),
    }


def _points(before_T: NDArray[np.bool_], after_T: NDArray[np.bool_], labels_T: Rows) -> tuple[float, float]:
    """Gained points of balanced accuracy, and their standard error over test images."""
    gained_T, present = after_T.astype(np.float64) - before_T, np.unique(labels_T)
    parts = [gained_T[labels_T == label] for label in present]
    mean_P = np.array([part.mean() for part in parts])
    # Of a class of three that kept its names nothing is known surely: it varies at least as all images do.
    pooled = float(np.concatenate([part - part.mean() for part in parts]).var())
    variance_P = np.array([max(float(part.var()), pooled) / len(part) for part in parts])
    return 100 * float(mean_P.mean()), 100 * float(np.sqrt(variance_P.sum())) / len(present)


def _holds(row: More, found: float, error: float) -> bool:
    assert row.gain_points is not None
    assert row.low is not None
    assert row.high is not None
    low = row.gain_points - np.hypot(row.gain_points - row.low, 1.96 * error)
    return bool(low <= found <= row.gain_points + np.hypot(row.high - row.gain_points, 1.96 * error))


def _told(
    measured: Measured, pool: Rows, test: Rows, seed: int, *, unit: bool = False, advise: bool = False
) -> Forecast:
    num_classes = int(measured.labels_N.max()) + 1
    arrays = measured.features_ND[pool], measured.labels_N[pool], measured.index.group[pool]
    return forecast(*arrays, num_classes, seed, len(test), unit=unit, advise=advise)


def _found(measured: Measured, pool: Rows, test: Rows, seed: int, method: str) -> NDArray[np.bool_]:
    """Whether each test item is named right by what the method would serve."""
    num_classes = int(measured.labels_N.max()) + 1
    arrays = measured.features_ND[pool], measured.labels_N[pool], measured.index.group[pool], pool, num_classes, seed
    head = few_shot.fit(*arrays).head if method == "few_shot" else probing.fit(*arrays)[0]
    return np.asarray(head.logits(measured.features_ND[test]).argmax(1) == measured.labels_N[test])


def _held(pairs: list[tuple[Expected | Extrapolation, float]]) -> dict[str, Any]:
    """How often intervals held, how far their middle was off, how wide they were."""
    if not pairs:
        return {"num_runs": 0}
    errors = np.array([found - told.value for told, found in pairs])
    return {
        "num_runs": len(pairs),
        "held": round(
            float(np.mean([told.low - _ROUNDING <= found <= told.high + _ROUNDING for told, found in pairs])), 3
        ),
        "expected": round(float(np.mean([told.value for told, _ in pairs])), 4),
        "found": round(float(np.mean([found for _, found in pairs])), 4),
        "absolute_error": round(float(np.abs(errors).mean()), 4),
        "bias": round(float(errors.mean()), 4),
        "width": round(float(np.mean([told.high - told.low for told, _ in pairs])), 4),
    }
