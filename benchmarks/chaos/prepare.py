"""Backbones that a stack works with: a graph of a few numbers, and a network small enough to be trained in seconds."""

from pathlib import Path

from benchmarks.chaos.scenarios import CNN
from tests import factories


def backbones(folder: Path, *, trained: bool = True) -> Path:
    """Prepares them in `prepared` below the folder, which is given back.

    Args:
        folder: of all stacks.
        trained: whether the network is needed, which takes torch and some seconds.
    """
    root = factories.prepared(folder / "prepared")
    if trained:
        from tests.worker import transfer_factories

        made = transfer_factories.prepared_backbone(CNN, 64, root)
        assert made.name == CNN
    return folder
