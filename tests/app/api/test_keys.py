"""API keys over HTTP: on every route of the OpenAPI document, and from their making to their end."""

import asyncio
import base64
from datetime import timedelta

import pytest

from app.api.callers import Callers, open_paths
from app.api.scopes import OPEN, SCOPES
from app.db.base import now
from app.db.keys import ApiKey
from app.main import create_app
from app.services import keys, limits
from app.services.limits import Limits
from app.settings import Settings
from tests import factories
from tests.app.api.callers import bearer, filled, key, keyed
from tests.checks import problem, refusal

DOCUMENT = create_app(Settings()).openapi()
ROUTES = sorted((method.upper(), path) for path, item in DOCUMENT["paths"].items() for method in item)


def needed(method, path):
    return SCOPES[f"{method} {path.removeprefix('/api/v1')}"]


CLOSED = [route for route in ROUTES if needed(*route) != OPEN]


@pytest.fixture(scope="module")
def service(sqlite_template, tmp_path_factory):
    """The application with keys on; tests leave nothing in it that another would meet."""
    home = tmp_path_factory.mktemp("keyed")
    (home / "graft.db").write_bytes(sqlite_template.read_bytes())
    with keyed(Settings(home=home)) as client:
        yield client


@pytest.fixture(scope="module")
def state(service):
    return service.app.state.graft


@pytest.fixture(scope="module")
def holders(state):
    """For each scope the header of a key that has no other."""
    return {scope: bearer(key(state, scope)) for scope in keys.SCOPES}


def test_every_route_has_a_scope_and_every_scope_a_route():
    assert {f"{method} {path.removeprefix('/api/v1')}" for method, path in ROUTES} == SCOPES.keys()
    assert all(set(scopes) <= set(keys.SCOPES) for scopes in SCOPES.values())


def test_only_health_is_open():
    assert {path for method, path in ROUTES if needed(method, path) == OPEN} == {
        "/livez", "/readyz", "/v2/health/live", "/v2/health/ready",
    }  # fmt: skip
    # An open path is compared as it is written: one with a parameter would open more than itself.
    assert not any("{" in path for path in open_paths())


@pytest.mark.parametrize(("method", "path"), CLOSED)
def test_nothing_is_done_without_a_key(service, method, path):
    answer = service.request(method, filled(path))
    refusal(answer, 401, "key_missing")
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="graft"'


@pytest.mark.parametrize(("method", "path"), CLOSED)
def test_nothing_is_done_without_the_scope(service, holders, method, path):
    for scope, header in holders.items():
        answer = service.request(method, filled(path), headers=header)
        if scope in needed(method, path):
            assert answer.status_code not in (401, 403), answer.text
        else:
            refusal(answer, 403, "scope_missing")
            assert 'error="insufficient_scope"' in answer.headers["WWW-Authenticate"]


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/v2/health/live", "/openapi.json", "/docs"])
def test_health_and_the_description_are_open(service, path):
    for headers in ({}, {"Authorization": "Bearer nonsense"}):
        assert service.get(path, headers=headers).status_code in (200, 503)


@pytest.mark.parametrize("path", ["/nothing", "/api/v1/nothing", "/livez/", "/v2/health/live/", "//livez", "/LIVEZ"])
def test_what_is_not_there_is_not_told_to_strangers(service, holders, path):
    refusal(service.get(path), 401, "key_missing")
    assert service.get(path, headers=holders["read"], follow_redirects=False).status_code in (307, 404)


def test_keys_that_do_not_hold_are_told_apart(service, state):
    expired = key(state, expires_at=now() - timedelta(seconds=1))
    revoked = key(state)
    with state.database.write() as session:
        keys.revoke(session, "default", revoked.row.id)
    stranger = "graft_00000000_" + "0" * 64
    basic = "Basic " + base64.b64encode(b"me:secret").decode()
    for value, code in {
        f"Bearer {expired.secret}": "key_expired",
        f"Bearer {revoked.secret}": "key_revoked",
        f"Bearer {stranger}": "key_unknown",
        "Bearer graft": "key_unknown",
        "Bearer graft_00000000_\xe9": "key_unknown",
        basic: "key_missing",
        "Bearer": "key_missing",
        stranger: "key_missing",
    }.items():
        answer = service.get("/api/v1/jobs", headers={"Authorization": value.encode("latin-1")})
        found = problem(answer, 401, code)
        assert expired.secret not in found["detail"]
        assert ('error="invalid_token"' in answer.headers["WWW-Authenticate"]) == (code != "key_missing")
    assert service.get("/api/v1/jobs", headers={"Authorization": f"bearer {key(state).secret}"}).status_code == 200


def test_a_key_from_its_making_to_its_end(service, state, holders):
    body = {"name": "ci", "scopes": ["predict", "read"], "expires_days": 30}
    made = service.post("/api/v1/keys", json=body, headers=holders["admin"])
    assert made.status_code == 201
    secret, shown = made.json().pop("secret"), {k: v for k, v in made.json().items() if k != "secret"}
    assert (shown["scopes"], shown["project"], shown["revoked_at"]) == (["read", "predict"], "default", None)
    own = {"Authorization": f"Bearer {secret}"}
    assert service.get("/api/v1/jobs", headers=own).status_code == 200
    problem(service.get("/api/v1/keys", headers=own), 403, "scope_missing")
    listed = service.get("/api/v1/keys", headers=holders["admin"])
    (row,) = [row for row in listed.json()["data"] if row["id"] == shown["id"]]
    assert row == {**shown, "last_used_at": row["last_used_at"]}
    assert secret not in listed.text
    place = f"/api/v1/keys/{shown['id']}"
    assert service.delete(place, headers=holders["admin"]).status_code == 204
    problem(service.get("/api/v1/jobs", headers=own), 401, "key_revoked")
    assert service.delete(place, headers=holders["admin"]).status_code == 204
    problem(service.delete("/api/v1/keys/key_none", headers=holders["admin"]), 404, "not_found")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": "a", "scopes": []},
        {"name": "a", "scopes": ["root"]},
        {"name": "a/b", "scopes": ["read"]},
        {"name": "a", "scopes": ["read"], "expires_days": 0},
        {"name": "a", "scopes": ["read"], "expires_days": 10_000},
        {"name": "a", "scopes": ["read"], "project": "other"},
    ],
)
def test_a_key_that_makes_no_sense_is_refused(service, state, holders, body):
    with state.database.read() as session:
        before = session.query(ApiKey).count()
    problem(service.post("/api/v1/keys", json=body, headers=holders["admin"]), 422, "invalid_payload")
    with state.database.read() as session:
        assert session.query(ApiKey).count() == before


def test_a_key_reaches_its_project_alone(service, state):
    theirs = bearer(key(state, project="team"))
    made = service.post("/api/v1/keys", json={"name": "a", "scopes": ["read"]}, headers=theirs).json()
    assert made["project"] == "team"
    ids = [row["id"] for row in service.get("/api/v1/keys", headers=theirs).json()["data"]]
    assert made["id"] in ids
    ours = bearer(key(state))
    assert made["id"] not in service.get("/api/v1/keys?limit=1000", headers=ours).text
    problem(service.delete(f"/api/v1/keys/{made['id']}", headers=ours), 404, "not_found")


def test_use_is_noted_but_not_waited_for(service, state):
    made = key(state)
    service.get("/api/v1/jobs", headers=bearer(made))
    service.portal.call(state.keyring.close)
    with state.database.read() as session:
        assert keys.is_touched(session.get_one(ApiKey, made.row.id))


def test_metrics_are_of_the_keys_project_or_open(service, state, light, tmp_path):
    for project in ("default", "alone"):
        with state.database.write() as session:
            keys.open_project(session, project)
            factories.job(session, project_id=project)
    text = service.get("/metrics", headers=bearer(key(state, "read", project="alone"))).text
    assert 'graft_jobs{queue="cpu",state="queued"} 1.0' in text
    # What others have, or do, shows in figures of the whole service.
    whole = ("graft_storage_", "graft_pool_", "graft_log_images", "waiting_images")
    assert not any(name in text for name in whole)
    with keyed(light.model_copy(update={"open_metrics": True})) as client:
        found = client.get("/metrics")
        assert found.status_code == 200
        assert all(name in found.text for name in whole)
        problem(client.get("/api/v1/jobs"), 401, "key_missing")


def test_a_stranger_is_refused_before_anything_is_read(state):
    async def reach():
        sent = []

        async def receive():
            raise AssertionError("the body was read")

        async def inner(scope, receive, send):
            raise AssertionError("the request was let in")

        async def send(message):
            sent.append(message)

        app = type("App", (), {"state": type("S", (), {"graft": state})})
        scope = {"type": "http", "method": "POST", "path": "/api/v1/datasets", "headers": [], "app": app}
        await Callers(inner, open_paths())(scope, receive, send)
        return sent[0]["status"]

    assert asyncio.run(reach()) == 401


def test_without_keys_everybody_is_the_default_project(light_client):
    made = light_client.post("/api/v1/keys", json={"name": "first", "scopes": ["admin"]}).json()
    assert (made["project"], made["expires_at"]) == ("default", None)
    assert light_client.get("/api/v1/keys", headers={"Authorization": "Bearer nonsense"}).status_code == 200


def test_a_project_that_sends_too_much_is_told_when_to_come_again(service, state):
    mine, others = bearer(key(state, project="busy")), bearer(key(state, project="calm"))
    with state.database.write() as session:
        limits.put(session, "busy", Limits(max_requests=0.01))
    assert service.get("/api/v1/jobs", headers=mine).status_code == 200
    for path in ("/api/v1/jobs", "/v2/models"):
        answer = service.get(path, headers=mine)
        refusal(answer, 429, "rate_limited")
        assert 90 <= int(answer.headers["Retry-After"]) <= 100
    assert service.get("/livez", headers=mine).status_code == 200
    assert all(service.get("/api/v1/jobs", headers=others).status_code == 200 for _ in range(5))


def test_an_upload_beyond_the_limit_leaves_nothing(service, state):
    mine = bearer(key(state, project="full"))
    with state.database.write() as session:
        limits.put(session, "full", Limits(max_bytes=100))
    files = {"file": ("a.zip", factories.pack(factories.pictures(1)))}
    answer = service.post("/api/v1/datasets", data={"name": "a"}, files=files, headers=mine)
    problem(answer, 429, "too_many_bytes")
    assert answer.headers["Retry-After"] == "30"
    assert service.get("/api/v1/datasets", headers=mine).json()["data"] == []
    assert list(state.storage.list("incoming")) == []
