from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from app.artifact import decoding, preprocess
from tests import factories
from tests.worker import transfer_factories
from tests.worker.transfer_factories import Wire
from worker.backbones import features
from worker.contract.task import Task
from worker.training import inputs
from worker.training.augment import CachedView
from worker.training.inputs import ArraySource, ImageSource


@pytest.fixture
def task(tmp_path: Path) -> Task:
    archive = tmp_path / "colours.zip"
    archive.write_bytes(factories.pack(factories.pictures(8)))
    context = transfer_factories.context(tmp_path, Wire())
    transfer_factories.store(context, archive)
    return transfer_factories.task(context, transfer_factories.cnn())


def test_a_draw_picks_a_view_and_none_the_plain_one() -> None:
    views = np.arange(3 * 4 * 2, dtype=np.float16).reshape(3, 4, 2)
    source = ArraySource(views)
    items = np.array([2, 0, 3])
    np.testing.assert_array_equal(source.take(items, None).numpy(), views[0, items])
    found = source.take(items, np.array([0, 4, 8], np.uint64)).numpy()
    np.testing.assert_array_equal(found, [views[0, 2], views[1, 0], views[2, 3]])
    assert found.dtype == np.float32


def test_decoded_images_keep_the_order_of_rows_and_equal_what_serving_sees(task: Task) -> None:
    shape = task.backbone.preprocess
    rows = np.random.default_rng(0).permutation(task.pool)
    images = inputs.decode_all(task.context, task.index, rows, shape, ("decode", 0.0, 1.0))
    assert images.shape == (len(rows), shape.resize, shape.resize, 3)
    with ThreadPoolExecutor(2) as threads:
        found = ImageSource(images, shape, True, threads).take(np.arange(len(rows)), None).numpy()
    for batch_rows, pixels in features.decoded(task.context, task.index, rows, shape):
        for row, wanted in zip(batch_rows, pixels, strict=True):
            here = found[np.flatnonzero(rows == row)[0]]
            difference = np.abs(here.astype(int) - wanted)
            # The border's pixels are mixed from other neighbours when the crop comes first.
            assert difference[4:-4, 4:-4].max() <= 3
            assert difference.mean() < 0.1


def test_augmented_images_are_decided_by_their_draws(task: Task) -> None:
    shape = task.backbone.preprocess
    images = inputs.decode_all(task.context, task.index, task.pool[:4], shape, ("decode", 0.0, 1.0))
    draws = np.arange(4, dtype=np.uint64)
    with ThreadPoolExecutor(2) as threads:
        source = ImageSource(images, shape, True, threads)
        first, again = source.take(np.arange(4), draws), source.take(np.arange(4), draws)
        other = source.take(np.arange(4), draws + np.uint64(1))
    assert (first == again).all()
    assert (first != other).any()
    assert tuple(first.shape) == (4, shape.height, shape.width, 3)


def test_too_many_images_for_memory_go_to_a_file(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    shape, stage = task.backbone.preprocess, ("decode", 0.0, 1.0)
    wanted = inputs.decode_all(task.context, task.index, task.pool, shape, stage)
    monkeypatch.setattr(inputs, "IMAGE_BYTES", 1000)
    found = inputs.decode_all(task.context, task.index, task.pool, shape, stage)
    assert isinstance(found, np.memmap)
    np.testing.assert_array_equal(found, wanted)


def test_views_fit_a_number_of_bytes(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    assert task.backbone.activation_shape is not None
    size = 2 * int(np.prod(task.backbone.activation_shape))
    assert inputs.num_views(task.backbone, 100) == inputs.MAX_VIEWS
    monkeypatch.setattr(inputs, "ACTIVATION_BYTES", 250 * size)
    assert [inputs.num_views(task.backbone, num) for num in (1, 100, 250, 251)] == [4, 2, 1, 0]


@pytest.mark.parametrize("flip", [None, False, True])
def test_activations_are_the_prefixs_and_cached_by_content(task: Task, flip: bool | None) -> None:
    backbone = task.backbone
    assert backbone.prefix is not None
    view = None if flip is None else CachedView(1, inputs.without_margin(backbone.preprocess), flip)
    rows = task.pool[::-1][:7]
    found, first = inputs.activations(task.context, task.index, rows, backbone, view, ("activations", 0.0, 1.0))
    again, second = inputs.activations(task.context, task.index, rows, backbone, view, ("activations", 0.0, 1.0))
    assert (first.num_extracted, second.num_extracted, second.num_cached) == (7, 0, 7)
    np.testing.assert_array_equal(found, again)
    run = features.graph_extractor(backbone.prefix, 2)
    prefix = "datasets/default/ds_1"
    encoded = dict(features.iter_images(task.index, rows, lambda name: task.context.storage.fetch(f"{prefix}/{name}")))
    for row, activation in zip(rows.tolist(), found, strict=True):
        image = decoding.decode(encoded[row])
        shape = backbone.preprocess
        if view is not None:
            image, shape = view(image, task.index.sha256[row].decode()), view.shape
        wanted = run(preprocess.apply(image, shape)[None])[0]
        np.testing.assert_allclose(activation, wanted, atol=2e-3 * np.abs(wanted).max())
