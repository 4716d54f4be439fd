"""What is refused when a bundle's files are opened, and what is compared."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from app import limited
from app.artifact import archive, bundle
from app.artifact.spec import load
from app.errors import BadRequest
from app.serving import admission
from app.storage import FolderStorage
from tests import factories
from tests.app import bundle_factories, onnx_factories
from tests.hostile import bundles as hostile


@pytest.fixture(scope="module")
def files(sqlite_template, tmp_path_factory):
    """A whole bundle."""
    from app.db.session import Database

    folder = tmp_path_factory.mktemp("made")
    storage = FolderStorage(folder / "storage")
    (folder / "graft.db").write_bytes(sqlite_template.read_bytes())
    database = Database(f"sqlite:///{folder / 'graft.db'}")
    with database.write() as session:
        of = factories.model(session, "tiny", 0)
        row = bundle_factories.publish(session, storage, folder / "work", of, 1, shared=False)
        prefix = row.prefix
    database.dispose()
    return {key.rpartition("/")[2]: storage.fetch(key).read_bytes() for key in storage.list(prefix)}


def judge(tmp_path, data):
    (tmp_path / "b.zip").write_bytes(data)
    folder = tmp_path / "unpacked"
    folder.mkdir()
    archive.unpack(tmp_path / "b.zip", folder, {bundle.SPEC, *bundle.FILES})
    return admission.judge(folder, load((folder / bundle.SPEC).read_bytes()))


def test_a_whole_bundle_is_compared_with_what_it_recorded(tmp_path, files):
    found = judge(tmp_path, bundle_factories.pack(files))
    assert (found.num_images, found.num_predictions) == (16, 6)
    assert found.head_max_abs < 1e-5
    assert found.predictions_mean_abs < 1e-3
    assert found.sample_max_abs < 1e-5


def ask(tmp_path, files, memory_bytes):
    """What the process of its own answers, within so much memory."""
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    return limited.ask("app.serving.admission_child", [str(tmp_path)], memory_bytes, 60)


@pytest.mark.parametrize(("num_mib", "fits"), [(300, True), (3_000, False)])
def test_what_finds_no_memory_is_too_costly_and_not_invalid(tmp_path, files, num_mib, fits):
    """What libraries reserve counts too: a gigabyte of Arrow's, where nobody writes, left a real graph no room."""
    assert bundle.SELECTION in files
    wide = onnx_factories.wide_backbone_bytes(num_mib * 2**20 // 16)
    found = ask(tmp_path, bundle_factories.replace(files, "backbone.onnx", wide), 1_300 * 2**20)
    assert found.get("num_images") == (16 if fits else None)
    assert found.get("code") == (None if fits else "import_too_costly")


def test_a_graph_that_costs_much_on_three_images_alone_is_too_costly(tmp_path, files):
    """A full batch does not show it, and whoever sends three images later would."""
    network = onnx.load_model_from_string(files["backbone.onnx"])
    network.graph.node.extend([
        helper.make_node("Shape", ["images"], ["shape"]),
        helper.make_node("Gather", ["shape", "first"], ["n"]),
        helper.make_node("Gather", ["table", "n"], ["size"]),
        helper.make_node("ConstantOfShape", ["size"], ["zeros"]),
        helper.make_node("ReduceMax", ["zeros"], ["zero"], keepdims=0),
        helper.make_node("Add", ["features", "zero"], ["same"]),
    ])  # fmt: skip
    table = np.where(np.arange(17) == 3, 2**33, 1).astype(np.int64)
    for name, array in {"first": np.array([0], np.int64), "table": table}.items():
        network.graph.initializer.append(numpy_helper.from_array(array, name))
    for node in network.graph.node:
        renamed = {"features": "plain", "same": "features"}
        for names in (node.input, node.output):
            names[:] = [renamed.get(one, one) for one in names]
    found = ask(tmp_path, bundle_factories.replace(files, "backbone.onnx", network.SerializeToString()), 1_300 * 2**20)
    assert found.get("code") == "import_too_costly", found


def test_without_stored_features_predictions_are_not_compared(tmp_path, files):
    import json

    listed = json.loads(files["spec.json"])["files"]
    del listed["features.safetensors"]
    fewer = bundle_factories.edit_spec(hostile.without(files, "features.safetensors"), files=listed)
    found = judge(tmp_path, bundle_factories.pack(fewer))
    assert (found.num_predictions, found.predictions_mean_abs) == (0, None)


@pytest.mark.parametrize("name", hostile.INSIDE)
def test_refused(tmp_path, files, name):
    make, code, words = hostile.INSIDE[name]
    with pytest.raises(BadRequest) as caught:
        judge(tmp_path, make(files))
    assert (caught.value.code, words in caught.value.detail) == (code, True), caught.value.detail
