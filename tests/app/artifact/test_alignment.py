"""Alignments as graphs: they say what numpy says, in onnxruntime."""

import numpy as np
import pytest

from app.artifact import alignment
from tests.app import onnx_factories

RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(7, 4)).astype(np.float32)


@pytest.mark.parametrize("alpha", [RNG.normal(size=4), RNG.normal(size=(4, 4)), RNG.normal(size=(4, 6))])
def test_graph_is_the_affine_map(alpha):
    offset = RNG.normal(size=alpha.shape[-1])
    found = onnx_factories.run(alignment.affine(alpha, offset), features=ROWS)["aligned"]
    expected = np.array([[row[i] * alpha[i] for i in range(4)] if alpha.ndim == 1 else row @ alpha for row in ROWS])
    np.testing.assert_allclose(found, expected + offset, rtol=1e-5, atol=1e-5)


def test_equal_maps_give_equal_bytes():
    assert alignment.affine(np.ones(3), np.zeros(3)) == alignment.affine(np.ones(3), np.zeros(3))


@pytest.mark.parametrize(
    ("alpha", "offset", "words"),
    [(np.ones(3), np.ones(2), "offset"), (np.ones((1, 2, 3)), np.ones(3), "alpha"),
     (np.full(3, np.nan), np.ones(3), "finite"), (np.full(3, 1e300), np.ones(3), "finite")],
)  # fmt: skip
def test_what_is_no_map_is_refused(alpha, offset, words):
    with pytest.raises(ValueError, match=words):
        alignment.affine(alpha, offset)
