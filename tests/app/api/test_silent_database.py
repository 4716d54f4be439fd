"""A PostgreSQL that takes every byte and never answers, or holds what a request needs: the request ends and says so."""

import asyncio
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial

import psutil
import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from starlette.testclient import TestClient

from app.db import bounded, session
from app.db.session import Bounds, Database
from app.main import create_app
from app.settings import Settings
from benchmarks.chaos.proxy import Proxy
from tests import factories
from tests.checks import problem
from tests.conftest import NUMBERS, Cluster, wait_until

pytestmark = pytest.mark.server

SOON_SECONDS = 20.0
Freeze = Callable[[], AbstractContextManager[None]]


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "PING_SECONDS", 0.5)
    monkeypatch.setattr(session, "STAMP_SECONDS", 0.5)


@pytest.fixture
def migrated_url(postgres: Cluster) -> Iterator[str]:
    name = f"silent_{next(NUMBERS)}"
    postgres.run(f"CREATE DATABASE {name} TEMPLATE migrated")
    yield postgres.url(name)
    postgres.run(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["frozen", "swallowed"])
def silent(request: pytest.FixtureRequest, postgres: Cluster, migrated_url: str) -> Iterator[tuple[str, Freeze]]:
    """The URL of a database, and what silences it: its processes are stopped, or a proxy before it swallows."""
    if request.param == "frozen":
        yield f"{migrated_url}&connect_timeout=2", partial(_stopped, migrated_url)
        return
    proxy = Proxy(partial(asyncio.open_unix_connection, f"{postgres.address}/.s.PGSQL.5432"))
    name = migrated_url.partition("@/")[2].partition("?")[0]
    yield (
        f"postgresql+psycopg://postgres@127.0.0.1:{proxy.port}/{name}?sslmode=disable&connect_timeout=2",
        partial(_swallowing, proxy),
    )
    proxy.close()


@contextmanager
def _stopped(url: str) -> Iterator[None]:
    database = Database(url)
    with database.read() as asked:
        postmaster = psutil.Process(asked.scalar(text("SELECT pg_backend_pid()"))).parent()
    database.dispose()
    assert postmaster is not None
    everything = [postmaster, *postmaster.children(recursive=True)]
    _signal(everything, signal.SIGSTOP)
    try:
        yield
    finally:
        _signal(everything, signal.SIGCONT)


def _signal(those: list[psutil.Process], number: signal.Signals) -> None:
    for process in those:
        # One that served the question above may have ended.
        with suppress(ProcessLookupError):
            os.kill(process.pid, number)


@contextmanager
def _swallowing(proxy: Proxy) -> Iterator[None]:
    proxy.set("hang")
    try:
        yield
    finally:
        proxy.set("open")


def test_requests_to_a_silent_database_end_and_are_answered_again_later(silent, home):
    url, silence = silent
    settings = Settings(home=home, database_url=url, database_silence_seconds=1)
    wishes = [
        ("GET", "/api/v1/jobs", {}),
        ("GET", "/api/v1/jobs/job_none", {}),
        ("GET", "/metrics", {}),
        ("POST", "/api/v1/webhooks", {"json": {"url": "https://example.org/"}}),
        ("POST", "/api/v1/models/none/predict", {"files": {"file": ("a.png", factories.png((1, 2, 3)))}}),
    ] * 6
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as client, ThreadPoolExecutor(30) as threads:
        assert client.get("/api/v1/jobs").status_code == 200
        # So that there are connections that were good.
        list(threads.map(lambda wish: client.request(wish[0], wish[1], **wish[2]), wishes))
        before = time.monotonic()
        with silence():
            answers = list(threads.map(lambda wish: client.request(wish[0], wish[1], **wish[2]), wishes))
            assert time.monotonic() - before < SOON_SECONDS
        for answer in answers:
            assert "database" in problem(answer, 503, "unavailable")["detail"]
            assert int(answer.headers["retry-after"]) > 0
        wait_until(lambda: client.get("/api/v1/jobs").status_code == 200, "answers once it is there again")
        assert client.post("/api/v1/webhooks", json={"url": "https://example.org/"}).status_code == 201


def test_one_at_a_time_finds_out_whether_a_silent_server_answers_again(silent, monkeypatch):
    """However many ask it: those behind the first row of them wait no second time."""
    monkeypatch.setattr(bounded, "TRIAL_SECONDS", 3.0)
    url, silence = silent
    database = Database(url)

    def ask(_number: int = 0) -> str:
        try:
            with database.read() as asked:
                return str(asked.scalar(text("SELECT 1")))
        except OperationalError as error:
            return "in vain" if "timeout expired" in str(error) else str(error)

    with ThreadPoolExecutor(20) as threads:
        with silence():
            assert ask() == "in vain"
            first = list(threads.map(ask, range(20)))
            assert all("tried again every 3 s" in said for said in first)
            time.sleep(bounded.TRIAL_SECONDS)
            assert list(threads.map(ask, range(20))).count("in vain") == 1
        wait_until(lambda: ask() == "1", "is tried again")
        assert set(threads.map(ask, range(20))) == {"1"}
    database.dispose()


def test_a_statement_without_an_answer_is_given_up_with_its_connection(silent):
    url, silence = silent
    database = Database(url, Bounds(silence_seconds=1))
    with database.read() as asked:
        # It leads somewhere, and is not asked again whether it does.
        asked.execute(text("SELECT 1"))
        with silence():
            before = time.monotonic()
            with pytest.raises(OperationalError, match="says nothing"):
                asked.execute(text("SELECT 1"))
            assert 1 <= time.monotonic() - before < SOON_SECONDS
    with database.read() as asked:
        assert asked.scalar(text("SELECT 2")) == 2
    database.dispose()


# AuthenticationOk and ReadyForQuery: all that a client waits for before its first question.
WELCOME = b"R\0\0\0\x08\0\0\0\0" + b"Z\0\0\0\x05I"


def test_a_pooler_whose_server_is_away_is_told_as_a_database_that_is_away(postgres, migrated_url, home):
    """It takes connections, and no question on them comes back."""
    away, silent_ends = threading.Event(), []

    async def dial() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if not away.is_set():
            return await asyncio.open_unix_connection(f"{postgres.address}/.s.PGSQL.5432")
        near, far = socket.socketpair()
        far.sendall(WELCOME)
        silent_ends.append(far)
        return await asyncio.open_connection(sock=near)

    proxy = Proxy(dial)
    name = migrated_url.partition("@/")[2].partition("?")[0]
    settings = Settings(
        home=home, database_url=f"postgresql+psycopg://postgres@127.0.0.1:{proxy.port}/{name}?sslmode=disable"
    )
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as client:
        assert client.get("/api/v1/jobs").status_code == 200
        away.set()
        # What was open leads nowhere any more, and what is made anew no further than to the pooler.
        proxy.set("refuse")
        proxy.set("open")
        answer = client.get("/api/v1/jobs")
        assert "database" in problem(answer, 503, "unavailable")["detail"]
        away.clear()
        wait_until(lambda: client.get("/api/v1/jobs").status_code == 200, "answers once it is there again")
    assert silent_ends
    proxy.close()
    for end in silent_ends:
        end.close()


def test_bytes_that_come_slowly_are_no_silence(migrated_url):
    """What counts is the last byte, not the length of the answer."""
    database = Database(migrated_url, Bounds(silence_seconds=1))
    with database.read() as asked:
        raw = asked.connection().connection.driver_connection
        slow = (raw.execute("SELECT repeat('a', 10000), pg_sleep(0.3) FROM generate_series(1, 8)")).fetchall()
    database.dispose()
    assert len(slow) == 8


@pytest.mark.parametrize(("seconds", "said"), [((5, 0.3), "LOCK_SECONDS"), ((0.3, 5), "STATEMENT_SECONDS")])
def test_requests_do_not_wait_for_ever_for_what_others_hold(migrated_url, home, seconds, said):
    statement, lock = seconds
    settings = Settings(
        home=home, database_url=migrated_url, database_statement_seconds=statement, database_lock_seconds=lock
    )
    body, other = {"url": "https://example.org/"}, Database(migrated_url)
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as client:
        with other.write() as holding:
            holding.execute(text("LOCK TABLE webhook"))
            answer = client.post("/api/v1/webhooks", json=body)
        assert f"GRAFT_DATABASE_{said}" in problem(answer, 503, "unavailable")["detail"]
        assert answer.headers["retry-after"] == "5"
        assert client.post("/api/v1/webhooks", json=body).status_code == 201
    other.dispose()


def test_only_who_was_given_bounds_has_them(migrated_url):
    """Migrations take as long as they take; and the operator's URL counts for more."""
    bounds, own = Bounds(statement_seconds=3, lock_seconds=1.5), "&options=-c%20lock_timeout%3D7s"
    wanted = [
        (migrated_url, Bounds(), "0", "0"),
        (migrated_url, bounds, "3s", "1500ms"),
        (migrated_url + own, bounds, "3s", "7s"),
    ]
    for url, given, statement, lock in wanted:
        database = Database(url, given)
        with database.read() as asked:
            assert asked.scalar(text("SHOW statement_timeout")) == statement
            assert asked.scalar(text("SHOW lock_timeout")) == lock
        database.dispose()
