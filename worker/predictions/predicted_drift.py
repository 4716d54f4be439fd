"""Whether the images of a predict job look like those that its version was tested on, as it is told of served ones."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from app.artifact.reference import Reference
from app.artifact.spec import Spec
from app.errors import BadImage
from app.serving import drift
from app.serving.moments import Moments
from worker.attempt.progress import Reporter
from worker.predictions.table import Outcome


def moments(outcomes: Sequence[Outcome], spec: Spec) -> Moments:
    """Sums over what was said; images that cannot be used are in none."""
    good = [one for one in outcomes if not isinstance(one, BadImage)]
    if not good:
        return Moments.empty(spec.backbone.feature_dim, len(spec.labels))
    features, probabilities = zip(*((one.features_ND, one.probabilities_NC) for one in good), strict=True)
    return Moments.of(np.concatenate(features), np.concatenate(probabilities))


def told(reporter: Reporter, known: Reference | str, seen: Moments | None, labels: Sequence[str]) -> dict[str, Any]:
    """Holds the images against the version's reference, and says so in the log where they differ.

    Args:
        reporter: of the attempt.
        known: the reference, or why there is none.
        seen: of all images; None where a part of them was predicted by a Graft that made no sums.
        labels: of the model.

    Returns:
        metrics: `drifted`, 1 or 0, null where nothing can be said, and the excess of each distance.
    """
    if isinstance(known, str) or seen is None:
        return {"drifted": None}
    found = drift.compare(known, seen, labels)
    if found.verdict == "not_enough":
        return {"drifted": None}
    excess = {f"drift_{name}": round(one.excess, 4) for name, one in found.distances.items()}
    if found.verdict == "drift":
        what = f"the images differ from those that the version was tested on: {'; '.join(found.reasons)}"
        reporter.log(what, "warning", **excess)
    return {"drifted": int(found.verdict == "drift"), **excess}
