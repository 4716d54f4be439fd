"""Why a report has no such figure, where the kind of transfer or of machine alone decides that.

What hangs on the data is explained where the figure is missed. These are added at last, to what is null and explained
nowhere: `not_computed` has an entry for each null, as docs/report.md promises.
"""

from collections.abc import Mapping
from typing import Any

from app import report_paths
from worker.domains.distances import MIN_ITEMS as MIN_APART
from worker.evaluate.sections import MIN_ECE_ITEMS
from worker.evaluate.supplement import NO_LABELS

NO_SOURCE = "no other dataset was joined as a source"
NO_FOLDS = "what is served was compared with others on one part that was held out, not on folds"
NO_ERRORS = "the baseline makes no error"
ALL_CACHED = "no image was extracted: the features of all were cached, or none were needed"
NOT_COUNTED = "the served model learned from no features of images"
FEW = f"needs {MIN_ECE_ITEMS} items that the temperature was fitted to"

STANDING = {
    "verdicts.vs_source_only": NO_SOURCE,
    "baselines.source_only": NO_SOURCE,
    "domain": NO_SOURCE,
    "domain.before": f"needs {MIN_APART} images of either dataset",
    "domain.after": "it is told of adaptations to a dataset without labels; with labels both are learned from together",
    "metrics.test_top_5_accuracy": "needs more than five classes",
    "metrics.domain_distance": "the distance of the domains was not measured",
    "metrics.cv_accuracy_mean": NO_FOLDS,
    "metrics.cv_accuracy_std": NO_FOLDS,
    "gain.relative_error_reduction": NO_ERRORS,
    "calibration.selection": "no temperature was fitted",
    "calibration.selection.before.ece": FEW,
    "calibration.selection.after.ece": FEW,
    "estimate.found": NO_LABELS,
    "estimate.error": NO_LABELS,
    "feature_map.after": "the features are served as the backbone gives them",
    "data.leakage.num_cosine": "features of what was learned from, under what is served, are not at hand",
    "data.leakage.accuracy_without": "every scored item has a twin, by some sign, in what was learned from",
    "data.leakage.accuracy_without_copies": "every scored item has a copy in what was learned from",
    "cost.baselines_seconds": "no baseline was made after the transfer",
    "cost.images_cached": NOT_COUNTED,
    "cost.images_extracted": NOT_COUNTED,
    "cost.extraction_seconds": NOT_COUNTED,
    "cost.images_per_second": ALL_CACHED,
    "cost.peak_gpu_memory_bytes": "nothing was computed on a GPU",
}


def standing(report: Mapping[str, Any]) -> dict[str, str]:
    """Further entries for `not_computed` of a report."""
    told = report["not_computed"]
    return {
        path: reason
        for path, reason in STANDING.items()
        if path not in told and report_paths.value_at(report, path, report_paths.ABSENT) is None
    }
