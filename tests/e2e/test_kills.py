"""kill -9 of the worker in mid-work: one result, no trace of the first attempt."""

import json

import pytest

from tests import factories, processes
from tests.conftest import wait_until

pytestmark = pytest.mark.server


def kill_worker(service, job_id):
    """Kills the Celery process while it supervises the job; returns once its runner has ended."""
    runner = processes.runner(service.home, job_id)
    worker = runner.parent().parent()
    assert any("celery" in part for part in worker.cmdline())
    worker.kill()
    processes.wait_for_end([worker, runner])


def test_killed_worker_gives_one_result(up, tmp_path):
    service = up(lease_seconds=1)
    client = service.client
    archive = tmp_path / "colours.zip"
    archive.write_bytes(factories.pack(factories.pictures(12)))
    made = client.upload_dataset(archive, "colours")
    kill_worker(service, made["job_id"])
    dataset = client.wait_dataset(made["id"])
    assert dataset["state"] == "ready", dataset["failure"]
    assert client.job(made["job_id"])["attempt"] == 2
    started = client.start_transfer(
        dataset["id"], "colours", backbone=factories.BACKBONE, recipe={"method": "linear_probe"}
    )
    kill_worker(service, started["id"])
    job = client.wait_job(started["id"])
    assert (job["state"], job["attempt"]) == ("succeeded", 2), job["failure"]
    states = [
        (event.data["message"], event.data["data"].get("state"))
        for event in client.events(job["id"])
        if event.type == "state"
    ]
    assert [state for _, state in states if state] == ["running", "queued", "running", "succeeded"], states
    assert "fell silent" in states[2][0]
    assert [row["version"] for row in client.model("colours")["versions"]] == [1]
    bundles = service.home / "storage" / "bundles" / "default" / job["id"]
    assert [path.name for path in bundles.iterdir()] == ["attempt-2"]
    assert json.loads((bundles / "attempt-2" / "spec.json").read_text())["recipe"] == {"method": "linear_probe"}
    wait_until(lambda: not service.runners(), "no orphan")
    wait_until(lambda: not list((service.home / "scratch").iterdir()), "no folder of a killed attempt")
    # One worker: the dead one's place was taken, not doubled.
    assert len({found.parent().pid for found in processes.named(service.home, "celery")} & {service.process.pid}) == 1
