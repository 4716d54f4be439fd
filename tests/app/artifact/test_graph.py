import numpy as np
import onnx
import pytest

from app.artifact import graph, heads
from tests.app.onnx_factories import backbone_bytes, backbone_reference, head_reference, head_weights, images, run


@pytest.mark.parametrize(("opset", "ir_version"), [(18, 8), (18, 10), (20, 10), (23, 11)])
def test_a_composition_gives_what_its_parts_give_bit_for_bit(opset, ir_version):
    backbone, head, pixels = (
        backbone_bytes(opset=opset, ir_version=ir_version),
        heads.linear(**head_weights()),
        images(5),
    )
    composed = graph.compose(backbone, head)
    model = onnx.load_model_from_string(composed)
    onnx.checker.check_model(model, full_check=True)
    assert [item.name for item in model.graph.input] == ["images"]
    assert model.ir_version == ir_version
    features = run(backbone, images=pixels)["features"]
    found = run(composed, images=pixels)
    assert list(found) == ["probabilities", "features"]
    np.testing.assert_array_equal(found["features"], features)
    np.testing.assert_array_equal(found["probabilities"], run(head, features=features)["probabilities"])
    np.testing.assert_allclose(features, backbone_reference(pixels), atol=1e-6)
    np.testing.assert_allclose(
        found["probabilities"], head_reference(backbone_reference(pixels), **head_weights()), atol=1e-6
    )


def test_composition_is_byte_deterministic_and_leaves_the_file_alone(tmp_path):
    path = tmp_path / "backbone.onnx"
    path.write_bytes(backbone_bytes())
    made = [heads.linear(**head_weights()) for _ in range(2)]
    assert made[0] == made[1]
    assert graph.compose(path, made[0]) == graph.compose(path.read_bytes(), made[1])
    assert path.read_bytes() == backbone_bytes()


def test_composition_wants_features_of_the_heads_width():
    head = heads.linear(**head_weights(num_features=6))
    with pytest.raises(ValueError, match="width 6; found 5"):
        graph.compose(backbone_bytes(num_features=5), head)
    with pytest.raises(ValueError, match="found None"):
        graph.compose(head, head)


def test_composition_wants_a_recent_opset():
    model = onnx.load_model_from_string(backbone_bytes())
    model.opset_import[0].version = 12
    with pytest.raises(ValueError, match="opset 13 or later; found 12"):
        graph.compose(model.SerializeToString(), heads.linear(**head_weights()))
