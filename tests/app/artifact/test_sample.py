"""The pictures that a version is tried on: small, without metadata, and what is no sample is refused."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from app.artifact import preprocess, sample, tensors
from app.artifact.precisions import SECOND
from tests.app import onnx_factories, sample_factories

SHAPE = onnx_factories.preprocess(side=224, resize=256)


def noise(width, height):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize(("size", "side"), [((40, 30), 30), ((600, 2000), 512), ((4000, 3000), 512)])
def test_a_copy_is_the_middle_at_twice_the_size_of_the_model_at_most(size, side):
    gradient = Image.linear_gradient("L").resize(size).convert("RGB")
    found = Image.open(io.BytesIO(sample.copy(gradient, SHAPE)))
    assert (found.format, found.size) == ("JPEG", (side, side))


def test_a_copy_is_small_whatever_is_on_it_and_has_no_metadata():
    image = noise(2000, 2000)
    exif = Image.Exif()
    exif[0x010E] = "somebody's garden"
    image.info["exif"] = exif.tobytes()
    data = sample.copy(image, SHAPE)
    assert len(data) <= sample.MAX_PICTURE_BYTES
    assert not Image.open(io.BytesIO(data)).getexif()
    assert b"garden" not in data
    assert preprocess.load(data, SHAPE).shape == (224, 224, 3)


def test_packed_and_unpacked():
    made = sample_factories.make(np.ones((3, 6)), np.arange(3))
    found = sample.unpack(tensors.loads(tensors.dump(sample.pack(made)), "sample.safetensors"), 6, 3)
    assert (found.pictures, found.training) == (made.pictures, True)
    np.testing.assert_array_equal(found.said.features_KD, made.said.features_KD)
    np.testing.assert_array_equal(found.said.scores_KC, made.said.scores_KC)
    assert found.second == {}


@pytest.mark.parametrize("second", [SECOND[:1], SECOND[1:], SECOND])
def test_features_of_other_graphs_come_along_by_their_precision(second):
    made = sample_factories.make(np.ones((3, 6)), np.arange(3))
    features = {name: np.float32(place + made.said.features_KD) for place, name in enumerate(second)}
    packed = sample.pack(replace(made, second=features))
    found = sample.unpack(tensors.loads(tensors.dump(packed), "sample.safetensors"), 6, 3)
    assert tuple(found.second) == second
    for name in second:
        np.testing.assert_array_equal(found.second[name], features[name])
        with pytest.raises(ValueError, match=f"expected '{name}_features'"):
            sample.unpack({**packed, f"{name}_features": np.zeros((2, 7), np.float32)}, 6, 3)


def test_one_of_a_newer_graft_is_no_sample():
    assert sample.unpack({"version": np.array(sample.VERSION + 1)}, 6, 3) is None


@pytest.mark.parametrize(
    "change",
    [
        {"lengths": np.array([], np.int64)},
        {"lengths": np.array([1, 1, 1])},
        {"lengths": np.array([-1, 5])},
        {"lengths": np.array([1, sample.MAX_PICTURE_BYTES + 1])},
        {"pictures": np.zeros(3, np.uint8)},
        {"features": np.zeros((2, 7), np.float32)},
        {"scores": np.zeros((2, 4), np.float32)},
        {"scores": np.zeros((2, 3))},
        {"training": np.zeros(2, np.bool_)},
    ],
)
def test_what_does_not_fit_is_refused(change):
    arrays = sample.pack(sample_factories.make(np.ones((3, 6)), np.zeros(3)))
    with pytest.raises(ValueError, match="expected"):
        sample.unpack({**arrays, **change}, 6, 3)
