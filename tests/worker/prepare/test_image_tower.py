"""The command that prepares backbones: what it prints, what it skips, what it refuses."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from app import backbones as catalogue
from app.backbones import Weights
from app.errors import JobFailure
from worker.backbones import networks, prepared, weights
from worker.prepare import command, image_tower


def test_starters_are_the_packages_backbones() -> None:
    assert sorted(backbone.name for backbone in command.starters()) == [
        "timm/tf_efficientnet_lite0",
        "timm/tf_efficientnet_lite1",
        "timm/tf_efficientnet_lite2",
        "torchvision/mobilenet_v2",
    ]


def test_default_destination_is_the_environment() -> None:
    assert command.default_destination() == Path(sys.prefix) / "share" / "graft" / "backbones"


def test_an_unknown_name_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["timm/none-such", "--destination", str(tmp_path)]) == 1
    assert "expected a backbone of the catalogue, found 'timm/none-such'" in capsys.readouterr().err


def test_prepares_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = catalogue.find("timm/test_resnet")
    assert row is not None
    home = tmp_path / "home"
    file = weights.download_path(row, home)
    file.parent.mkdir(parents=True)
    save_file(networks.build(row, None, seed=1).state_dict(), file)
    arguments = ["timm/test_resnet", "--destination", str(tmp_path), "--home", str(home)]
    assert command.main(arguments) == 0
    out = capsys.readouterr().out
    assert out.startswith("  0% timm/test_resnet: weights\n")
    assert "100% timm/test_resnet: prepared" in out
    found = prepared.find("timm/test_resnet", [tmp_path])
    assert found is not None
    assert found.preprocess == row.preprocess
    assert found.licence == row.licence
    assert found.classifier is not None
    assert load_file(found.classifier)["weight"].shape == (1000, found.feature_dim)
    assert found.record["weights_sha256"] == weights.sha256_file(file)
    alias = prepared.pointer("timm/alias", tmp_path)
    alias.parent.mkdir(parents=True, exist_ok=True)
    alias.write_text(json.dumps({"name": "timm/alias", "digest": found.digest}))
    other = prepared.find("timm/alias", [tmp_path])
    assert other is not None
    assert (other.name, other.digest) == ("timm/alias", found.digest)
    written = found.graph.stat().st_mtime_ns
    assert command.main(arguments) == 0
    assert "already prepared" in capsys.readouterr().out
    assert found.graph.stat().st_mtime_ns == written

    found.graph.write_bytes(b"damaged")
    assert command.main(arguments) == 0
    assert prepared.intact(found.folder)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted([found.digest, "home", "names"])


def test_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    old, fresh = tmp_path / ".preparing-old", tmp_path / ".preparing-fresh"
    for folder in (old, fresh):
        folder.mkdir()
        (folder / "half.onnx").write_bytes(b"half")
    os.utime(old, (0, 0))
    image_tower._sweep(tmp_path)
    assert not old.exists()
    assert fresh.exists()


def test_weights_that_cannot_be_had_leave_nothing(tmp_path: Path) -> None:
    row = catalogue.find("timm/resnet50")
    assert row is not None
    absent = Weights(kind="starter", location="no-such-package", file="no_such_package/resnet50.pth")
    words = (
        r"the weights of timm/resnet50 could not be had: the package no-such-package is not installed.* available here"
    )
    with pytest.raises(JobFailure, match=words):
        image_tower.prepare(
            replace(row, weights=absent), tmp_path / "to", tmp_path / "home", lambda share, message: None
        )
    assert not (tmp_path / "to").exists()
