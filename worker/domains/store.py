"""Finished candidates of an adaptation in storage, so that an attempt that takes over trains none of them again.

Only trained heads are kept: what is closed form is computed again, to the same bits, in the time that reading takes.
"""

import tempfile
from pathlib import Path

from app import failpoints
from app.artifact import tensors
from worker.attempt.context import RunContext
from worker.contract.network_head import NetworkHead

_ARRAYS = ("hidden_HD", "hidden_H", "weight_CH", "bias_C", "mean_D", "scale_D")


class Store:
    """The trained heads of one candidate under its own prefix, numbered.

    Args:
        context: of the attempt.
        name: of everything that decides about the training.
    """

    def __init__(self, context: RunContext, name: str) -> None:
        self._context = context
        self._prefix = f"{context.document.checkpoint_prefix}/adapt-{name}"

    def read(self, number: int) -> NetworkHead | None:
        """The head of that number, if an earlier attempt has finished it."""
        key = self._key(number)
        if key not in self._context.storage.list(self._prefix):
            return None
        found = tensors.load(self._context.storage.fetch(key))
        hidden_HD, hidden_H, weight_CH, bias_C, mean_D, scale_D = (found[name].copy() for name in _ARRAYS)
        return NetworkHead(hidden_HD, hidden_H, weight_CH, bias_C, mean_D, scale_D)

    def write(self, number: int, head: NetworkHead) -> None:
        """Keeps a finished head."""
        with tempfile.TemporaryDirectory(dir=self._context.scratch) as folder:
            path = Path(folder) / "head"
            path.write_bytes(tensors.dump({name: getattr(head, name) for name in _ARRAYS}))
            self._context.storage.put(self._key(number), path)
            failpoints.reach("head_stored")

    def _key(self, number: int) -> str:
        return f"{self._prefix}/{number:03d}.safetensors"
