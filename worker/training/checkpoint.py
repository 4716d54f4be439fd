"""Checkpoints of training: named tensors and plain facts in one safetensors object, written whole or not at all.

Each write has a key of its own and the older ones go afterwards: a reader on any host, with whatever local copies,
finds the newest one complete.
"""

import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from app import failpoints
from app.errors import NotFound
from app.storage import Storage

# Between two writes at least this, and as many times the last write's own time: checkpoints cost at most some 5 %.
MIN_SECONDS, COST_FACTOR = 0.2, 20.0
# A short run writes more often: it must not lose more than this share of its steps.
MAX_LOST_SHARE, LOST_COST_FACTOR = 0.05, 4.0


@dataclass(frozen=True)
class Snapshot:
    """A moment of training.

    Args:
        step: optimiser steps of the whole job until then, pilots included.
        tensors: by name.
        facts: JSON-ready.
    """

    step: int
    tensors: dict[str, Tensor]
    facts: dict[str, Any]


class Checkpoints:
    """The checkpoints of one training run.

    Args:
        storage: where they lie.
        prefix: of their keys; one run's alone.
        scratch: folder for the file on its way.
    """

    def __init__(self, storage: Storage, prefix: str, scratch: Path) -> None:
        self._storage, self._prefix, self._scratch = storage, prefix, scratch
        self._cost_seconds = 0.0
        self._written_at = time.monotonic()
        self._step = 0
        self.is_empty = True

    def read(self) -> Snapshot | None:
        """The newest snapshot, or None."""
        path = self._newest()
        if path is None:
            return None
        self.is_empty = False
        with safe_open(path, framework="pt") as file:
            content = json.loads(file.metadata()["graft"])
            names = list(file.keys())
            self._step = content["step"]
            return Snapshot(content["step"], {name: file.get_tensor(name) for name in names}, content["facts"])

    def _newest(self) -> Path | None:
        """A local copy of the newest file. One that goes meanwhile has a successor, of an attempt that is late."""
        while keys := list(self._storage.list(self._prefix)):
            try:
                return self._storage.fetch(keys[-1])
            except NotFound:
                continue
        return None

    def is_due(self, step: int, num_steps: int) -> bool:
        """Whether enough training has passed since the last write to pay for another.

        Args:
            step: as a snapshot's.
            num_steps: of the planned run.
        """
        passed = time.monotonic() - self._written_at
        if step - self._step >= MAX_LOST_SHARE * num_steps and passed >= LOST_COST_FACTOR * self._cost_seconds:
            return True
        return passed >= max(MIN_SECONDS, COST_FACTOR * self._cost_seconds)

    def write(self, snapshot: Snapshot) -> None:
        """Stores a snapshot; from its return on a killed run resumes from it."""
        began = time.monotonic()
        older = list(self._storage.list(self._prefix))
        number = int(Path(older[-1]).stem) + 1 if older else 1
        content = {"step": snapshot.step, "facts": snapshot.facts}
        with tempfile.TemporaryDirectory(dir=self._scratch) as folder:
            path = Path(folder) / "checkpoint"
            tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in snapshot.tensors.items()}
            save_file(tensors, path, metadata={"graft": json.dumps(content, allow_nan=False)})
            self._storage.put(f"{self._prefix}/{number:09d}.safetensors", path)
        failpoints.reach("checkpoint_written")
        for key in older:
            self._storage.delete(key)
        failpoints.reach("checkpoint_stored")
        self.is_empty, self._step = False, snapshot.step
        self._written_at = time.monotonic()
        self._cost_seconds = self._written_at - began
