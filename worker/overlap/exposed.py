"""Which of a model's classes its backbone has probably learned before: part of every report. No torch."""

from collections.abc import Sequence
from typing import Any

from app.artifact import tensors
from app.errors import JobFailure
from worker.backbones import exposure, text
from worker.contract.task import Task

NOTE = (
    "classes of these names were among those that the backbone's weights were taught, so part of the accuracy on them "
    "may be that, and a comparison with a network from scratch is one with what it has never seen; names alone were "
    "compared: a class that is not listed may still be known under another, broader or narrower one"
)
NUM_IMAGENET = 1000
NOT_RECORDED = "which images the backbone's weights learned from is not recorded"
NOT_LISTED = "the backbone learned from captioned images, and nobody lists what these show"


def section(task: Task, backbone: str, names: Sequence[str]) -> tuple[dict[str, Any] | None, str]:
    """The report's `data.exposure`, or None and why there is none."""
    taught = exposure.IMAGENET if _has_classifier(task, backbone) else exposure.pretraining(backbone)
    if taught != exposure.IMAGENET:
        return None, NOT_LISTED if taught == exposure.CAPTIONS else NOT_RECORDED
    settings = task.context.settings
    try:
        encoder = text.find([settings.home_path / "backbones", settings.prepared])
    except JobFailure as missing:
        # The class names lie beside the text encoder; a report without them is still a report, and says so.
        return None, missing.message
    found = exposure.named(names, *encoder.words)
    return {"label_set": taught, "num_classes": len(names), "classes": found, "note": NOTE}, ""


def _has_classifier(task: Task, backbone: str) -> bool:
    """Whether the weights came with a classifier of ImageNet's size: a look into a header, not into the catalogue."""
    found = next((one for one in task.backbones if one.name == backbone), None)
    if found is None or found.classifier is None or found.provider == "user":
        return False
    return tensors.shapes(found.classifier)["weight"][0] == NUM_IMAGENET
