"""What is away for a while is told as such."""

import sqlite3
from contextlib import closing

import httpx
import pytest
from sqlalchemy import event

from app.api.oip import control
from app.errors import Unavailable
from app.services import models
from app.storage import FolderStorage
from tests import factories
from tests.checks import problem
from tests.listening import application


def test_a_locked_database_is_no_mistake_of_ours(light_client, home):
    database = light_client.app.state.graft.database
    database.dispose()
    event.listen(database.engine, "connect", lambda made, _: made.execute("PRAGMA busy_timeout=50"))
    with closing(sqlite3.connect(home / "graft.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        answer = light_client.post("/api/v1/webhooks", json={"url": "https://example.org/"})
    body = problem(answer, 503, "unavailable")
    assert "database" in body["detail"]
    assert answer.headers["retry-after"] == "5"


def test_a_database_without_room_is_told_as_such(light_client):
    database = light_client.app.state.graft.database
    database.dispose()
    # The least that there can be is what there is.
    event.listen(database.engine, "connect", lambda made, _: made.execute("PRAGMA max_page_count=1"))
    sent = ({"url": f"https://example.org/{number}/{'a' * 900}"} for number in range(100))
    refused = next(one for body in sent if (one := light_client.post("/api/v1/webhooks", json=body)).status_code != 201)
    assert "the disk is full" in problem(refused, 507, "insufficient_storage")["detail"]
    assert light_client.get("/api/v1/webhooks").status_code == 200


class Away(FolderStorage):
    """A storage that cannot be reached."""

    def put(self, key, source):
        raise Unavailable("expected the object store to answer; found nothing; try again in a moment")


def test_an_upload_without_an_object_store_leaves_nothing(light_client, home):
    state = light_client.app.state.graft
    light_client.app.state.graft = state.__class__(**{**vars(state), "storage": Away(home / "storage")})
    files = {"file": ("a.zip", factories.pack(factories.pictures(2)))}
    problem(light_client.post("/api/v1/datasets", files=files, data={"name": "a"}), 503, "unavailable")
    light_client.app.state.graft = state
    assert light_client.get("/api/v1/datasets").json()["data"] == []
    assert factories.files_below(home / "scratch", home / "storage") == []


@pytest.mark.parametrize("path", ["/api/v1/models", "/v2/repository/index"])
def test_an_error_of_ours_has_the_headers_of_every_answer(light, monkeypatch, caplog, path):
    def broken(*_):
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(models, "page", broken)
    monkeypatch.setattr(control, "index", broken)
    with application(light) as (address, _):
        ask = httpx.post if path.startswith("/v2") else httpx.get
        answer = ask(address + path, headers={"X-Request-Id": "mine"}, timeout=60)
        known = httpx.get(f"{address}/livez", headers={"X-Request-Id": "mine"}, timeout=60)
    assert answer.status_code == 500
    assert answer.headers["X-Request-Id"] == "mine"
    assert {*known.headers} <= {*answer.headers}
    assert "unforeseen" not in answer.text
    (logged,) = [one for one in caplog.records if one.exc_info is not None]
    assert str(logged.exc_info[1]) == "unforeseen"
    assert logged.getMessage().endswith(path)
