"""A network of ordinary size within the bounds that strangers' bundles get."""

import json
import tracemalloc

import numpy as np
import pytest

from app.artifact import archive, bundle, heads
from app.artifact.predicted import Predictions
from app.artifact.preprocess import Preprocess
from app.artifact.spec import image_input
from app.errors import BadRequest
from app.services import imports
from app.settings import Settings
from app.storage import FolderStorage
from tests import factories
from tests.app import onnx_factories


def write(folder, described, network=None):
    """A bundle as a zip; of the tiny network, unless another one is given."""
    num_classes = len(described.labels)
    weight = np.random.default_rng(0).normal(size=(num_classes, described.backbone.feature_dim)) / 20
    bias = np.zeros(num_classes)
    backbone = folder / "backbone.onnx"
    backbone.write_bytes(network or onnx_factories.backbone_bytes())
    written = bundle.write(
        folder / "bundle",
        described,
        head=heads.linear(weight, bias),
        weights={"weight": weight, "bias": bias},
        report={},
        predictions=Predictions([], [], [], [], [], np.empty((0, num_classes), np.float32)),
        readme="# card\n",
        backbone=backbone,
    )
    names = [bundle.SPEC, *written.files]
    upload = folder / "bundle.zip"
    upload.write_bytes(b"".join(archive.stream({name: folder / "bundle" / name for name in names})))
    return upload


def test_a_spec_of_many_classes_that_were_told_by_numbers_is_taken(tmp_path):
    """As many as a transfer takes, with names of the longest kind and beside a recipe of the largest real kind."""
    labels = tuple(f"{number:05d} {'n' * 200}" for number in range(12_000))
    told = [{"name": labels[number], "attributes": [0.25] * 300} for number in range(1000)]
    described = onnx_factories.make_spec(labels, temperature=1.0, recipe={"method": "zero_shot", "classes": told})
    with imports.judged(FolderStorage(tmp_path / "storage"), tmp_path / "scratch", write(tmp_path, described)) as found:
        assert found.spec.labels == labels


def test_a_spec_of_many_values_is_refused_before_it_is_parsed(tmp_path):
    recipe = {"method": "linear_probe", "x": [[] for _ in range(300_000)]}
    upload = write(tmp_path, onnx_factories.make_spec(recipe=recipe))
    tracemalloc.start()
    try:
        with (
            pytest.raises(BadRequest, match="found 60"),
            imports.judged(FolderStorage(tmp_path / "storage"), tmp_path / "scratch", upload),
        ):
            raise AssertionError("it is taken")
        # The text itself has five of them.
        assert tracemalloc.get_traced_memory()[1] < 10 * 2**20
    finally:
        tracemalloc.stop()


def test_a_prepared_backbone_runs_in_the_child(tmp_path):
    pointer = Settings().prepared / "names" / f"{factories.BACKBONE}.json"
    folder = Settings().prepared / json.loads(pointer.read_text())["digest"]
    record = json.loads((folder / "record.json").read_text())
    shape = Preprocess(
        **{**record["preprocess"], **{name: tuple(record["preprocess"][name]) for name in ("mean", "std")}}
    )
    num_features = record["feature_dim"]
    described = onnx_factories.make_spec(num_features=num_features, temperature=1.0, inputs=(image_input(shape),))
    upload = write(tmp_path, described, (folder / "backbone.onnx").read_bytes())
    scratch = tmp_path / "scratch"
    with imports.judged(FolderStorage(tmp_path / "storage"), scratch, upload) as found:
        assert found.checks["num_images"] == 16
        assert found.checks["head_max_abs"] < 1e-5
        assert found.spec.model_copy(update={"files": {}}) == described
    assert not list(scratch.iterdir())
