"""Means over seeds.

Splits share their pictures, so an interval over seeds says how far the split matters, not how far another set of
pictures would differ: the bootstrap intervals in each job's report say that.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats


def over_seeds(values: Sequence[float]) -> dict[str, Any]:
    """Mean with its 95 % t interval; bounds are null for a single value."""
    mean, number = float(np.mean(values)), len(values)
    if number < 2:
        return {"mean": round(mean, 4), "low": None, "high": None, "num_seeds": number}
    error = float(np.std(values, ddof=1) / np.sqrt(number) * stats.t.ppf(0.975, number - 1))
    return {
        "mean": round(mean, 4),
        "low": round(mean - error, 4),
        "high": round(mean + error, 4),
        "num_seeds": number,
    }
