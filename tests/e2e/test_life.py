"""The whole life of a model, through real processes: upload, transfer, predict, stop."""

import os
import signal

import pytest

from tests import factories, processes
from tests.checks import problem
from tests.factories import files_below

pytestmark = pytest.mark.server
HELD_OUT = factories.pictures(4, first=100)


def live(client, folder, model="colours"):
    """From an upload to predictions; returns the job."""
    archive = folder / "colours.zip"
    archive.write_bytes(factories.pack(factories.pictures(12)))
    dataset = client.wait_dataset(client.upload_dataset(archive, "colours")["id"])
    assert dataset["state"] == "ready", dataset["failure"]
    started = client.start_transfer(
        dataset["id"], model, backbone=factories.BACKBONE, recipe={"method": "linear_probe"}
    )
    seen = []
    job = client.wait_job(started["id"], on_event=seen.append)
    assert job["state"] == "succeeded", job["failure"]
    assert [event.id for event in seen] == list(range(1, len(seen) + 1))
    assert job["model"] == {"name": model, "version": 1}
    answer = client.predict(model, list(HELD_OUT.values()))
    truth = [name.partition("/")[0] for name in HELD_OUT]
    assert [found["label"] for found in answer["predictions"]] == truth
    return job


def test_on_one_machine(up, tmp_path):
    service = up(worker_slots=1, compute_threads=0)
    job = live(service.client, tmp_path)
    report = service.client.report(job["id"])
    assert report["metrics"]["test_accuracy"] == job["metrics"]["test_accuracy"] == 1.0
    assert processes.named(service.home, "celery", "worker")
    yellow = [factories.png((230, 220, 40), seed=number) for number in range(4)]
    added = service.client.add_class("colours", "yellow", yellow[:3], idempotency_key="once")
    assert (added["version"], added["old_classes"]["accuracy_after"]) == (2, 1.0)
    assert service.client.predict("colours", yellow[3:])["predictions"][0]["label"] == "yellow"
    before = service.files()
    text = {"file": ("a.txt", b"hello, world")}
    problem(service.request("POST", "/api/v1/models/colours/predict", files=text), 400, "image_unreadable")
    assert service.files() == before
    everything = processes.members(service.home)
    assert len(everything) >= 3
    service.process.send_signal(signal.SIGINT)
    assert service.process.wait(30) == 0
    processes.wait_for_end(everything)
    assert processes.members(service.home) == []
    assert files_below(service.home / "scratch", service.home / "broker" / "messages") == []
    assert "Traceback" not in service.log.read_text()


def test_worker_that_is_terminated_hands_its_job_back(up, tmp_path):
    service = up()
    archive = tmp_path / "colours.zip"
    archive.write_bytes(factories.pack(factories.pictures(12)))
    made = service.client.upload_dataset(archive, "colours")
    runner = processes.runner(service.home, made["job_id"])
    os.kill(runner.pid, signal.SIGSTOP)
    worker = runner.parent().parent()
    worker.terminate()
    processes.wait_for_end([worker, runner], 15)
    # `graft up` has started another worker meanwhile, which goes on.
    assert service.client.wait_dataset(made["id"])["state"] == "ready"
    job = service.client.job(made["job_id"])
    assert (job["state"], job["attempt"]) == ("succeeded", 2)
    log = [event.data["message"] for event in service.client.events(job["id"]) if event.id]
    assert any("the worker shuts down" in line for line in log), log


def test_killed_manager_takes_its_children_along(up):
    service = up(standby=True)
    everything = processes.members(service.home)
    assert len(everything) >= 3
    service.process.kill()
    processes.wait_for_end(everything)
