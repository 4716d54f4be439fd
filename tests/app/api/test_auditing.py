"""Who has changed what."""

from datetime import timedelta

import httpx
import pytest
from sqlalchemy import select

from app.db.audit import AuditEntry
from app.db.base import new_id, now
from app.db.models import Job
from app.db.session import Database
from app.services import audit, keys
from tests import factories, processes
from tests.app.api.callers import bearer, key, keyed
from tests.conftest import free_port, wait_until


@pytest.fixture
def client(light):
    with keyed(light) as found:
        yield found


def entries(state):
    with state.database.read() as session:
        return session.query(AuditEntry).order_by(AuditEntry.at).all()


def test_changes_are_written_down_and_looks_are_not(client):
    state = client.app.state.graft
    made, reader = key(state, project="team"), key(state, "read", project="team")
    with state.database.write() as session:
        dataset = factories.dataset(session, project_id="team").id
    client.get("/api/v1/datasets", headers=bearer(made))
    client.post("/api/v1/models/none/predict", content=factories.png(), headers=bearer(made))
    client.delete(f"/api/v1/datasets/{dataset}", headers={**bearer(made), "X-Request-Id": "r-1"})
    wish = {"name": "new", "scopes": ["read"]}
    other = client.post("/api/v1/keys", json=wish, headers=bearer(made)).json()
    client.delete("/api/v1/models/a%00b", headers=bearer(reader))
    client.post("/api/v1/jobs/none/cancel")
    found = [(row.key_id, row.method, row.path, row.status) for row in entries(state)]
    assert found == [
        (made.row.id, "DELETE", f"/api/v1/datasets/{dataset}", 204),
        (made.row.id, "POST", "/api/v1/keys", 201),
        (reader.row.id, "DELETE", "/api/v1/models/a?b", 403),
    ]
    first, second, _ = entries(state)
    assert (first.project_id, first.request_id) == ("team", "r-1")
    assert second.request_id.startswith("req_")
    shown = [str(value) for row in entries(state) for value in vars(row).values()]
    assert not any(secret in value for value in shown for secret in (made.secret, other["secret"]))


def test_a_log_has_its_end(client):
    state = client.app.state.graft
    old = now() - audit.KEPT - timedelta(hours=1)
    fields = {"project_id": "default", "key_id": "key_0", "method": "POST", "path": "/", "status": 200}
    with state.database.write() as session:
        for at in (old, now()):
            session.add(AuditEntry(id=new_id("aud"), at=at, request_id="r", **fields))
        audit.expire(session)
    assert [row.at > old for row in entries(state)] == [True]


def test_what_was_made_is_named(client):
    state = client.app.state.graft
    files = {"file": ("a.zip", factories.pack(factories.pictures(2)))}
    made = client.post("/api/v1/datasets", data={"name": "a"}, files=files, headers=bearer(key(state)))
    assert made.status_code == 202
    (entry,) = entries(state)
    assert entry.location == f"/api/v1/datasets/{made.json()['id']}"


def test_the_same_answer_again_is_another_request(client):
    state = client.app.state.graft
    made = key(state)
    with state.database.write() as session:
        dataset = factories.dataset(session).id
    wish = {"dataset": dataset, "model": "m", "backbone": factories.BACKBONE, "recipe": {"method": "linear_probe"}}
    headers = {**bearer(made), "Idempotency-Key": "k"}
    job = [client.post("/api/v1/jobs", json=wish, headers=headers).json()["id"] for _ in range(2)][1]
    assert [(row.status, row.location) for row in entries(state)] == [(202, f"/api/v1/jobs/{job}")] * 2


@pytest.mark.server
def test_a_change_has_its_entry_however_its_process_ends(light, tmp_path):
    points = tmp_path / "failpoints"
    points.mkdir()
    port = free_port()
    database = Database(light.resolved_database_url)
    with database.write() as session:
        made = keys.create(session, "default", "test", keys.SCOPES, None)
        dataset = factories.dataset(session).id
    wish = {"dataset": dataset, "model": "m", "backbone": factories.BACKBONE, "recipe": {"method": "linear_probe"}}
    url = f"http://127.0.0.1:{port}"
    variables = processes.environment(light.home, port=port, require_keys="true", failpoints=points, offline="false")
    with processes.running(["api"], variables, tmp_path / "log"):
        wait_until(lambda: answers(f"{url}/livez"), "a service that listens")
        # It is committed, and the process ends before anything else is done.
        (points / "request_committed").write_text("kill")
        with pytest.raises(httpx.TransportError):
            httpx.post(f"{url}/api/v1/jobs", json=wish, headers=bearer(made), timeout=60, trust_env=False)
    with database.read() as session:
        job, entry = session.scalars(select(Job)).one(), session.scalars(select(AuditEntry)).one()
    database.dispose()
    assert (entry.key_id, entry.path, entry.status) == (made.row.id, "/api/v1/jobs", 202)
    assert entry.location == f"/api/v1/jobs/{job.id}"


def answers(url):
    try:
        return httpx.get(url, trust_env=False).is_success
    except httpx.TransportError:
        return False
