"""A network of ordinary size within the bounds that strangers' bundles get."""

import json

import numpy as np

from app.artifact import archive, bundle, heads
from app.artifact.predicted import Predictions
from app.artifact.preprocess import Preprocess
from app.artifact.spec import image_input
from app.services import imports
from app.settings import Settings
from app.storage import FolderStorage
from tests import factories
from tests.app import onnx_factories


def test_a_prepared_backbone_runs_in_the_child(tmp_path):
    pointer = Settings().prepared / "names" / f"{factories.BACKBONE}.json"
    folder = Settings().prepared / json.loads(pointer.read_text())["digest"]
    record = json.loads((folder / "record.json").read_text())
    shape = Preprocess(
        **{**record["preprocess"], **{name: tuple(record["preprocess"][name]) for name in ("mean", "std")}}
    )
    num_features = record["feature_dim"]
    weight, bias = np.random.default_rng(0).normal(size=(3, num_features)) / 20, np.zeros(3)
    described = onnx_factories.make_spec(num_features=num_features, temperature=1.0, inputs=(image_input(shape),))
    written = bundle.write(
        tmp_path / "bundle",
        described,
        head=heads.linear(weight, bias),
        weights={"weight": weight, "bias": bias},
        report={},
        predictions=Predictions([], [], [], [], [], np.empty((0, 3), np.float32)),
        readme="# card\n",
        backbone=folder / "backbone.onnx",
    )
    upload = tmp_path / "bundle.zip"
    names = [bundle.SPEC, *written.files]
    upload.write_bytes(b"".join(archive.stream({name: tmp_path / "bundle" / name for name in names})))
    scratch = tmp_path / "scratch"
    with imports.judged(FolderStorage(tmp_path / "storage"), scratch, upload) as found:
        assert found.checks["num_images"] == 16
        assert found.checks["head_max_abs"] < 1e-5
        assert found.spec == written
    assert not list(scratch.iterdir())
