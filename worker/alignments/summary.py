"""What an alignment has learned, and what it changed, as the JSON of its result.

Shape legend: N items, D features in, E features out.
"""

from typing import Any

import numpy as np

from worker.alignments import distance, paired
from worker.alignments.affine import Affine, Floats
from worker.alignments.table import Fitted

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
NUM_LARGEST = 10


def learned(fitted: Fitted) -> dict[str, Any]:
    """Quantiles of alpha and beta, how well the map can be undone, and the features that it changes most.

    For a full matrix alpha's quantiles are those of its singular values, and the change of a feature that comes out is
    the distance of its column from the identity's.
    """
    affine = fitted.affine
    stretch = np.abs(affine.alpha) if affine.is_diagonal else np.linalg.svd(affine.alpha, compute_uv=False)
    smallest, largest = float(stretch.min()), float(stretch.max())
    undoable = affine.dim_in <= affine.dim_out and smallest > largest * len(stretch) * np.finfo(np.float64).eps
    return {
        "kind": "diagonal" if affine.is_diagonal else "matrix",
        "alpha": {
            "of": "factors" if affine.is_diagonal else "singular values",
            "quantiles": _quantiles(affine.alpha if affine.is_diagonal else stretch),
            # Null where some direction is lost: it cannot be undone.
            "condition_number": largest / smallest if undoable else None,
        },
        "beta": {"quantiles": _quantiles(affine.offset), "norm": float(np.linalg.norm(affine.offset))},
        "largest_changes": _largest(affine),
        "chosen": fitted.chosen,
    }


def distances(moving: tuple[Floats, Floats], fixed: tuple[Floats, Floats], affine: Affine, seed: int) -> dict[str, Any]:
    """How far apart the domains are on held-out items, before and after; before is null between different widths.

    Args:
        moving: features of the new domain: those that fitted `affine`, and held-out ones.
        fixed: the same of the head's domain.
        affine: fitted without the held-out items.
        seed: of sampling.
    """
    moved = affine.apply(moving[0]), affine.apply(moving[1])
    same = affine.dim_in == affine.dim_out
    width = distance.bandwidth(moving[1] if same else moved[1], fixed[1], seed)

    def measured(first: tuple[Floats, Floats]) -> dict[str, float]:
        apart, error = distance.proxy_a(first[0], fixed[0], first[1], fixed[1], seed)
        return {
            "coral": distance.coral(first[1], fixed[1]),
            "mmd": distance.mmd(first[1], fixed[1], width, seed),
            "proxy_a": apart,
            "domain_error": error,
        }

    return {
        "before": measured(moving) if same else None,
        "after": measured(moved),
        "mmd_bandwidth": width,
        "num_held_out": {"source": len(fixed[1]), "target": len(moving[1])},
        "measured_on": "held-out items, by a fit on the others; the published fit uses all",
    }


def errors(moving: tuple[Floats, Floats], fixed: tuple[Floats, Floats], affine: Affine) -> dict[str, Any]:
    """Squared error and R2 on pairs that fitted nothing and on those that did; `unchanged` is that of the identity."""

    def named(one: Affine, x: Floats, y: Floats) -> dict[str, float]:
        mse, r2 = paired.errors(one, x, y)
        return {"mse": mse, "r2": r2}

    identity = Affine(np.ones(affine.dim_in), np.zeros(affine.dim_in))
    same = affine.dim_in == affine.dim_out
    return {
        "held_out": named(affine, moving[1], fixed[1]),
        "fitted": named(affine, moving[0], fixed[0]),
        "unchanged": named(identity, moving[1], fixed[1]) if same else None,
    }


def _quantiles(values: Floats) -> dict[str, float]:
    return {f"{share:g}": float(value) for share, value in zip(QUANTILES, np.quantile(values, QUANTILES), strict=True)}


def _largest(affine: Affine) -> list[dict[str, float | int]]:
    """Output features by how much of them changes: their factor (or column) and their offset."""
    if affine.is_diagonal:
        change_E = np.abs(affine.alpha - 1.0)
    else:
        change_E = np.linalg.norm(affine.alpha - np.eye(affine.dim_in, affine.dim_out), axis=0)
    order = np.argsort(-change_E, kind="stable")[:NUM_LARGEST]
    own = affine.alpha if affine.is_diagonal else np.diagonal(affine.alpha)
    return [
        {
            "feature": int(place),
            "change": float(change_E[place]),
            "alpha": float(own[place]) if place < len(own) else 0.0,
            "beta": float(affine.offset[place]),
        }
        for place in order
    ]
