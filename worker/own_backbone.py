"""The backbone job: a user's own checkpoint is opened in a limited child, mapped, refused or prepared, and stored."""

from dataclasses import asdict
from typing import Any

from app import backbones
from app.errors import JobFailure
from worker.checkpoints import Refused, admit
from worker.context import RunContext


def run(context: RunContext) -> dict[str, Any]:
    """Admits the job's checkpoint.

    Returns:
        what `services.outcomes` writes: the mapping, and either the backbone's document or why it was refused.
    """
    document, inputs = context.document, context.document.inputs
    base = backbones.find(inputs["architecture"])
    if base is None:
        raise JobFailure(
            "weights_unavailable", f"expected an architecture of the catalogue; found {inputs['architecture']!r}"
        )
    destination = context.scratch / "backbones"
    try:
        admitted = admit(
            inputs["name"], base, context.storage.fetch(inputs["file"]), destination, context.reporter.progress
        )
    except Refused as refused:
        return {
            "failure": refused.message,
            "mapping": refused.report and refused.report.to_document(),
            "document": None,
        }
    prefix = f"backbones/{document.project}/{admitted.prepared.digest}"
    for path in sorted(admitted.prepared.folder.iterdir()):
        context.storage.put(f"{prefix}/{path.name}", path)
    mapping = admitted.report.to_document()
    context.reporter.log(
        f"{admitted.report.share:.1%} of {base.name} filled from the checkpoint", mapping=mapping["counts"]
    )
    return {
        "failure": None,
        "mapping": mapping,
        "document": {"backbone": asdict(admitted.backbone), "prefix": prefix, "architecture": base.name},
    }
