"""Which of a model's classes its backbone has probably learned before: part of every report. No torch."""

from collections.abc import Sequence
from typing import Any

from app.errors import JobFailure
from worker import exposure, text
from worker.methods.contract import Task

NOTE = (
    "classes of these names were among those that the backbone's weights were taught, so part of the accuracy on them "
    "may be that, and a comparison with a network from scratch is one with what it has never seen; names alone were "
    "compared: a class that is not listed may still be known under another, broader or narrower one"
)
NOT_RECORDED = "which images the backbone's weights learned from is not recorded"
NOT_LISTED = "the backbone learned from captioned images, and nobody lists what these show"


def section(task: Task, backbone: str, names: Sequence[str]) -> tuple[dict[str, Any] | None, str]:
    """The report's `data.exposure`, or None and why there is none."""
    taught = exposure.pretraining(backbone)
    if taught != exposure.IMAGENET:
        return None, NOT_LISTED if taught == exposure.CAPTIONS else NOT_RECORDED
    settings = task.context.settings
    try:
        encoder = text.find([settings.home_path / "backbones", settings.prepared])
    except JobFailure as missing:
        # The class names lie beside the text encoder; a report without them is still a report, and says so.
        return None, missing.message
    found = exposure.named(names, encoder.labels)
    return {"label_set": taught, "num_classes": len(names), "classes": found, "note": NOTE}, ""
