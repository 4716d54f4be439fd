import numpy as np
import pytest

from worker.training.batches import Data, epoch_batches, epoch_order
from worker.training.inputs import ArraySource


def test_orders_are_permutations_that_epoch_and_seed_decide() -> None:
    first, draws = epoch_order(50, 1, 0)
    assert sorted(first.tolist()) == list(range(50))
    again, draws_again = epoch_order(50, 1, 0)
    assert (first == again).all()
    assert (draws == draws_again).all()
    for other in (epoch_order(50, 1, 1), epoch_order(50, 2, 0)):
        assert (first != other[0]).any()


@pytest.mark.parametrize("skip", [0, 1, 3])
@pytest.mark.parametrize(
    ("num", "is_training", "sizes"), [(10, False, [3, 3, 3, 1]), (10, True, [3, 3, 3]), (8, True, [3, 3, 2])]
)
def test_batches_follow_the_order_from_where_they_are_asked(
    num: int, is_training: bool, sizes: list[int], skip: int
) -> None:
    values = np.arange(num, dtype=np.float32)[None, :, None]
    order = epoch_order(num, 0, 0)
    found = list(
        epoch_batches(Data(ArraySource(values), np.arange(num)), 3, order, skip, "cpu", is_training=is_training)
    )
    assert [len(labels) for _, labels in found] == sizes[skip:]
    seen = [int(value) for inputs, _ in found for value in inputs[:, 0]]
    assert seen == order[0][3 * skip : sum(sizes)].tolist()
    assert all((inputs[:, 0].long() == labels).all() for inputs, labels in found)


def test_an_error_in_the_source_reaches_the_caller() -> None:
    data = Data(ArraySource(np.zeros((1, 4, 1), np.float32)), np.arange(8))
    with pytest.raises(IndexError):
        list(epoch_batches(data, 4, epoch_order(8, 0, 0), 0, "cpu", is_training=False))
