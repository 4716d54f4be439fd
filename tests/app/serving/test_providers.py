"""What a GPU is asked for, as far as a machine without one can show it."""

import numpy as np
import onnxruntime
import pytest

from app.artifact.spec import BundleError
from app.serving import providers
from app.serving.runtime import BATCH_SIZE, Session
from tests.app.onnx_factories import backbone_bytes, backbone_reference, images

BOTH = ["CUDAExecutionProvider", "CPUExecutionProvider"]


@pytest.mark.parametrize(
    ("wanted", "available", "device"),
    [
        ("auto", BOTH, "cuda"),
        ("cuda", BOTH, "cuda"),
        ("cpu", BOTH, "cpu"),
        ("auto", BOTH[1:], "cpu"),
        ("cpu", [], "cpu"),
    ],
)
def test_the_device(wanted, available, device, monkeypatch):
    monkeypatch.setattr(providers, "starts", lambda device: True)
    assert providers.chosen(wanted, available) == device


def test_a_gpu_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match=r"serve-gpu.*GRAFT_SERVE_DEVICE=cpu"):
        providers.chosen("cuda", BOTH[1:])
    assert providers.chosen("auto") == "cpu"


def test_both_packages_of_onnxruntime_are_told(tmp_path, monkeypatch, caplog):
    """What pip leaves behind where the extra was installed over the package for processors."""
    told = tmp_path / "onnxruntime_gpu-1.32.0.dist-info"
    told.mkdir()
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: onnxruntime-gpu\nVersion: 1.32.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert providers.chosen("cpu") == "cpu"
    assert not caplog.records
    assert providers.chosen("auto", BOTH[1:]) == "cpu"
    assert "found onnxruntime and onnxruntime-gpu" in caplog.text
    with pytest.raises(ValueError, match=r"found onnxruntime and onnxruntime-gpu.*docs/serving.md"):
        providers.chosen("cuda", BOTH)


def test_a_gpu_that_does_not_start(monkeypatch, caplog):
    """Its provider was built in, and the machine has no driver."""
    monkeypatch.setattr(providers, "starts", lambda device: False)
    assert providers.chosen("auto", BOTH) == "cpu"
    assert "does not start here" in caplog.text
    with pytest.raises(ValueError, match=r"to start; .*docs/serving.md.*GRAFT_SERVE_DEVICE=cpu"):
        providers.chosen("cuda", BOTH)


@pytest.mark.filterwarnings("ignore:Specified provider 'CUDAExecutionProvider' is not in available:UserWarning")
def test_a_start_is_tried(monkeypatch):
    loaded = []
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: loaded.append("preloaded"))
    assert providers.starts("cpu")
    assert loaded == []
    assert not providers.starts("cuda")
    assert loaded == ["preloaded"]


def test_a_start_that_fails_is_no_start(monkeypatch):
    def fails(*arguments, **options):
        raise RuntimeError("no CUDA-capable device is detected")

    monkeypatch.setattr(onnxruntime, "InferenceSession", fails)
    assert not providers.starts("cpu")


def test_options():
    assert providers.of("cpu") == ["CPUExecutionProvider"]
    (name, options), rest = providers.of("cuda")
    assert (name, options["cudnn_conv_algo_search"], options["use_tf32"]) == (BOTH[0], "HEURISTIC", "0")
    assert rest == BOTH[1]
    assert providers.sizes("cpu") == (1,)
    assert providers.sizes("cuda")[-1] == BATCH_SIZE


@pytest.mark.parametrize(("num", "size"), [(1, 1), (2, 2), (3, 4), (5, 8), (9, 16), (16, 16)])
def test_batches_are_filled_up(num, size):
    found = providers.filled(images(num))
    assert (len(found), found.dtype) == (size, np.uint8)
    np.testing.assert_array_equal(found[:num], images(num))
    assert not found[num:].any()


def test_a_larger_batch_has_no_size():
    with pytest.raises(ValueError, match="at most 16; found 17"):
        providers.filled(images(17))


@pytest.mark.parametrize("num", [1, 3, 16, 21])
def test_bound_runs_give_what_others_give(num):
    session = Session(backbone_bytes(), 1, bound=True)
    np.testing.assert_allclose(session.run(images(num))[0], backbone_reference(images(num)), atol=1e-5)


@pytest.mark.filterwarnings("ignore:Specified provider 'CUDAExecutionProvider' is not in available:UserWarning")
def test_a_session_that_falls_back_is_refused():
    with pytest.raises(BundleError, match="expected a session on cuda; found CPUExecutionProvider"):
        Session(backbone_bytes(), 1, "cuda")
