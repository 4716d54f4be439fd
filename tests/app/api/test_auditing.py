"""Who has changed what."""

from datetime import timedelta

import pytest

from app.db.audit import AuditEntry
from app.db.base import new_id, now
from app.services import audit
from tests import factories
from tests.app.api.callers import bearer, key, keyed


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
    made = key(state)
    old = now() - audit.KEPT - timedelta(hours=1)
    fields = {"project_id": "default", "key_id": "key_0", "method": "POST", "path": "/", "status": 200}
    with state.database.write() as session:
        for at in (old, now()):
            session.add(AuditEntry(id=new_id("aud"), at=at, request_id="r", **fields))
    client.post("/api/v1/jobs/none/cancel", headers=bearer(made))
    assert [row.status for row in entries(state)] == [200, 404]


def test_what_was_made_is_named(client):
    state = client.app.state.graft
    files = {"file": ("a.zip", factories.pack(factories.pictures(2)))}
    made = client.post("/api/v1/datasets", data={"name": "a"}, files=files, headers=bearer(key(state)))
    assert made.status_code == 202
    (entry,) = entries(state)
    assert entry.location == f"/api/v1/datasets/{made.json()['id']}"
