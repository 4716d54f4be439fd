"""Webhooks of a whole service: what was committed arrives, whatever is killed in between."""

import json
import signal
from contextlib import ExitStack

import pytest

from tests import factories, processes
from tests.conftest import wait_until
from tests.receivers import LOOPBACK, receiving

pytestmark = pytest.mark.server
WEBHOOKS = "/api/v1/webhooks"


def workers(service):
    return processes.named(service.home, "celery")


def all_of(service, hook):
    rows = service.request("GET", f"{WEBHOOKS}/{hook['id']}/deliveries", params={"limit": 100}).json()["data"]
    return {row["event_id"]: row for row in rows}


def upload(service, path, number):
    path.write_bytes(factories.pack(factories.pictures(number)))
    return service.client.upload_dataset(path, "colours")


def test_events_of_a_killed_worker_arrive(up, tmp_path):
    # The first attempt waits on its way, once: a fast machine would be through before its worker is killed.
    armed = tmp_path / "failpoints"
    armed.mkdir()
    (armed / "dataset_file_stored").write_text("sleep 30")
    settings = {"failpoints": armed, "webhook_allowed": json.dumps([LOOPBACK]), "webhook_timeout_seconds": 2}
    service = up(lease_seconds=1, **settings)
    with receiving() as receiver, ExitStack() as stack:
        hook = service.request("POST", WEBHOOKS, json={"url": receiver.url}).json()
        receiver.answering.clear()
        made = upload(service, tmp_path / "a.zip", 12)
        wait_until(lambda: receiver.got, "the start of the job is told")
        # In mid-sending; and nothing takes the worker's place for a while.
        stack.callback(service.process.send_signal, signal.SIGCONT)
        service.process.send_signal(signal.SIGSTOP)
        killed = workers(service)
        for worker in killed:
            worker.kill()
        processes.wait_for_end(killed)
        held = len(receiver.got)
        # Committed, and nobody there to send it.
        other = upload(service, tmp_path / "b.zip", 3)
        assert service.request("POST", f"/api/v1/jobs/{other['job_id']}/cancel").json()["state"] == "cancelled"
        assert workers(service) == []
        told = all_of(service, hook)
        assert {row["state"] for row in told.values()} == {"pending"}
        assert {"job.cancelled", "dataset.invalid"} <= {row["type"] for row in told.values()}
        receiver.answering.set()
        stack.close()
        dataset = service.client.wait_dataset(made["id"])
        assert dataset["state"] == "ready", dataset["failure"]
        expected = [
            "dataset.invalid", "dataset.ready", "job.cancelled", "job.started", "job.started", "job.succeeded",
        ]  # fmt: skip

        def done():
            return (
                sorted(row["type"] for row in all_of(service, hook).values() if row["state"] == "delivered") == expected
            )

        wait_until(done, "everything")
        told = all_of(service, hook)
        for got in receiver.got:
            payload = got.verified(hook["secret"])
            assert payload["type"] == told[payload["id"]]["type"]
        # What was held when the worker died was sent once more, under the same id; all else once.
        first, later = receiver.ids()[:held], receiver.ids()[held:]
        assert sorted(later) == sorted(told)
        assert set(first) <= set(told)
        succeeded = next(row for row in told.values() if row["type"] == "job.succeeded")
        detail = service.request("GET", f"{WEBHOOKS}/{hook['id']}/deliveries/{succeeded['id']}").json()
        assert (detail["payload"]["data"]["id"], detail["payload"]["data"]["attempt"]) == (made["job_id"], 2)
        assert [(one["number"], one["status"]) for one in detail["attempts"]] == [(1, 204)]
