"""What tests of batch prediction share: a service with a probe, and a job that is killed in mid-work."""

import os
import signal

import pytest

from tests import factories, processes
from tests.conftest import wait_until
from worker.predict import CHUNK_ROWS

# Enough behind the first chunk for the kill to come before the end.
NUM_IMAGES = CHUNK_ROWS + 1200
NUM_SHOWN = 40


def with_probe(up, folder):
    """A service with one worker slot, and the dataset that its model `colours` has learned from."""
    factories.prepared(folder / "prepared")
    service = up(worker_slots=1, prepared=folder / "prepared", compute_threads=1)
    colours = stored(service.client, folder, "colours", factories.pictures(8))
    recipe = {"method": "linear_probe"}
    trained = service.client.start_transfer(colours, "colours", backbone=factories.BACKBONE, recipe=recipe)
    assert service.client.wait_job(trained["id"])["state"] == "succeeded"
    return service, colours


def stored(client, folder, name, files):
    """The id of a ready dataset of those files."""
    made = client.wait_dataset(client.upload_dataset(packed(folder, name, files), name)["id"])
    assert made["state"] == "ready", made["failure"]
    return made["id"]


def packed(folder, name, files):
    """A zip of those files."""
    archive = folder / f"{name}.zip"
    archive.write_bytes(factories.pack(files))
    return archive


def many_pictures(prefix=""):
    """So many that a job of them has several chunks, by their names."""
    return {
        f"{prefix}{number:05d}.png": factories.png(
            ((37 * number) % 256, (91 * number) % 256, number % 256), number, size=10
        )
        for number in range(NUM_IMAGES)
    }


def killed_in_mid_work(client, home, job_id, num_failed):
    """The job once it has succeeded, in a second attempt that went on behind the first chunk."""
    runner = processes.runner(home, job_id)
    chunks = home / "storage" / "checkpoints" / "default" / job_id / "predictions"
    wait_until(lambda: list(chunks.glob("0*.parquet")), "a first chunk")
    os.kill(runner.pid, signal.SIGKILL)
    job = client.wait_job(job_id)
    assert (job["state"], job["attempt"]) == ("succeeded", 2), job["failure"]
    expected = {"num_samples": NUM_IMAGES, "num_asked": NUM_IMAGES, "num_failed": num_failed}
    assert job["metrics"].items() >= expected.items()
    log = [event.data["message"] for event in client.events(job_id) if event.id]
    assert any(line.startswith(f"resumed from step {CHUNK_ROWS}:") for line in log), log
    return job


def around_the_seam(rows):
    """Rows of both attempts: the first, and those on both sides of the first chunk's end."""
    return [*rows[:NUM_SHOWN], *rows[CHUNK_ROWS - NUM_SHOWN : CHUNK_ROWS + NUM_SHOWN]]


def check_as_predicted(rows, predictions):
    """Each row says what `predict` says of its image."""
    for row, said in zip(rows, predictions, strict=True):
        assert [one["label"] for one in row["scores"]] == [one["label"] for one in said["scores"]]
        assert [one["score"] for one in row["scores"]] == pytest.approx(
            [one["score"] for one in said["scores"]], abs=1e-4
        )
        assert (row["predicted"], row["problem"]) == (said["label"], None)
