import json
import sys

import numpy as np
import onnxruntime as ort
import pytest

from app.artifact import bundle, heads, reference, sample, seen, spec, stored, tensors
from app.artifact.precisions import SECOND
from app.artifact.selection import SelectionPredictions
from tests.app import prediction_factories, sample_factories
from tests.app.onnx_factories import MEASURED, backbone_bytes, images, make_spec

WEIGHTS = {"weight": np.arange(18.0).reshape(3, 6) / 9, "bias": np.zeros(3)}


@pytest.fixture
def backbone(tmp_path):
    path = tmp_path / "shared.onnx"
    path.write_bytes(backbone_bytes())
    return path


def write(folder, backbone, described=None, **overrides):
    fields = {
        "head": heads.linear(WEIGHTS["weight"], WEIGHTS["bias"]),
        "weights": WEIGHTS,
        "report": {"verdict": None, "metrics": {"test_accuracy": 0.5}},
        "predictions": prediction_factories.make(4),
        "readme": "# a model \u00fc\n",
        "backbone": backbone,
    }
    return bundle.write(folder, described or make_spec(), **{**fields, **overrides})


def test_a_bundle_on_a_shared_backbone_names_it_without_copying(tmp_path, backbone):
    shared = bundle.entry(backbone, key="backbones/b/backbone.onnx")
    written = write(tmp_path / "b", shared)
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == [
        "README.md", "head.onnx", "predictions.parquet", "report.json", "spec.json", "weights.safetensors",
    ]  # fmt: skip
    assert written.files["backbone.onnx"] == shared
    assert bundle.read(tmp_path / "b") == written
    assert bundle.verify(tmp_path / "b") == written
    assert bundle.verify(tmp_path / "b", {"backbone.onnx": backbone}) == written
    assert written.model_copy(update={"files": {}}) == make_spec()
    assert json.loads((tmp_path / "b" / "report.json").read_text())["metrics"] == {"test_accuracy": 0.5}
    np.testing.assert_array_equal(tensors.load(tmp_path / "b" / "weights.safetensors")["weight"], WEIGHTS["weight"])


def test_a_bundle_with_a_backbone_of_its_own_holds_it(tmp_path, backbone):
    written = write(tmp_path / "b", backbone)
    assert written.files["backbone.onnx"].key is None
    assert (tmp_path / "b" / "backbone.onnx").read_bytes() == backbone.read_bytes()
    assert bundle.verify(tmp_path / "b") == written


def test_equal_bundles_have_equal_hashes(tmp_path, backbone):
    assert write(tmp_path / "a", backbone) == write(tmp_path / "b", backbone)
    assert (tmp_path / "a" / "spec.json").read_bytes() == (tmp_path / "b" / "spec.json").read_bytes()


def test_the_model_is_composed_on_demand(tmp_path, backbone):
    written = write(tmp_path / "shared", bundle.entry(backbone, key="k"))
    write(tmp_path / "own", backbone)
    data = bundle.model_bytes(written, tmp_path / "shared" / "head.onnx", backbone)
    assert data == bundle.model_bytes(written, tmp_path / "own" / "head.onnx", tmp_path / "own" / "backbone.onnx")
    session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
    probabilities, features = session.run(["probabilities", "features"], {"images": images(3)})
    assert probabilities.shape == (3, 3)
    assert features.shape == (3, 6)


def test_a_model_of_another_backbone_is_not_composed(tmp_path, backbone):
    written = write(tmp_path / "b", bundle.entry(backbone, key="k"))
    head = tmp_path / "b" / "head.onnx"
    with pytest.raises(spec.BundleError, match=r"backbone\.onnx is missing"):
        bundle.model_bytes(written, head, tmp_path / "nowhere")
    backbone.write_bytes(backbone_bytes(seed=1))
    with pytest.raises(spec.BundleError, match=r"backbone\.onnx has another content"):
        bundle.model_bytes(written, head, backbone)
    backbone.write_bytes(backbone_bytes(num_features=5))
    narrower = write(tmp_path / "c", bundle.entry(backbone, key="k"))
    with pytest.raises(spec.BundleError, match="width 6; found 5"):
        bundle.model_bytes(narrower, tmp_path / "c" / "head.onnx", backbone)


def flip(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


SELECTED = SelectionPredictions(["s1"], ["cat"], ["val"], {"transfer": ["cat"]}, "out of fold")


@pytest.mark.parametrize("name", bundle.FILES)
def test_verification_notices_every_kind_of_damage(tmp_path, backbone, name):
    folder = tmp_path / "b"
    state = tmp_path / "state"
    state.write_bytes(tensors.dump(WEIGHTS))
    features = stored.pack(np.zeros((1, 6), np.float32), ["cat"], ["cat", "dog", "owl"])
    looks = reference.pack(reference.make(np.zeros((4, 6), np.float32), np.full((4, 3), 1 / 3)))
    known = seen.pack([seen.of_class("owl", [b"1" * 32])])
    tried = sample.pack(sample_factories.make(WEIGHTS["weight"], WEIGHTS["bias"]))
    all_graphs = make_spec(spec_version=3, int8=MEASURED, fp16=MEASURED)
    second = dict.fromkeys(SECOND, backbone)
    parts = {"features": features, "seen": known, "reference": looks, "sample": tried, "selected": SELECTED}
    write(folder, backbone, all_graphs, **parts, state=state, second=second)
    flip(folder / name)
    with pytest.raises(spec.BundleError, match=f"{name} has another content"):
        bundle.verify(folder)
    with (folder / name).open("ab") as file:
        file.write(b"x")
    with pytest.raises(spec.BundleError, match=f"{name} has .* bytes instead of"):
        bundle.verify(folder)
    (folder / name).unlink()
    with pytest.raises(spec.BundleError, match=f"{name} is missing"):
        bundle.verify(folder)


def test_verification_looks_at_shared_files_that_it_is_given(tmp_path, backbone):
    write(tmp_path / "b", bundle.entry(backbone, key="k"))
    flip(backbone)
    with pytest.raises(spec.BundleError, match=r"backbone\.onnx has another content"):
        bundle.verify(tmp_path / "b", {"backbone.onnx": backbone})


def test_verification_names_all_problems_at_once(tmp_path, backbone):
    folder = tmp_path / "b"
    write(folder, backbone)
    (folder / "head.onnx").unlink()
    flip(folder / "README.md")
    (folder / "stranger").write_text("")
    with pytest.raises(spec.BundleError, match=r"stranger does not belong.*head\.onnx is missing.*README\.md has"):
        bundle.verify(folder)


def test_a_spec_must_list_every_file(tmp_path, backbone):
    folder = tmp_path / "b"
    written = write(folder, backbone)
    fewer = {name: item for name, item in written.files.items() if name != "head.onnx"}
    (folder / "spec.json").write_bytes(spec.dump(written.model_copy(update={"files": fewer})))
    with pytest.raises(spec.BundleError, match=r"head\.onnx is not listed"):
        bundle.verify(folder)


def test_an_unfinished_bundle_has_no_spec(tmp_path, backbone):
    folder = tmp_path / "b"
    with pytest.raises(ValueError, match="Out of range float"):
        write(folder, backbone, report={"metrics": {"ece": float("nan")}})
    with pytest.raises(spec.BundleError, match="not finished"):
        bundle.verify(folder)


def test_a_shared_backbone_needs_a_key(tmp_path, backbone):
    with pytest.raises(ValueError, match="expected a storage key"):
        write(tmp_path / "b", bundle.entry(backbone))
    assert not (tmp_path / "b").exists()


def test_importing_these_modules_loads_no_heavy_library():
    import subprocess

    code = (
        "import sys, app.artifact.bundle, app.artifact.card, app.serving.pool, app.serving.engine, app.serving.parity;"
        "print([name for name in ('onnx', 'onnxruntime', 'pyarrow', 'torch', 'pandas') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
