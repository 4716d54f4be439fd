"""Which of a model's classes its backbone has perhaps learned before: part of every report. No torch."""

from collections.abc import Sequence
from typing import Any

from app.artifact import tensors
from app.errors import JobFailure
from worker.backbones import exposure, text
from worker.contract.task import Task

NOTE = (
    "by name: one of the classes that the weights were first taught has the very name, so part of the accuracy on it "
    "may be that, and a comparison with a network from scratch is one with what it has never seen; all others are "
    "guesses from words: the same name in the singular or plural (plural), a word for kinds of which at least so many "
    "were taught (includes), a whole word of two names in common (part); names alone were compared, and they may mean "
    "two things: a class that is not listed may still be known under another name"
)
OWN = "user/"
NOT_RECORDED = "which images the backbone's weights learned from is not recorded"
UPLOADED = "which images the weights of {name} learned from before they were uploaded is not recorded"
NO_ROOT = (
    "{name} is a network that Graft has trained: data.lineage lists what taught it here; which public backbone that "
    "began at is not known, as {gone}, a backbone below it, was deleted"
)
NOT_LISTED = "the backbone learned from captioned images, and nobody lists what these show"


def section(task: Task, backbone: str, names: Sequence[str]) -> tuple[dict[str, Any] | None, str]:
    """The report's `data.exposure`, or None and why there is none.

    A backbone that Graft has trained is asked about by the public one that it began at: `backbone` names that.
    """
    root, reason = _root(task, backbone)
    if root is None:
        return None, reason
    taught = exposure.IMAGENET if _has_classifier(task, root) else exposure.pretraining(root)
    if taught != exposure.IMAGENET:
        return None, NOT_LISTED if taught == exposure.CAPTIONS else NOT_RECORDED
    settings = task.context.settings
    try:
        encoder = text.find([settings.home_path / "backbones", settings.prepared])
    except JobFailure as missing:
        # The class names lie beside the text encoder; a report without them is still a report, and says so.
        return None, missing.message
    found = exposure.named(names, exposure.Known(encoder.words[0]))
    return {"label_set": taught, "backbone": root, "num_classes": len(names), "classes": found, "note": NOTE}, ""


def _root(task: Task, name: str) -> tuple[str | None, str]:
    """The public backbone under an own one, or None and why nobody knows it."""
    if not name.startswith(OWN):
        return name, ""
    own = {row["backbone"]["name"]: row for row in task.context.document.user_backbones}
    below, source = name, own.get(name, {}).get("source")
    while source is not None:
        below = source["backbone"]
        if not below.startswith(OWN):
            return below, ""
        if "below" not in source and below not in own:
            return None, NO_ROOT.format(name=name, gone=below)
        # Written down with the network, so that a chain outlives its links; not by Graft of before.
        source = source["below"] if "below" in source else own[below].get("source")
    return None, UPLOADED.format(name=below)


def _has_classifier(task: Task, backbone: str) -> bool:
    """Whether the weights came with a classifier of ImageNet's size: a look into a header, not into the catalogue."""
    found = next((one for one in task.backbones if one.name == backbone), None)
    if found is None or found.classifier is None or found.provider == "user":
        return False
    return tensors.shapes(found.classifier)["weight"][0] == exposure.NUM_IMAGENET
