"""Thousands of images by a job whose runner is killed in mid-work: each is predicted once, as `predict` does it."""

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


def upload(client, folder, name, files):
    archive = folder / f"{name}.zip"
    archive.write_bytes(factories.pack(files))
    made = client.wait_dataset(client.upload_dataset(archive, name)["id"])
    assert made["state"] == "ready", made["failure"]
    return made["id"]


def test_a_killed_runner_leaves_neither_holes_nor_doubles(up, home, tmp_path):
    factories.prepared(tmp_path / "prepared")
    service = up(worker_slots=1, prepared=tmp_path / "prepared", compute_threads=1)
    client = service.client
    colours = upload(client, tmp_path, "colours", factories.pictures(8))
    plain = {
        f"{number:05d}.png": factories.png(((37 * number) % 256, (91 * number) % 256, number % 256), number, size=10)
        for number in range(NUM_IMAGES)
    }
    many = upload(client, tmp_path, "many", plain)
    trained = client.start_transfer(colours, "colours", backbone=factories.BACKBONE, recipe={"method": "linear_probe"})
    assert client.wait_job(trained["id"])["state"] == "succeeded"

    asked = client.predict_dataset(many, "colours", top_k=2)
    with pytest.raises(ApiError, match="predictions_not_ready"):
        client.download_predictions(asked["id"], tmp_path / "early.parquet")
    assert list(tmp_path.glob("early*")) == []
    runner = processes.runner(home, asked["id"])
    chunks = home / "storage" / "checkpoints" / "default" / asked["id"] / "predictions"
    wait_until(lambda: list(chunks.glob("0*.parquet")), "a first chunk")
    os.kill(runner.pid, signal.SIGKILL)
    job = client.wait_job(asked["id"])
    assert (job["state"], job["attempt"]) == ("succeeded", 2), job["failure"]
    assert job["metrics"].items() >= {"num_samples": NUM_IMAGES, "num_asked": NUM_IMAGES, "num_failed": 0}.items()
    log = [event.data["message"] for event in client.events(job["id"]) if event.id]
    assert any(line.startswith(f"resumed from step {CHUNK_ROWS}:") for line in log), log

    rows = pq.read_table(client.download_predictions(job["id"], tmp_path / "found.parquet")).to_pylist()
    assert len(rows) == len({row["id"] for row in rows}) == NUM_IMAGES
    order: list[str] = []
    more = True
    while more:
        params = {"limit": 1000, **({"after": order[-1]} if order else {})}
        page = client.call("GET", f"/datasets/{many}/samples", params=params)
        order += [row["id"] for row in page["data"]]
        more = page["has_more"]
    assert [row["id"] for row in rows] == order
    # Of both attempts, on both sides of the seam.
    shown = [*rows[:40], *rows[CHUNK_ROWS - 40 : CHUNK_ROWS + 40], *rows[-40:]]
    answer = client.predict(
        "colours", [plain[row["path"]] for row in shown], top_k=2, version=job["request"]["version"]
    )
    for row, said in zip(shown, answer["predictions"], strict=True):
        assert [one["label"] for one in row["scores"]] == [one["label"] for one in said["scores"]]
        assert [one["score"] for one in row["scores"]] == pytest.approx(
            [one["score"] for one in said["scores"]], abs=1e-4
        )
        assert (row["predicted"], row["problem"]) == (said["label"], None)
    wait_until(lambda: not any("/checkpoints/" in name for name in service.files()), "chunks are gone")
    kept = [name for name in service.files() if f"/{job['id']}/" in name]
    assert [name.partition(f"/{job['id']}/")[2] for name in kept] == ["attempt-2/predictions.parquet"]
