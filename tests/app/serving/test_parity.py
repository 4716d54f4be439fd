import math

import numpy as np
import pytest

from app.artifact import heads
from app.serving import parity
from app.serving.runtime import Runtime, Session
from tests.app.onnx_factories import backbone_bytes, backbone_reference, images, softmax

WEIGHT = np.random.default_rng(5).normal(size=(3, 6))


@pytest.fixture
def model():
    return Runtime(Session(backbone_bytes()), Session(heads.linear(WEIGHT, np.zeros(3))))


def test_the_trained_model_and_its_graph_agree(model):
    pixels = images(20)
    found = parity.compare(model, pixels, softmax(backbone_reference(pixels) @ WEIGHT.T), 1e-5)
    assert found.ok
    assert (found.num_samples, found.tolerance) == (20, 1e-5)
    assert 0 < found.max_abs < 1e-5


def test_one_wrong_probability_is_found(model):
    pixels = images(20)
    expected = softmax(backbone_reference(pixels) @ WEIGHT.T)
    expected[18, 2] += 0.01
    found = parity.compare(model, pixels, expected, 1e-3)
    assert not found.ok
    assert found.max_abs == pytest.approx(0.01, abs=1e-5)


def test_what_is_not_a_number_is_not_parity(model):
    found = parity.compare(model, images(2), np.full((2, 3), np.nan), 1e9)
    assert math.isnan(found.max_abs)
    assert not found.ok


def test_other_shapes_are_refused(model):
    with pytest.raises(ValueError, match=r"\(2, 4\); found \(2, 3\)"):
        parity.compare(model, images(2), np.zeros((2, 4)), 1e-3)
