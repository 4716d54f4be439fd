"""A full report through real processes: networks from scratch are trained in the job that follows, which is killed."""

import os
import signal

import pytest

from tests import factories, processes
from tests.conftest import wait_until
from tests.worker import nulls

pytestmark = pytest.mark.server
FILLED = {"verdict", "verdicts.vs_scratch", "baselines.scratch", "curve", "robustness", "out_of_distribution"}


def test_a_follow_up_that_is_killed_goes_on_and_fills_the_report_once(up, tmp_path):
    service = up(worker_slots=1, lease_seconds=1)
    client = service.client
    archive = tmp_path / "colours.zip"
    archive.write_bytes(factories.pack(factories.pictures(24)))
    dataset = client.wait_dataset(client.upload_dataset(archive, "colours")["id"])
    assert dataset["state"] == "ready", dataset["failure"]
    asked = client.start_transfer(
        dataset["id"], "colours", backbone=factories.BACKBONE, recipe={"method": "linear_probe"}, report="full"
    )
    job = client.wait_job(asked["id"])
    assert job["state"] == "succeeded", job["failure"]
    before = client.report(job["id"])
    assert set(before["follow_up"]["fills"]) >= FILLED
    assert nulls.unexplained(before) == []
    assert (before["verdict"], before["baselines"]["scratch"], before["curve"]) == (None, None, None)

    follower = job["follow_up"]
    runner = processes.runner(service.home, follower)
    parts = service.home / "storage" / "checkpoints" / "default" / follower / "parts"
    wait_until((parts / "comparison.json").exists, "networks from scratch that are trained")
    os.kill(runner.pid, signal.SIGKILL)
    done = client.wait_job(follower)
    assert (done["state"], done["attempt"]) == ("succeeded", 2), done["failure"]

    log = [event.data for event in client.events(follower) if event.id]
    messages = [entry["message"] for entry in log]
    assert [entry["data"]["state"] for entry in log if entry["data"].get("state") == "succeeded"] == ["succeeded"]
    assert any(message.startswith("resumed from step 1:") for message in messages), messages
    # What the first attempt trained is not trained again.
    assert sum(message.startswith("baseline from scratch: a small CNN") for message in messages) == 1, messages
    report = client.report(job["id"])
    assert report["follow_up"] == {**before["follow_up"], "state": "succeeded"}
    assert report["metrics"] == before["metrics"]
    assert report["verdict"] == report["verdicts"]["vs_scratch"] == report["verdict_evidence"]["vs_scratch"]["verdict"]
    assert report["verdict"] is not None
    assert report["baselines"]["scratch"]["num_samples"] == report["metrics"]["num_test"]
    assert report["curve"] is not None
    assert nulls.unexplained(report) == []
    assert {"domain", "metrics.test_top_5_accuracy"} <= report["not_computed"].keys()
    assert "cost.baselines_seconds" not in report["not_computed"]
    # Fifteen test images are too few to say anything of strange ones.
    assert not (FILLED - {"out_of_distribution"}) & report["not_computed"].keys()
    (listed,) = client.call("GET", "/evaluations")["data"]
    assert listed["job_id"] == follower
    assert [row["version"] for row in client.model("colours")["versions"]] == [1]
    wait_until(lambda: not service.runners(), "no orphan")
    assert "Traceback" not in service.log.read_text()
