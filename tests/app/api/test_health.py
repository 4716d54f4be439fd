"""Health, readiness, metrics."""

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from app.db.session import Database
from app.main import create_app
from app.services import limits
from app.services.limits import Limits
from app.services.probes import STORAGE_SECONDS, Probe, probes, try_storage
from app.settings import Settings
from app.storage import FolderStorage
from tests import factories
from tests.conftest import free_port, wait_until
from tests.factories import files_below

PARTS = {"database", "broker", "storage", "worker"}


def ready(client):
    answer = client.get("/readyz")
    body = answer.json()
    assert body["checks"].keys() == PARTS
    assert body["ready"] == (answer.status_code == 200) == (body["missing"] == [])
    assert answer.status_code in (200, 503)
    assert all((body["checks"][name] != "ok") == (name in body["missing"]) for name in PARTS)
    return body


def samples(answer):
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def open_client(settings):
    return TestClient(create_app(settings), base_url="http://127.0.0.1")


def test_ready_with_a_worker(client, database, home):
    found = ready(client)
    assert found["missing"] == ["worker"]
    assert "graft worker" in found["checks"]["worker"]
    with database.write() as session:
        factories.worker(session)
    assert ready(client)["missing"] == []
    assert files_below(home / "storage", home / "scratch") == []


def test_who_only_serves_needs_no_worker_and_no_broker(light):
    away = light.model_copy(update={"broker_url": f"redis://127.0.0.1:{free_port()}/0"})
    with TestClient(create_app(away, ("serve",)), base_url="http://127.0.0.1") as client:
        wait_until(lambda: client.get("/readyz").status_code == 200, "a service that has looked at its aliases")
        assert client.get("/readyz").json()["checks"].keys() == {"database", "storage"}


def test_silent_worker_is_no_worker(client, database):
    with database.write() as session:
        row = factories.worker(session)
        row.seen_at = row.seen_at.replace(year=2020)
    assert ready(client)["missing"] == ["worker"]


def test_empty_database_is_named(home):
    home.mkdir()
    with open_client(Settings(home=home)) as client:
        found = ready(client)
        assert set(found["missing"]) == {"database", "worker"}
        assert "graft migrate" in found["checks"]["database"]
        assert client.get("/livez").text == "ok"


def test_a_database_that_is_away_is_not_one_to_migrate(storage, tmp_path):
    database = Database(f"postgresql+psycopg://graft:secret@127.0.0.1:{free_port()}/graft")
    said = probes(database, storage, tmp_path).database.look()
    database.dispose()
    assert said == "expected the database to answer; found OperationalError; the service's log says more"


def test_storage_that_takes_no_file_is_named(light, home):
    (home / "file").write_text("no folder")
    with open_client(light.model_copy(update={"storage_url": f"file://{home}/file/below"})) as client:
        found = ready(client)
        assert set(found["missing"]) == {"storage", "worker"}
        # Whoever has no key hears nothing of where it lies.
        assert "NotADirectoryError: Not a directory" in str(found)
        assert str(home) not in str(found)


def test_storage_is_tried_now_and_then_however_often_somebody_asks(light_client, monkeypatch):
    tried = []
    state, client = light_client.app.state.graft, light_client
    put = state.storage.put
    monkeypatch.setattr(state.storage, "put", lambda key, path: (tried.append(key), put(key, path)))
    for _ in range(20):
        ready(client)
        client.get("/v2/health/ready")
    assert len(tried) == 1


def test_storage_is_tried_again_after_a_while_and_by_one_alone(tmp_path):
    clock, trying, going_on, num_tries = [0.0], threading.Event(), threading.Event(), []

    class Slow(FolderStorage):
        def put(self, key, source):
            num_tries.append(1)
            trying.set()
            assert going_on.wait(60)
            super().put(key, source)

    slow = partial(try_storage, Slow(tmp_path / "there"), tmp_path / "scratch")
    probe = Probe("storage", slow, STORAGE_SECONDS, patience_seconds=60, clock=lambda: clock[0])
    with ThreadPoolExecutor(3) as threads:
        first = [threads.submit(probe.look) for _ in range(3)]
        assert trying.wait(60)
        going_on.set()
        assert [one.result(60) for one in first] == ["ok"] * 3
        assert len(num_tries) == 1
        clock[0] = STORAGE_SECONDS
        shutil.rmtree(tmp_path / "there")
        (tmp_path / "there").write_text("no folder")
        assert "takes a file" in probe.look()
    assert "takes a file" in probe.look()
    assert len(num_tries) == 2


def test_a_full_disk_is_no_storage(small_disk, tmp_path):
    """It would still take an empty file."""
    storage = FolderStorage(small_disk / "storage")
    look = partial(try_storage, storage, small_disk / "scratch")
    assert look() == "ok"
    with (small_disk / "ballast").open("wb", buffering=0) as ballast, suppress(OSError):
        while True:
            ballast.write(bytes(4096))
    found = look()
    assert "No space left" in found or "OutOfSpace" in found
    assert str(small_disk) not in found
    (small_disk / "ballast").unlink()
    assert look() == "ok"
    assert files_below(small_disk) == []


def test_server_that_says_nothing_is_missing_soon_and_tried_by_one_alone():
    going_on, tries = threading.Event(), []

    def attempt():
        tries.append(1)
        assert going_on.wait(60)
        return "ok"

    probe = Probe("the database", attempt, patience_seconds=0.2)
    for _ in range(3):
        assert "says nothing" in probe.look()
    assert len(tries) == 1
    going_on.set()
    wait_until(lambda: probe.look() == "ok", "the server to be found again")


def test_database_that_says_nothing_is_named(light_client, monkeypatch):
    """Frozen, or behind a cable that was pulled: nothing is refused, and nobody waits for it."""
    state, going_on = light_client.app.state.graft, threading.Event()

    @contextmanager
    def read():
        assert going_on.wait(60)
        yield

    monkeypatch.setattr(state.probes.database, "_patience", 0.1)
    monkeypatch.setattr(state.database, "read", read)
    found = ready(light_client)
    going_on.set()
    assert set(found["missing"]) == {"database", "worker"}
    assert "says nothing" in found["checks"]["database"]


def test_broker_that_is_away_is_named_and_jobs_are_still_taken(light):
    away = light.model_copy(update={"broker_url": f"redis://127.0.0.1:{free_port()}/0"})
    with open_client(away) as client:
        assert set(ready(client)["missing"]) == {"broker", "worker"}
        with client.app.state.graft.database.write() as session:
            wanted = factories.dataset(session).id
        body = {"dataset": wanted, "recipe": {"method": "linear_probe"}, "model": "m"}
        assert client.post("/api/v1/jobs", json=body).status_code == 202


@pytest.mark.server
def test_redis_is_found(light, redis_url):
    with open_client(light.model_copy(update={"broker_url": redis_url})) as client:
        assert ready(client)["missing"] == ["worker"]


def test_metrics_count_jobs_and_workers(client, database):
    with database.write() as session:
        for state in ("queued", "queued", "running", "succeeded"):
            factories.job(session, state=state)
        factories.worker(session)
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    found = samples(answer)
    assert found["graft_jobs", ("queue", "cpu"), ("state", "queued")] == 2
    assert found["graft_jobs", ("queue", "cpu"), ("state", "running")] == 1
    assert found["graft_workers",] == 1
    assert found["graft_pool_bytes",] == found["graft_pool_graphs",] == found["graft_pool_loads_total",] == 0
    assert not [name for name, *_ in found if name.endswith("_created")]


def test_metrics_tell_how_far_forecasts_were_off(client, database):
    found = samples(client.get("/metrics"))
    assert found["graft_forecasts_total",] == 0
    assert not any(name[0].startswith("graft_forecast_") for name in found)  # no error is not an error of zero
    with database.write() as session:
        factories.forecast(session, expected=0.8, low=0.7, high=0.9, found=0.9)
        factories.forecast(session, expected=0.5, low=0.4, high=0.6, found=0.3)
    found = samples(client.get("/metrics"))
    assert found["graft_forecasts_total",] == 2
    assert found["graft_forecast_absolute_error",] == pytest.approx(0.15)
    assert found["graft_forecast_bias",] == pytest.approx(-0.05)
    assert found["graft_forecast_inside",] == 0.5


def test_metrics_tell_what_projects_store_and_may_store(client, database):
    with database.write() as session:
        factories.dataset(session, size_bytes=70)
        factories.model(session, size_bytes=5)
        factories.dataset(session, size_bytes=3, project_id=factories.project(session, "other"))
        limits.put(session, "other", Limits(max_bytes=10, max_requests=2.5))
    found = samples(client.get("/metrics"))
    assert found["graft_project_bytes", ("of", "datasets"), ("project", "default")] == 70
    assert found["graft_project_bytes", ("of", "versions"), ("project", "default")] == 5
    assert found["graft_project_bytes", ("of", "datasets"), ("project", "other")] == 3
    assert found["graft_project_bytes_limit", ("project", "other")] == 10
    assert found["graft_project_requests_limit", ("project", "other")] == 2.5
    assert ("graft_project_bytes_limit", ("project", "default")) not in found
