"""Exports of a small network: whole and joined are one function, equal weights give equal bytes."""

from multiprocessing import synchronize
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from tqdm import tqdm

from app.artifact.preprocess import Preprocess
from app.errors import JobFailure
from worker.backbones import export

SHAPE = Preprocess(20, 24, 28, "bilinear", (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))


def parts() -> tuple[nn.Module, nn.Module]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        prefix = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU6(inplace=True))
        suffix = nn.Sequential(nn.Conv2d(8, 16, 3), nn.Hardswish(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return prefix.eval(), suffix.eval()


def test_joined_equals_whole_and_bytes_repeat(tmp_path: Path) -> None:
    prefix, suffix = parts()
    whole = nn.Sequential(prefix, suffix)
    first = export.export_backbone(whole, SHAPE, tmp_path / "whole.onnx")
    export.export_prefix(prefix, SHAPE, tmp_path / "prefix.onnx")
    export.export_suffix(suffix, (8, 10, 12), tmp_path / "suffix.onnx")
    export.join(tmp_path / "prefix.onnx", tmp_path / "suffix.onnx", tmp_path / "joined.onnx")
    images = np.random.default_rng(1).integers(0, 256, (5, 20, 24, 3), dtype=np.uint8)
    one, two = (
        export.open_session(tmp_path / name).run(None, {"images": images})[0] for name in ("whole.onnx", "joined.onnx")
    )
    np.testing.assert_allclose(two, one, rtol=1e-5, atol=1e-6)
    assert first.max_rel < 1e-5
    assert first.num_images == 20

    export.export_backbone(nn.Sequential(*parts()), SHAPE, tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "whole.onnx").read_bytes()


def test_exporting_makes_no_lock_between_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed runner would leave it behind."""
    made = []
    monkeypatch.delattr(tqdm, "_lock", raising=False)
    monkeypatch.setattr(synchronize.SemLock, "__init__", lambda *_, **__: made.append(1))
    prefix, suffix = parts()
    export.export_backbone(nn.Sequential(prefix, suffix), SHAPE, tmp_path / "whole.onnx")
    assert made == []


def test_exporting_leaves_the_network_as_it_was(tmp_path: Path) -> None:
    prefix, _ = parts()
    before = {name: value.clone() for name, value in prefix.state_dict().items()}
    export.export_prefix(prefix, SHAPE, tmp_path / "prefix.onnx")
    assert prefix[2].inplace is True  # type: ignore[index]
    assert all(torch.equal(value, before[name]) for name, value in prefix.state_dict().items())


def test_a_graph_of_another_network_is_refused(tmp_path: Path) -> None:
    prefix, _ = parts()
    export.export_prefix(prefix, SHAPE, tmp_path / "prefix.onnx")
    with torch.no_grad():
        prefix[0].weight[0, 0] += 0.1  # type: ignore[index,operator]
    with pytest.raises(JobFailure, match=r"expected the exported graph within 0\.001 of torch"):
        export.prove(export.FromPixels(prefix, SHAPE), tmp_path / "prefix.onnx", export.probe_images(SHAPE))


def test_probe_images_are_varied_and_repeat() -> None:
    images = export.probe_images(SHAPE)
    assert images.shape == (16, 20, 24, 3)
    assert np.array_equal(images, export.probe_images(SHAPE))
    deviations = images.reshape(16, -1).std(axis=1)
    assert deviations.min() > 0
    assert len({image.tobytes() for image in images}) == 16
