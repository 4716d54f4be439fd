"""Predictions over an upload by a job whose runner is killed in mid-work, on a real service."""

import os
import signal

import pyarrow.parquet as pq
import pytest

from app.client import ApiError
from tests import factories, processes
from tests.conftest import wait_until
from worker.predict import CHUNK_ROWS

pytestmark = pytest.mark.server

# Enough behind the first chunk for the kill to come before the end.
NUM_IMAGES = CHUNK_ROWS + 1200


def test_an_upload_is_predicted_once_and_nothing_else_is_left_of_it(up, home, tmp_path):
    factories.prepared(tmp_path / "prepared")
    service = up(worker_slots=1, prepared=tmp_path / "prepared", compute_threads=1)
    client = service.client
    archive = tmp_path / "colours.zip"
    archive.write_bytes(factories.pack(factories.pictures(8)))
    colours = client.wait_dataset(client.upload_dataset(archive, "colours")["id"])["id"]
    trained = client.start_transfer(colours, "colours", backbone=factories.BACKBONE, recipe={"method": "linear_probe"})
    assert client.wait_job(trained["id"])["state"] == "succeeded"

    plain = {
        f"shelf/{number:05d}.png": factories.png(
            ((37 * number) % 256, (91 * number) % 256, number % 256), number, size=10
        )
        for number in range(NUM_IMAGES)
    }
    plain["shelf/00007.png"] = plain[f"shelf/{CHUNK_ROWS + 9:05d}.png"] = b"no image"
    many = tmp_path / "many.zip"
    many.write_bytes(factories.pack(plain))
    upload = client.upload(many)
    asked = client.predict_upload(upload["id"], "colours", top_k=2)
    assert (asked["dataset"], asked["request"]["upload_id"]) == (None, upload["id"])
    with pytest.raises(ApiError, match="upload_used"):
        client.predict_upload(upload["id"], "colours")
    runner = processes.runner(home, asked["id"])
    chunks = home / "storage" / "checkpoints" / "default" / asked["id"] / "predictions"
    wait_until(lambda: list(chunks.glob("0*.parquet")), "a first chunk")
    os.kill(runner.pid, signal.SIGKILL)
    job = client.wait_job(asked["id"])
    assert (job["state"], job["attempt"]) == ("succeeded", 2), job["failure"]
    assert job["metrics"].items() >= {"num_samples": NUM_IMAGES, "num_asked": NUM_IMAGES, "num_failed": 2}.items()
    log = [event.data["message"] for event in client.events(job["id"]) if event.id]
    assert any(line.startswith(f"resumed from step {CHUNK_ROWS}:") for line in log), log

    rows = pq.read_table(client.download_predictions(job["id"], tmp_path / "found.parquet")).to_pylist()
    assert [row["path"] for row in rows] == list(plain)
    bad = {row["path"]: row["problem"]["code"] for row in rows if row["problem"]}
    assert bad == dict.fromkeys(("shelf/00007.png", f"shelf/{CHUNK_ROWS + 9:05d}.png"), "image_unreadable")
    # Of both attempts, on both sides of the seam.
    shown = [row for row in [*rows[:40], *rows[CHUNK_ROWS - 40 : CHUNK_ROWS + 40]] if not row["problem"]]
    answer = client.predict("colours", [plain[row["path"]] for row in shown], top_k=2)
    for row, said in zip(shown, answer["predictions"], strict=True):
        assert [one["label"] for one in row["scores"]] == [one["label"] for one in said["scores"]]
        assert [one["score"] for one in row["scores"]] == pytest.approx(
            [one["score"] for one in said["scores"]], abs=1e-4
        )
    # One dataset, that of the transfer; of the upload neither the archive nor the chunks, nor what was unpacked.
    assert [one["id"] for one in client.call("GET", "/datasets")["data"]] == [colours]
    wait_until(lambda: not [name for name in service.files() if upload["id"] in name], "the upload is gone")
    # What the killed attempt was working with goes with the sweep.
    wait_until(lambda: len([name for name in service.files() if job["id"] in name]) == 1, "only the result is left")
    (kept,) = [name for name in service.files() if job["id"] in name]
    assert kept.endswith(f"/{job['id']}/attempt-2/predictions.parquet")


def test_a_hostile_upload_fails_its_job_and_leaves_nothing(up, tmp_path):
    factories.prepared(tmp_path / "prepared")
    service = up(worker_slots=1, prepared=tmp_path / "prepared", compute_threads=1)
    client = service.client
    archive = tmp_path / "colours.zip"
    archive.write_bytes(factories.pack(factories.pictures(8)))
    colours = client.wait_dataset(client.upload_dataset(archive, "colours")["id"])["id"]
    trained = client.start_transfer(colours, "colours", backbone=factories.BACKBONE, recipe={"method": "linear_probe"})
    assert client.wait_job(trained["id"])["state"] == "succeeded"
    archive.write_bytes(factories.pack({"a.png": factories.png(), "../../b.png": factories.png()}))
    upload = client.upload(archive)
    job = client.wait_job(client.predict_upload(upload["id"], "colours")["id"])
    assert (job["state"], job["failure"]["code"]) == ("failed", "dataset_invalid")
    assert "inside the archive" in job["failure"]["message"]
    wait_until(lambda: not [name for name in service.files() if upload["id"] in name], "the upload is gone")
    with pytest.raises(ApiError, match="not_retryable"):
        client.call("POST", f"/jobs/{job['id']}/retry")
