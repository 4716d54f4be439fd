"""The beta distribution, for exact intervals. scipy has it too, but importing it would cost every warm job 0.2 s."""

from math import exp, lgamma, log, log1p

# The fraction needs about as many terms as the root of the larger parameter.
_MAX_TERMS = 100_000


def cdf(x: float, a: float, b: float) -> float:
    """Regularised incomplete beta function I_x(a, b), by its continued fraction (DLMF 8.17.22, modified Lentz)."""
    if x <= 0 or x >= 1:
        return 0.0 if x <= 0 else 1.0
    # Beyond the mean the fraction of the other tail converges faster.
    if x > (a + 1) / (a + b + 2):
        return 1.0 - cdf(1.0 - x, b, a)
    front = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log1p(-x)) / a
    c, d, value = 1.0, 0.0, 1.0
    for term in range(_MAX_TERMS):
        m = term // 2
        if term == 0:
            step = 1.0
        elif term % 2:
            step = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            step = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d = 1.0 / (1.0 + step * d)
        c = 1.0 + step / c
        value *= c * d
        if term and abs(1.0 - c * d) < 1e-14:
            break
    return front * (value - 1.0)


def quantile(share: float, a: float, b: float) -> float:
    """Where the distribution function comes to a share: Newton's steps, halving where one would leave the bracket."""
    low, high, place = 0.0, 1.0, a / (a + b)
    for _ in range(60):
        apart = cdf(place, a, b) - share
        low, high = (low, place) if apart > 0 else (place, high)
        density = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + (a - 1) * log(place) + (b - 1) * log1p(-place))
        step = place - apart / density if density > 0 else high
        found = step if low < step < high else (low + high) / 2
        if abs(found - place) < 1e-12:
            return found
        place = found
    return place
