from pathlib import Path

import pytest
import torch

from app.storage import FolderStorage
from worker.training.checkpoint import Checkpoints, Snapshot


@pytest.fixture
def storage(tmp_path: Path) -> FolderStorage:
    return FolderStorage(tmp_path / "storage")


def opened(storage: FolderStorage, tmp_path: Path) -> Checkpoints:
    return Checkpoints(storage, "checkpoints/default/job_1/run", tmp_path)


def snapshot(step: int) -> Snapshot:
    tensors = {
        "now/weight": torch.full((2, 3), step / 3),
        "kernel": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
        "generator": torch.get_rng_state(),
        "step": torch.tensor(float(step)),
    }
    return Snapshot(step, tensors, {"loss": 0.1 + 0.2, "phase": "train", "curve": [{"epoch": 1}]})


def test_nothing_is_there_at_first(storage: FolderStorage, tmp_path: Path) -> None:
    checkpoints = opened(storage, tmp_path)
    assert checkpoints.read() is None
    assert checkpoints.is_empty


def test_what_was_written_comes_back_exactly(storage: FolderStorage, tmp_path: Path) -> None:
    written = snapshot(7)
    opened(storage, tmp_path).write(written)
    checkpoints = opened(storage, tmp_path)
    found = checkpoints.read()
    assert found is not None
    assert (found.step, found.facts) == (7, written.facts)
    assert set(found.tensors) == set(written.tensors)
    assert all(torch.equal(found.tensors[name], value) for name, value in written.tensors.items())
    assert not checkpoints.is_empty


def test_the_newest_counts_and_is_alone_and_goes_on_after_a_restart(storage: FolderStorage, tmp_path: Path) -> None:
    for attempt in range(3):
        checkpoints = opened(storage, tmp_path)
        checkpoints.read()
        for step in range(4):
            checkpoints.write(snapshot(10 * attempt + step))
        found = opened(storage, tmp_path).read()
        assert found is not None
        assert found.step == 10 * attempt + 3
        assert len(list(storage.list("checkpoints"))) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["storage"]


def test_an_attempt_that_never_read_does_not_hide_behind_an_older_one(storage: FolderStorage, tmp_path: Path) -> None:
    for step in range(4):
        opened(storage, tmp_path).write(snapshot(step))
        found = opened(storage, tmp_path).read()
        assert found is not None
        assert found.step == step


def test_a_short_run_writes_before_it_loses_much(storage: FolderStorage, tmp_path: Path) -> None:
    checkpoints = opened(storage, tmp_path)
    checkpoints.write(Snapshot(10, {}, {}))
    checkpoints._cost_seconds = 0.0
    assert checkpoints.is_due(20, 200)
    assert not checkpoints.is_due(11, 200)
    checkpoints._cost_seconds = 1000.0
    assert not checkpoints.is_due(199, 200)


class Overtaken(FolderStorage):
    """Between its list and its fetch another attempt writes a checkpoint, once."""

    other: Checkpoints | None = None

    def fetch(self, key: str) -> Path:
        other, self.other = self.other, None
        if other is not None:
            other.write(snapshot(9))
        return super().fetch(key)


def test_a_checkpoint_that_goes_while_it_is_read_has_a_successor(storage: FolderStorage, tmp_path: Path) -> None:
    opened(storage, tmp_path).write(snapshot(7))
    overtaken = Overtaken(tmp_path / "storage")
    overtaken.other = opened(storage, tmp_path)
    found = opened(overtaken, tmp_path).read()
    assert found is not None
    assert found.step == 9
