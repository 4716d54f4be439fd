"""Equal to torchvision's TrivialAugmentWide where both draw the same numbers."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import TrivialAugmentWide

from worker.training import trivial

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8))


class FromTorch:
    """The numbers that torchvision draws."""

    def integers(self, high: int, /) -> int:
        return int(torch.randint(high, (1,)).item())


def test_equals_torchvision() -> None:
    names = set()
    for seed in range(120):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            wanted = np.asarray(TrivialAugmentWide()(PICTURE))
            torch.manual_seed(seed)
            found = np.asarray(trivial.apply(PICTURE, FromTorch(), tuple(trivial.GROUPS)))
        np.testing.assert_array_equal(found, wanted)
        names.add(found.tobytes())
    assert len(names) > 50


@pytest.mark.parametrize("group", trivial.GROUPS)
def test_a_group_alone_stays_within_its_operations(group: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(trivial, "_apply_op", lambda image, name, *_, **__: seen.append(name) or image)
    for seed in range(300):
        trivial.apply(PICTURE, np.random.default_rng(seed), (group,), identity=False)
    assert set(seen) == set(trivial.GROUPS[group])


def test_equal_draws_give_equal_images() -> None:
    first, again = (
        np.asarray(trivial.apply(PICTURE, np.random.default_rng(7), tuple(trivial.GROUPS))) for _ in range(2)
    )
    np.testing.assert_array_equal(first, again)
