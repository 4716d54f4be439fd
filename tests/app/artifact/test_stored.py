import numpy as np

from app.artifact import stored, tensors


def test_items_come_back_with_their_labels_and_rows(tmp_path):
    features = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    path = tmp_path / "features.safetensors"
    path.write_bytes(tensors.dump(stored.pack(features, ["b", "a", "gone", "b", "a"], ["a", "b"])))
    found, labels, rows = stored.unpack(tensors.load(path))
    np.testing.assert_allclose(found, features[[0, 1, 3, 4]], rtol=1e-3)
    assert found.dtype == np.float32
    assert (list(labels), list(rows)) == ([1, 0, 1, 0], [0, 1, 3, 4])


def test_of_many_items_each_class_keeps_its_share():
    labels = np.random.default_rng(1).permutation(np.repeat([0, 1, 2], [6000, 1500, 500]))
    rows = stored.spread(labels, 800)
    assert len(np.unique(rows)) == len(rows) == 800
    assert (np.diff(rows) > 0).all()
    assert list(np.bincount(labels[rows])) == [600, 150, 50]
    packed = stored.pack(np.zeros((8000, 2), np.float32), [str(label) for label in labels], ["0", "1", "2"])
    assert packed["features"].shape == (stored.MAX_ITEMS, 2)


def test_numbers_that_half_precision_does_not_hold_are_kept_whole():
    features = np.array([[1.0, 70000.0]], np.float32)
    assert stored.pack(features, ["a"], ["a"])["features"].dtype == np.float32
    assert stored.pack(features / 2, ["a"], ["a"])["features"].dtype == np.float16


def test_nothing_is_stored_of_nothing():
    found, labels, rows = stored.unpack(stored.pack(np.empty((0, 4), np.float32), [], ["a"]))
    assert (found.shape, len(labels), len(rows)) == ((0, 4), 0, 0)
