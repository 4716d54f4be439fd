"""Finished parts of a study in storage, so that an attempt that takes over does none of them again.

Each part is one JSON object under a key of its own, whole or not at all.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

from app import failpoints
from worker.attempt.context import RunContext


class Finished:
    """The parts of one job, by name; shared by its attempts.

    Args:
        context: of the attempt.
        what: of the parts, for the log: `folds`, `candidates`.
    """

    def __init__(self, context: RunContext, what: str) -> None:
        self._context, self._prefix = context, f"{context.document.checkpoint_prefix}/{what}"
        self._known: dict[str, Any] = {}
        for key in context.storage.list(self._prefix):
            self._known[Path(key).stem] = json.loads(context.storage.fetch(key).read_text("utf-8"))
        if self._known:
            number = len(self._known)
            context.reporter.log(f"resumed from step {number}: {number} {what} were finished before", step=number)

    def get(self, name: str) -> Any:
        """The part of that name, or None where no attempt has finished it."""
        return self._known.get(name)

    def add(self, name: str, part: Any) -> None:
        """Keeps a part; from its return on a killed attempt does not lose it."""
        with tempfile.TemporaryDirectory(dir=self._context.scratch) as folder:
            path = Path(folder) / "part"
            path.write_text(json.dumps(part, allow_nan=False), "utf-8")
            self._context.storage.put(f"{self._prefix}/{name}.json", path)
            failpoints.reach("part_stored")
        self._known[name] = part
