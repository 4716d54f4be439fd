"""Which function fits which method: a literal table, tied to `app.alignments.METHODS` by a test.

Every function takes the method's configuration and the features; it gives the transform and what the fit has chosen.

Shape legend: M moving items, N fixed ones, D features.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.alignments import (
    Alignment,
    Coral,
    MomentMatching,
    OptimalTransport,
    PairedAffine,
    PairedRidge,
    Procrustes,
    Whitening,
    ZScore,
)
from worker.alignments import paired, shrinkage, unpaired
from worker.alignments.affine import Affine, Floats

Groups = NDArray[np.int64]
HELD_OUT = 0.2


@dataclass(frozen=True, eq=False)
class Given:
    """Features to fit on; row by row the same items where the method is paired.

    Shape:
        moving_MD: [M, D], of the new domain
        fixed_ND: [N, D], of the head's
        groups_M: [M], copies of one picture share a number
        groups_N: [N]
    """

    moving_MD: Floats
    fixed_ND: Floats
    groups_M: Groups
    groups_N: Groups


@dataclass(frozen=True)
class Fitted:
    """A transform, and what its fit has chosen: JSON-ready."""

    affine: Affine
    chosen: dict[str, Any] = field(default_factory=dict)


def held_out(groups_N: Groups, seed: int) -> NDArray[np.bool_]:
    """A fifth of the groups, at least one; all copies of a picture are on one side.

    Shape:
        groups_N: [N]; returns [N]
    """
    groups = np.unique(groups_N)
    count = max(round(HELD_OUT * len(groups)), 1)
    drawn: NDArray[np.bool_] = np.isin(groups_N, np.random.default_rng(seed).permutation(groups)[:count])
    return drawn


def _z_score(_recipe: Any, given: Given) -> Fitted:
    return Fitted(unpaired.z_score(given.moving_MD, given.fixed_ND))


def _moment_matching(recipe: Any, given: Given) -> Fitted:
    return Fitted(unpaired.moment_matching(given.moving_MD, given.fixed_ND, recipe.order))


def _coral(recipe: Any, given: Given) -> Fitted:
    share, chosen = _share(recipe, given)
    return Fitted(unpaired.coral(given.moving_MD, given.fixed_ND, share, share), chosen)


def _whitening(recipe: Any, given: Given) -> Fitted:
    share, chosen = _share(recipe, given, correlations=True)
    return Fitted(unpaired.whitening(given.moving_MD, given.fixed_ND, share, share), chosen)


def _optimal_transport(recipe: Any, given: Given) -> Fitted:
    if recipe.map == "barycentric":
        moving_MD, fixed_ND = given.moving_MD, given.fixed_ND
        fitted = unpaired.barycentric_transport(moving_MD, fixed_ND, recipe.seed, recipe.max_samples, recipe.strength)
        return Fitted(fitted, {"samples": [min(len(rows), recipe.max_samples) for rows in (moving_MD, fixed_ND)]})
    share, chosen = _share(recipe, given)
    return Fitted(unpaired.gaussian_transport(given.moving_MD, given.fixed_ND, share, share), chosen)


def _affine(recipe: Any, given: Given) -> Fitted:
    if recipe.solver == "closed_form":
        return Fitted(paired.affine(given.moving_MD, given.fixed_ND))
    found = paired.affine_descent(given.moving_MD, given.fixed_ND, recipe.learning_rate, recipe.steps)
    return Fitted(found.affine, {"loss_first": found.losses[0], "loss_last": found.losses[-1], "steps": recipe.steps})


def _ridge(recipe: Any, given: Given) -> Fitted:
    strength, errors = recipe.strength, None
    if strength is None:
        held = held_out(given.groups_M, recipe.seed + 1)
        strength, errors = paired.choose_strength(
            given.moving_MD[~held], given.fixed_ND[~held], given.moving_MD[held], given.fixed_ND[held]
        )
    listed = None if errors is None else dict(zip(map("{:.3g}".format, paired.STRENGTHS), errors, strict=True))
    return Fitted(paired.ridge(given.moving_MD, given.fixed_ND, strength), {"strength": strength, "errors": listed})


def _procrustes(_recipe: Any, given: Given) -> Fitted:
    return Fitted(paired.procrustes(given.moving_MD, given.fixed_ND))


def _share(recipe: Any, given: Given, *, correlations: bool = False) -> tuple[float, dict[str, Any]]:
    """The shrinkage that was asked for, or the one under which a held-out fifth of both domains is closest."""
    if recipe.shrinkage is not None:
        return recipe.shrinkage, {"shrinkage": recipe.shrinkage, "mmd": None}
    held_M, held_N = held_out(given.groups_M, recipe.seed + 1), held_out(given.groups_N, recipe.seed + 1)
    share, apart = shrinkage.choose(
        given.moving_MD[~held_M],
        given.fixed_ND[~held_N],
        given.moving_MD[held_M],
        given.fixed_ND[held_N],
        recipe.seed,
        correlations=correlations,
    )
    return share, {"shrinkage": share, "mmd": dict(zip(map(str, shrinkage.SHARES), apart, strict=True))}


FITS: dict[type[Alignment], Callable[[Any, Given], Fitted]] = {
    ZScore: _z_score,
    MomentMatching: _moment_matching,
    Coral: _coral,
    Whitening: _whitening,
    OptimalTransport: _optimal_transport,
    PairedAffine: _affine,
    PairedRidge: _ridge,
    Procrustes: _procrustes,
}
