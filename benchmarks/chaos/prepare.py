"""Backbones that a stack works with: graphs of a few numbers, and a network small enough to be trained in seconds."""

from pathlib import Path

from tests import factories

TINY, OTHER, CNN = factories.BACKBONE, "torchvision/mobilenet_v2", "timm/test_efficientnet"


def backbones(folder: Path) -> Path:
    """Prepares the graphs in `prepared` below the folder, which is given back."""
    for name in (TINY, OTHER):
        factories.prepared(folder / "prepared", name)
    return folder


def network(folder: Path) -> None:
    """Prepares the network, which takes torch and some seconds, unless it is there."""
    from tests.worker import transfer_factories

    made = transfer_factories.prepared_backbone(CNN, 64, folder / "prepared")
    assert made.name == CNN
