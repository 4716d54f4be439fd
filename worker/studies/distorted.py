"""The part of a full report that passes images through a trained network and the one that it came from.

On the scored items stage by stage, and on other images of the job: features may move little where the labels are, and
much elsewhere, which is what fine-tuning loses on other data (Kumar et al., arXiv 2202.10054).
"""

from typing import Any

import numpy as np

from app.artifact import bundle
from worker import transfer
from worker.attempt.context import RunContext
from worker.backbones import features
from worker.contract.task import Rows
from worker.data.samples import Index
from worker.evaluate import distortion
from worker.evaluate.supplement import NO_OTHERS, OTHER_IMAGES
from worker.prepare import sources
from worker.studies.served_version import ServedVersion

STAGES, OTHERS = "feature_distortion.stages", "feature_distortion.other_images"
# Two networks of torch on a processor: seconds.
MAX_IMAGES = 200
NO_WEIGHTS = "the bundle has no weights of the trained network"


def wanted(report: dict[str, Any]) -> bool:
    """Whether the report waits for this part."""
    return bool({STAGES, OTHERS} & set(report["follow_up"]["fills"]))


def part(context: RunContext, version: ServedVersion, index: Index, rows: Rows) -> dict[str, Any]:
    """`filled` and `not_computed` of it.

    Args:
        context: of the attempt.
        version: that is reported on.
        index: of the dataset.
        rows: of the scored items.
    """
    from worker.fine_tuning import stages

    if bundle.STATE not in version.spec.files:
        return _untold(NO_WEIGHTS)
    digest = version.spec.backbone.digest
    backbone = next((one for one in sources.open_backbones(context) if one.digest == digest), None)
    if backbone is None:
        return _untold(f"{version.spec.backbone.name} is not at hand as it was")
    state = context.storage.fetch(f"{version.prefix}/{bundle.STATE}")
    try:
        pair = stages.pair(backbone, version.shape, state)
    except stages.NotAlike as error:
        return _untold(str(error))

    def compare(index: Index, rows: Rows) -> dict[str, Any] | str:
        some = _some(rows, context.document.seed)
        if len(some) < distortion.MIN_ITEMS:
            return f"needs {distortion.MIN_ITEMS} images; found {len(some)}"
        batches = (images for _, images in features.decoded(context, index, some, version.shape))
        alike, change = stages.compare(pair, batches)
        told = [{"stage": name, "linear_cka": value} for name, value in alike.items()]
        return {
            "mean_relative_change": change,
            "linear_cka": alike[stages.FEATURES],
            "num_samples": len(some),
            "stages": told,
        }

    filled, missing = dict[str, Any](), dict[str, str]()
    own = compare(index, rows)
    filled[STAGES] = None if isinstance(own, str) else own["stages"]
    missing |= {STAGES: own} if isinstance(own, str) else {}
    context.reporter.check_yield()
    role = next((role for role in OTHER_IMAGES if role in context.document.datasets), None)
    if role is None:
        return {"filled": {**filled, OTHERS: None}, "not_computed": {**missing, OTHERS: NO_OTHERS}}
    dataset = context.document.datasets[role]
    other = transfer.load(context, dataset)
    found = compare(other, np.arange(len(other)))
    filled[OTHERS] = None if isinstance(found, str) else {"what": role, "dataset": dataset.id, **found}
    missing |= {OTHERS: found} if isinstance(found, str) else {}
    return {"filled": filled, "not_computed": missing}


def _some(rows: Rows, seed: int) -> Rows:
    """A sample: images are stored class by class."""
    return np.sort(np.random.default_rng(seed).permutation(rows)[:MAX_IMAGES])


def _untold(reason: str) -> dict[str, Any]:
    return {"filled": {STAGES: None, OTHERS: None}, "not_computed": {STAGES: reason, OTHERS: reason}}
