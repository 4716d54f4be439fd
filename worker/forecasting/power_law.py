"""A learning curve err(n) = a n^-b + c, with how sure one can be of it. Torch-free.

Power laws fit learning curves over orders of magnitude (Cortes et al., NeurIPS 1993; Hestness et al., arXiv 1712.00409,
section 2, with c as the part that no data removes). Four points do not fix three numbers, so no single fit is believed:
all (level, share, b) on a bounded grid are weighed by what was seen, and whatever is asked of the curve is asked of all
of them. That cannot diverge, and widens by itself where the points say little. With n0 the size of the last point,

    err(n) = level * (1 - share + share * (n / n0)^-b),     a = level * share * n0^b,     c = level * (1 - share).

The level is known as a proportion of the scored items is (Beta, Jeffreys' prior). The other points are scored on nearly
the same items, so their *differences* to the last one weigh share and b: which items are hard cancels. Share has
Jeffreys' prior, b a flat one. On 16 curves of known a, b, c with noise of 0.006 the 95 % interval of what four times
the images gain holds the truth in 93 % of the runs; in 80 % where c is zero, the border of the grid.

Shape legend: S sizes, K grid points, B draws.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Double = NDArray[np.float64]

# Published exponents lie between 0.07 and 1; flat, since a bump at 0.5 shortened intervals that were short already.
EXPONENTS = np.linspace(0.1, 1.5, 57)
# Middles of cells: Jeffreys' prior is infinite at both ends, where a curve is flat, or falls to zero.
SHARES = (np.arange(50) + 0.5) / 50
_LEVELS = 31
# Where curves are compared, in multiples of the last size.
_COMPARED = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0)
# A fall of the error that chance alone would not give: two standard errors.
_CLEAR = 2.0


@dataclass(frozen=True)
class Seen:
    """What a curve is known by.

    Args:
        sizes_S: images learned from, ascending; the last is where the level is known best.
        errors_S: share that was named wrong.
        variance_S: of each error around the curve, other than by which items were scored.
        num_scored: independent items that gave the last error.
    """

    sizes_S: Double
    errors_S: Double
    variance_S: Double
    num_scored: int


@dataclass(frozen=True)
class PowerLaw:
    """The curves that are possible after what was seen, each with its weight.

    Shape:
        level_K, share_K, exponent_K, weight_K: [K]
    """

    size: float
    level_K: Double
    share_K: Double
    exponent_K: Double
    weight_K: Double

    def draw(self, num_draws: int, chance: np.random.Generator) -> "PowerLaw":
        """So many of them at random, by weight, equally weighted from then on."""
        edges_K = np.cumsum(self.weight_K)
        place_B = np.searchsorted(edges_K, chance.random(num_draws) * edges_K[-1], side="right")
        rows = np.minimum(place_B, len(edges_K) - 1)
        even_B = np.full(num_draws, 1.0 / num_draws)
        return PowerLaw(self.size, self.level_K[rows], self.share_K[rows], self.exponent_K[rows], even_B)

    def error(self, size: float) -> Double:
        """Error of each curve with that many images.

        Shape:
            returns [K].
        """
        left_K = (size / self.size) ** -self.exponent_K
        return np.asarray(np.clip(self.level_K * (1 - self.share_K + self.share_K * left_K), 0.0, 1.0))

    def size_at(self, error_K: Double) -> Double:
        """Images with which each curve comes down to an error of its own; infinite where it never does.

        Shape:
            error_K: [K]; returns [K].
        """
        left_K = (error_K / self.level_K - (1 - self.share_K)) / self.share_K
        with np.errstate(divide="ignore", over="ignore"):
            times_K = np.maximum(left_K, 0.0) ** (-1.0 / self.exponent_K)
        return np.asarray(self.size * times_K)

    def document(self) -> dict[str, float]:
        """`a`, `b`, `c` of the curve nearest to the mean of all, and 95 % of the weight of `b`."""
        errors_SK = np.stack([self.error(times * self.size) for times in _COMPARED])
        place = int(np.square(errors_SK - (errors_SK @ self.weight_K)[:, None]).sum(0).argmin())
        level, share, exponent = (float(one[place]) for one in (self.level_K, self.share_K, self.exponent_K))
        order = np.argsort(self.exponent_K, kind="stable")
        rising_K = self.exponent_K[order]
        places = np.searchsorted(np.cumsum(self.weight_K[order]), [0.025, 0.975])
        low, high = rising_K[np.minimum(places, len(rising_K) - 1)].tolist()
        return {
            "a": level * share * self.size**exponent,
            "b": exponent,
            "b_low": low,
            "b_high": high,
            "c": level * (1 - share),
        }


def weigh(seen: Seen) -> PowerLaw:
    """Weighs every curve of the grid.

    Raises:
        ValueError: there is no point, or sizes are not positive.
    """
    sizes_S, errors_S = seen.sizes_S, seen.errors_S
    if not len(sizes_S) or sizes_S.min() <= 0 or len(sizes_S) != len(errors_S):
        raise ValueError(f"Expected one error for each of at least one positive size, found {sizes_S}, {errors_S}.")
    wrong = errors_S[-1] * seen.num_scored + 0.5
    right = seen.num_scored - wrong + 1.0
    mean = wrong / (wrong + right)
    spread = np.sqrt(mean * (1 - mean) / (wrong + right + 1))
    levels = np.linspace(max(mean - 5 * spread, mean / 50), min(mean + 5 * spread, 1 - (1 - mean) / 50), _LEVELS)
    level_K, share_K, exponent_K = (
        grid.ravel() for grid in np.meshgrid(levels, SHARES, EXPONENTS, indexing="ij", copy=True)
    )
    score_K = (wrong - 1) * np.log(level_K) + (right - 1) * np.log1p(-level_K)
    score_K -= 0.5 * np.log(share_K * (1 - share_K))
    for place in range(len(sizes_S) - 1):
        above_K = level_K * share_K * ((sizes_S[place] / sizes_S[-1]) ** -exponent_K - 1.0)
        variance = seen.variance_S[place] + seen.variance_S[-1]
        score_K -= 0.5 * (errors_S[place] - errors_S[-1] - above_K) ** 2 / variance
    weight_K = np.exp(score_K - score_K.max())
    return PowerLaw(float(sizes_S[-1]), level_K, share_K, exponent_K, weight_K / weight_K.sum())


def untold(seen: Seen) -> str | None:
    """Why the points do not tell a curve; None where they do."""
    if len(seen.sizes_S) < 3:
        return f"expected three sizes of at least two images per class; found {len(seen.sizes_S)}"
    fall = float(seen.errors_S[0] - seen.errors_S[-1])
    doubt = float(np.sqrt(seen.variance_S[0] + seen.variance_S[-1]))
    if fall <= _CLEAR * doubt:
        return f"accuracy rises by {fall:+.3f} from the fewest to all images, which chance alone gives ({doubt:.3f})"
    return None
