import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from app import cores
from app.artifact import heads
from app.artifact.precisions import FP16, INT8
from app.artifact.spec import BundleError
from app.serving.runtime import Runtime, Session
from app.settings import Settings
from tests.app.onnx_factories import backbone_bytes, backbone_reference, images, softmax

WEIGHT = np.random.default_rng(5).normal(size=(3, 6))
BIAS = np.array([0.1, -0.2, 0.3])


@pytest.fixture
def model():
    return Runtime(Session(backbone_bytes(), threads=1), Session(heads.linear(WEIGHT, BIAS, 0.7), threads=1))


@pytest.mark.parametrize("num", [1, 3, 15, 16, 17, 32, 50])
def test_batches_of_any_size_agree_with_the_reference(model, num):
    pixels = images(num)
    found = model.run(pixels)
    features = backbone_reference(pixels)
    np.testing.assert_allclose(found.features, features, atol=1e-6)
    np.testing.assert_allclose(found.probabilities, softmax((features @ WEIGHT.T + BIAS) / 0.7), atol=1e-6)
    assert found.features.dtype == found.probabilities.dtype == np.float32


def test_chunks_are_of_sixteen():
    seen = []

    class Recording:
        def __init__(self, session):
            self.session = session

        def run(self, names, feeds, options):
            seen.append(len(feeds["images"]))
            return self.session.run(names, feeds, options)

    session = Session(backbone_bytes())
    session._session = Recording(session._session)
    session.run(images(50))
    assert seen == [16, 16, 16, 2]


def test_images_in_any_memory_layout(model):
    pixels = images(4)
    turned = np.asfortranarray(pixels)
    np.testing.assert_array_equal(model.run(turned).probabilities, model.run(pixels).probabilities)
    np.testing.assert_array_equal(model.run(images(8)[::2]).features, model.run(images(8)[::2].copy()).features)


def test_a_file_and_its_bytes_are_the_same_session(tmp_path):
    path = tmp_path / "b.onnx"
    path.write_bytes(backbone_bytes())
    from_file, from_bytes = Session(path), Session(backbone_bytes())
    np.testing.assert_array_equal(from_file.run(images(2))[0], from_bytes.run(images(2))[0])
    assert from_file.size_bytes == from_bytes.size_bytes >= path.stat().st_size
    assert (from_file.input_name, from_file.output_names) == ("images", ("features",))


def test_pixels_count_for_the_largest_batch_so_far():
    small, large = Session(backbone_bytes(side=8)), Session(backbone_bytes(side=32))
    for number, counted in ((0, 0), (1, 1), (5, 5), (2, 5), (40, 16)):
        for session in (small, large) if number else ():
            session.run(images(number, side=session.input_shape[1]))
        difference = large.size_bytes - small.size_bytes
        assert difference == pytest.approx(counted * 274 * (32 * 32 - 8 * 8), abs=64)


class Gated:
    """An onnxruntime session whose runs wait until they are let through; it notes what they were told to give back."""

    def __init__(self, session):
        self.session, self.inside, self.gate = session, threading.Semaphore(0), threading.Semaphore(0)
        self.trims = []

    def run(self, names, feeds, options):
        self.trims.append(options is not None)
        self.inside.release()
        assert self.gate.acquire(timeout=30)
        return self.session.run(names, feeds)


def test_images_that_run_side_by_side_count_together():
    session = Session(backbone_bytes(side=32), threads=1)
    session._session = gated = Gated(session._session)
    empty, image = session.size_bytes, 274 * 32 * 32
    with ThreadPoolExecutor(3) as executor:
        runs = [executor.submit(session.run, images(number, side=32)) for number in (4, 5, 6)]
        for _ in runs:
            assert gated.inside.acquire(timeout=30)
        assert session.size_bytes == empty + 15 * image
        assert session.size_with(2) == empty + 17 * image
        gated.gate.release(3)
        for run in runs:
            run.result(30)
        # An arena gives nothing back by itself, so three small ones fit into what it holds.
        assert session.size_bytes == session.size_with(3) == empty + 15 * image
        assert session.size_with(100) == empty + 16 * image


def test_a_session_that_is_told_to_gives_back_what_it_does_not_need():
    session = Session(backbone_bytes(side=32), threads=1)
    session.run(images(16, side=32))
    empty, image = Session(backbone_bytes(side=32)).size_bytes, 274 * 32 * 32
    session._session = gated = Gated(session._session)
    with ThreadPoolExecutor(2) as executor:
        under_way = executor.submit(session.run, images(3, side=32))
        assert gated.inside.acquire(timeout=30)
        session.trim()
        assert session.size_bytes == empty + 16 * image
        gated.gate.release()
        under_way.result(30)
        assert session.size_bytes == empty + 16 * image
        gated.gate.release(3)
        for number, held in ((2, 2), (4, 4), (1, 4)):
            session.run(images(number, side=32))
            assert session.size_bytes == empty + held * image
    assert gated.trims == [False, True, True, False]


HELD = """
import resource, sys
from pathlib import Path
import numpy as np
import onnxruntime
from app.serving.runtime import BATCH_SIZE, Session

def held():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

before = held()
session = Session(Path(sys.argv[1]), threads=1)
for number in (BATCH_SIZE, BATCH_SIZE, *range(1, BATCH_SIZE + 1)):
    session.run(np.zeros((number, *session.input_shape[1:]), np.uint8))
print((held() - before) / session.size_bytes)
"""
STARTERS = [path.parent.name for path in sorted(Settings().prepared.glob("*/backbone.onnx"))]


@pytest.mark.parametrize("digest", STARTERS)
def test_what_a_session_holds_is_what_is_counted(digest):
    """After batches of every size: what one of them takes is held from then on."""
    command = [sys.executable, "-c", HELD, str(Settings().prepared / digest / "backbone.onnx")]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
    assert float(said.stdout) == pytest.approx(1, abs=0.1)


def test_half_precision_counts_as_what_a_processor_makes_of_it():
    """float32 weights, twice, of a file of half their size, and casts between them."""
    data = backbone_bytes(side=32)
    plain, half = Session(data), Session(data, precision=FP16)
    for session in (plain, half):
        session.run(images(16, side=32))
    assert half.size_bytes - plain.size_bytes == 4 * len(data) + 16 * (368 - 274) * 32 * 32
    assert Session(data, precision=INT8).size_bytes == Session(data).size_bytes


def test_a_larger_graph_counts_as_larger():
    more = 1 << 20
    assert (
        Session(backbone_bytes(num_features=more // 16 + 6)).size_bytes >= Session(backbone_bytes()).size_bytes + more
    )


@pytest.mark.parametrize(
    "pixels",
    [
        images(2, side=9),
        images(2)[..., :2],
        images(2)[0],
        images(0),
        images(2).astype(np.float32),
        images(2).astype(np.int16),
    ],
)
def test_other_arrays_are_refused_before_they_run(model, pixels):
    with pytest.raises(ValueError, match="expected images"):
        model.run(pixels)


def test_features_of_another_width_are_refused():
    model = Runtime(Session(backbone_bytes(num_features=5)), Session(heads.linear(WEIGHT, BIAS)))
    with pytest.raises(ValueError, match="expected features of shape"):
        model.run(images(1))


@pytest.mark.parametrize("data", [b"", b"no graph"])
def test_bytes_that_are_no_graph_are_refused(tmp_path, data):
    path = tmp_path / "b.onnx"
    path.write_bytes(data)
    for source in (data, path):
        with pytest.raises(BundleError, match="expected a graph that onnxruntime loads"):
            Session(source)


def test_a_graph_with_an_unknown_operator_or_no_file_is_refused(tmp_path):
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 2]) for name in ("x", "y")]
    node = helper.make_node("Nothing", ["x"], ["y"], domain="evil.ops")
    made = helper.make_model(
        helper.make_graph([node], "g", values[:1], values[1:]),
        opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("evil.ops", 1)],
        ir_version=10,
    )
    with pytest.raises(BundleError, match=r"evil\.ops"):
        Session(made.SerializeToString())
    with pytest.raises(BundleError, match=r"gone\.onnx"):
        Session(tmp_path / "gone.onnx")


def test_a_graph_with_two_inputs_is_refused():
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 2]) for name in ("a", "b", "c")]
    made = helper.make_model(
        helper.make_graph([helper.make_node("Add", ["a", "b"], ["c"])], "g", values[:2], values[2:]),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    )
    with pytest.raises(BundleError, match=r"one input; found \['a', 'b'\]"):
        Session(made.SerializeToString())


def test_a_closed_session_says_so():
    session = Session(backbone_bytes())
    session.close()
    with pytest.raises(RuntimeError, match="found it closed"):
        session.run(images(1))


def test_threads_share_a_session(model):
    batches = [images(5, seed=seed) for seed in range(24)]
    alone = [model.run(batch).probabilities for batch in batches]
    with ThreadPoolExecutor(8) as executor:
        together = list(executor.map(lambda batch: model.run(batch).probabilities, batches))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


def test_every_core_is_used_unless_told():
    assert cores.usable() >= 1
    options = Session(backbone_bytes())._session.get_session_options()
    assert options.intra_op_num_threads == cores.usable()
    assert options.execution_mode == ort.ExecutionMode.ORT_SEQUENTIAL
    assert Session(backbone_bytes(), threads=1)._session.get_session_options().intra_op_num_threads == 1
