"""Every failpoint, once on each stack that has it: kill -9 right there, and all is as if nothing had been."""

import time
from collections.abc import Iterator
from typing import Any

from app import failpoints
from benchmarks.chaos import registry, verdict
from benchmarks.chaos.lab import Done, Lab

# What brings a process to each of them.
REACHED_BY = {
    "archive_received": "ingest",
    "archive_stored": "ingest",
    "weights_stored": "own_backbone",
    "class_file_stored": "add_class",
    "class_stored": "add_class",
    "import_file_stored": "import_bundle",
    "import_stored": "import_bundle",
    "request_commit": "alias",
    "request_committed": "delete",
    "request_tidied": "transfer",
    "answer_found": "repeated",
    "waste_reserved": "ingest",
    "waste_given_back": "refused",
    "waste_taken": "overdue",
    "waste_deleted": "delete",
    "waste_cleared": "delete",
    "upload_taken": "upload",
    "upload_changed": "upload",
    "upload_synced": "upload",
    "upload_noted": "upload",
    "upload_assembled": "upload",
    "upload_verified": "upload",
    "log_stored": "logged",
    "sums_stored": "observed",
    "sums_joined": "observed",
    "file_linked": "ingest",
    "file_placed": "ingest",
    "object_sent": "ingest",
    "object_fetched": "ingest",
    "bell_written": "transfer",
    "worker_shown": "transfer",
    "claim_commit": "transfer",
    "claim_committed": "transfer",
    "events_commit": "transfer",
    "events_committed": "transfer",
    "lease_renewed": "folds",
    "outcome_commit": "transfer",
    "outcome_committed": "folds",
    "outcome_tidied": "folds",
    "sweep_commit": "transfer",
    "sweep_committed": "transfer",
    "delivery_claimed": "told",
    "delivery_sent": "told",
    "delivery_concluded": "told",
    "rows_rewritten": "collect",
    "orphan_removed": "collect",
    "rows_half": "collect",
    "collection_asked": "collect",
    "collection_begun": "due",
    "late_noted": "late",
    "worker_left": "left",
    "log_expired": "expired",
    "sums_expired": "expired",
    "rows_expired": "expired",
    "checkpoints_noted": "expired",
    "uploads_expired": "expired",
    "upload_discarded": "expired",
    "stray_removed": "expired",
    "collection_noted": "collect",
    "dataset_file_stored": "ingest",
    "features_half": "cold",
    "features_stored": "cold",
    "part_stored": "folds",
    "chunk_stored": "predict",
    "predictions_stored": "predict",
    "checkpoint_written": "tune",
    "checkpoint_stored": "tune",
    "head_stored": "adapt",
    "alignment_file_stored": "align",
    "moving_graph_shared": "align_across",
    "thumbnails_stored": "advise",
    "backbone_file_stored": "own_backbone",
    "graph_shared": "first_on_backbone",
    "bundle_file_stored": "transfer",
    "bundle_stored": "transfer",
    "result_ready": "transfer",
    "result_told": "transfer",
}
ONLY = {"file_linked": "local", "file_placed": "local", "bell_written": "local", "object_sent": "team",
        "object_fetched": "team"}  # fmt: skip
# A minute of training and export each, on two cores.
SLOW = frozenset({"tune", "adapt", "own_backbone"})
# Whose parts are told one by one, so that those which were computed twice can be counted.
STEPPED = frozenset({"folds", "tune"})


def on(stack: str) -> list[str]:
    """Points that a stack has, in the order of their scenarios, so that one undisturbed run serves several."""
    have = [name for name in failpoints.POINTS if ONLY.get(name, stack) == stack]
    order = list(registry.SCENARIOS)
    return sorted(have, key=lambda name: (REACHED_BY[name] in SLOW, order.index(REACHED_BY[name])))


def run(lab: Lab, names: list[str]) -> Iterator[dict[str, Any]]:
    """One row for each point."""
    undisturbed: dict[str, Done] = {}
    for name in names:
        scenario = REACHED_BY[name]
        began = time.monotonic()
        if scenario not in undisturbed:
            undisturbed[scenario] = registry.SCENARIOS[scenario](lab)
            wrong = verdict.judge(lab.stack, undisturbed[scenario], None)
            if wrong:
                yield {"what": f"undisturbed {scenario}", "stack": lab.stack.kind, "wrong": wrong}
        yield hit(lab, name, scenario, undisturbed[scenario]) | {"seconds": round(time.monotonic() - began, 1)}


def hit(lab: Lab, name: str, scenario: str, undisturbed: Done | None, what: str = "kill") -> dict[str, Any]:
    """The scenario with the point armed."""
    stack = lab.stack
    stack.arm(name, what)

    def done() -> Done:
        made = registry.SCENARIOS[scenario](lab)
        # What a worker does by itself: the next turn reaches it.
        verdict.await_point(stack, name)
        return made

    row = {"what": name, "stack": stack.kind, "by": scenario}
    return row | verdict.told(stack, done, undisturbed, stepped=scenario in STEPPED)
