"""Backbones that a stack works with: graphs of a few numbers, and a network small enough to be trained in seconds."""

from pathlib import Path

from app import backbones as catalogue
from tests import factories
from worker.backbones import prepared, weights

TINY, OTHER, CNN = factories.BACKBONE, "torchvision/mobilenet_v2", "timm/test_efficientnet"


def backbones(folder: Path) -> Path:
    """Prepares the graphs in `prepared` below the folder, which is given back."""
    for name in (TINY, OTHER):
        factories.prepared(folder / "prepared", name)
    return folder


def network(root: Path, home: Path) -> None:
    """Prepares the network, which takes torch and some seconds, and makes it available to a home, unless it is."""
    if prepared.find(CNN, [root]) is None:
        from tests.worker import transfer_factories

        transfer_factories.prepared_backbone(CNN, 64, root)
    found = catalogue.find(CNN)
    assert found is not None
    # What is prepared is never read again: that a file is there is all that is asked of the weights.
    place = weights.download_path(found, home)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.touch()
