"""Views of training images, gathered as training comes to need them."""

import time
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from tests import factories
from tests.worker import transfer_factories
from tests.worker.transfer_factories import Wire
from worker.backbones import features
from worker.contract.task import Task
from worker.training import inputs
from worker.training.augment import CachedView
from worker.training.views import Views

NUM_VIEWS = 3


@pytest.fixture
def task(tmp_path: Path) -> Task:
    archive = tmp_path / "shades.zip"
    archive.write_bytes(factories.pack(factories.pictures(12)))
    transfer_factories.store(transfer_factories.context(tmp_path, Wire(), "ingest"), archive)
    return transfer_factories.task(transfer_factories.context(tmp_path, Wire(), "one"), transfer_factories.cnn())


@pytest.fixture
def augmented(task: Task) -> list[CachedView]:
    shape = inputs.without_margin(task.backbone.preprocess)
    return [CachedView(number, shape, flip=True) for number in range(1, NUM_VIEWS)]


@pytest.fixture
def views(task: Task, augmented: list[CachedView]) -> Views:
    return Views(task.context, task.index, task.pool, task.backbone, augmented)


def leaving(task: Task, after: int) -> Task:
    """The same, asked to leave at the n-th question: one is asked after the first batch of two."""
    asked = count(1)
    leaves: Callable[[], bool] = lambda: next(asked) >= after  # noqa: E731
    return replace(task, context=replace(task.context, leaves=leaves))


def test_what_was_asked_for_is_there_first_and_nothing_is_extracted_twice(task, augmented, views) -> None:
    items, draws = np.array([5, 0, 3]), np.array([0, 1, 4], np.uint64)
    views.gather_some(items, draws)
    views.gather_some(items, draws)
    assert sum(one.num_extracted for one in views.extractions) == 3
    early = views.take(items, draws).numpy()
    views.gather_all(None)
    assert np.array_equal(views.take(items, draws).numpy(), early)
    num_images = len(set(task.index.sha256[task.pool].tolist()))
    assert sum(one.num_extracted for one in views.extractions) == NUM_VIEWS * num_images
    every = np.arange(len(task.pool))
    for number, view in enumerate([None, *augmented]):
        wanted, _ = inputs.activations(task.context, task.index, task.pool, task.backbone, view, ("", 0, 1))
        found = views.take(every, np.full(len(every), number, np.uint64)).numpy()
        assert np.array_equal(found, wanted.astype(np.float32))


def test_views_are_given_up_where_the_time_is_short_and_the_plain_one_never(task, views) -> None:
    views.gather_all(time.monotonic() - 1)
    assert len(views) == 1
    assert any(f"1 of {NUM_VIEWS} views fit the time" in message for message in task.context.reporter._out.messages())
    every = np.arange(len(task.pool))
    plain = views.take(every, None).numpy()
    assert np.array_equal(views.take(every, np.full(len(every), 7, np.uint64)).numpy(), plain)


@pytest.mark.parametrize(("after", "left"), [(1, 0), (2, 1), (3, 2)])
def test_whoever_leaves_has_whole_views_or_none(task, augmented, after: int, left: int) -> None:
    asked = leaving(task, after)
    views = Views(asked.context, task.index, task.pool, task.backbone, augmented)
    if not left:
        with pytest.raises(features.Left):
            views.gather_all(None)
    else:
        views.gather_all(None)
        assert len(views) == left
