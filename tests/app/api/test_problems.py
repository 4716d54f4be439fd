"""What is away for a while is told as such, and what is no JSON likewise, whoever reads it."""

import gzip
import sqlite3
from contextlib import closing
from urllib.parse import unquote

import httpx
import pytest
from sqlalchemy import event

from app.api.oip import control
from app.errors import Unavailable
from app.services import lineage, models
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


@pytest.mark.parametrize("path", ["/api/v1/models", "/v2/repository/index", "/api/v1/models/a%0ab/versions/1/lineage"])
def test_an_error_of_ours_has_the_headers_of_every_answer(light, monkeypatch, caplog, path):
    def broken(*_):
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(models, "page", broken)
    monkeypatch.setattr(control, "index", broken)
    monkeypatch.setattr(lineage, "of_version", broken)
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
    # In one line, whatever the path.
    assert logged.getMessage().endswith(repr(unquote(path)))


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (b"{bad", "Expecting property name"),
        (b'{"kind": "\xff"}', "can't decode byte 0xff"),
        (b"[" * 100_000, "recursion"),
        (b"9" * 5_000, "a number that is too long"),
        (gzip.compress(b"{}"), "can't decode byte"),
    ],
    ids=["syntax", "utf-8", "depth", "digits", "packed"],
)
def test_what_is_no_json_is_told_in_the_same_way_by_all(light_client, sent, why):
    headers = {"Content-Type": "application/json"}
    for path in ("jobs", "keys", "rankings"):
        refused = problem(light_client.post(f"/api/v1/{path}", content=sent, headers=headers), 422, "invalid_payload")
        (place,) = refused["errors"]
        assert place["pointer"] == "/body"
        assert why in place["detail"]
        assert "/body" in refused["detail"]
    # Which reads its body by itself.
    refused = problem(light_client.post("/api/v1/datasets", content=sent, headers=headers), 422, "invalid_payload")
    assert why in refused["detail"]
