"""Database, broker and object store: away, restarted, wiped, slow, beside running jobs."""

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks.chaos import scenarios
from benchmarks.chaos.clock import rest, wait_until
from benchmarks.chaos.faults import beside
from benchmarks.chaos.lab import Done, Lab
from benchmarks.chaos.stack import Stack

AWAY_SECONDS = 30.0


def outage(server: str, mode: str, seconds: float = AWAY_SECONDS) -> Callable[[Stack], bool]:
    """A server cannot be reached, answers with errors, or slowly, for a while; whether anybody has noticed."""

    def fault(stack: Stack) -> bool:
        proxy = stack.servers.proxies[server]
        rest(0.5)
        before = proxy.num_broken
        proxy.set(mode)
        try:
            rest(seconds)
        finally:
            proxy.set("open")
        return proxy.num_broken > before

    return fault


def locked(stack: Stack) -> None:
    """Somebody else writes to SQLite all the time."""
    rest(0.5)
    with closing(sqlite3.connect(stack.home / "graft.db", isolation_level=None, timeout=30)) as other:
        other.execute("BEGIN IMMEDIATE")
        rest(AWAY_SECONDS)
        other.execute("ROLLBACK")


def restart_database(stack: Stack) -> None:
    rest(0.5)
    stack.servers.restart_database()


def cut_power(stack: Stack) -> None:
    """Every process of the service dies, the database and the broker with them; what they had not written is gone."""
    rest(0.5)
    stack.kill_all()
    restart_broker(stack)
    stack.servers.restart_database()


def restart_broker(stack: Stack) -> None:
    assert stack.servers.redis is not None
    stack.servers.redis.stop()
    stack.servers.redis.start()


def wipe_broker(stack: Stack) -> None:
    """All messages are lost, before anybody has heard them.

    The worker is away meanwhile: to one that stands still Redis would give the message all the same.
    """
    stack.hold("worker")
    try:
        stack.kill("worker")
        wait_until(lambda: num_waiting(stack), "a message that waits", 120)
        if stack.servers.redis is not None:
            stack.servers.redis.wipe()
        else:
            for path in _messages(stack):
                path.unlink()
    finally:
        stack.let_go("worker")


def num_waiting(stack: Stack) -> int:
    """Messages in the broker that nobody has taken."""
    redis = stack.servers.redis
    return len(_messages(stack)) if redis is None else redis.num_waiting()


def _messages(stack: Stack) -> list[Path]:
    return list((stack.home / "broker" / "messages").glob("[!.]*"))


def remove_broker(stack: Stack) -> None:
    """The whole folder of the filesystem broker goes, while a worker listens."""
    shutil.rmtree(stack.home / "broker")


OUTAGES: dict[str, dict[str, Callable[[Stack], Any]]] = {
    "local": {
        "the database is locked for 30 s": locked,
        "all messages of the broker are lost": wipe_broker,
        "the folder of the broker is removed": remove_broker,
    },
    "team": {
        "the database restarts": restart_database,
        "the database does not answer for 30 s": outage("database", "hang"),
        "the database refuses connections for 30 s": outage("database", "refuse"),
        "the broker restarts": restart_broker,
        "everything dies at once, with database and broker": cut_power,
        "all messages of the broker are lost": wipe_broker,
        "the broker does not answer for 30 s": outage("broker", "hang"),
        "the broker refuses connections for 30 s": outage("broker", "refuse"),
        "the object store answers 503 for 30 s": outage("storage", "error"),
        "the object store does not answer for 30 s": outage("storage", "hang"),
        "the object store is slow for 30 s": outage("storage", "slow"),
    },
}
CANNOT = {
    "local": {
        "the database restarts": "SQLite is a file",
        "the database cannot be reached": "SQLite is a file; a lock that is held for 30 s stands for it",
        "the broker restarts": "the broker is a folder",
        "the broker cannot be reached": "the broker is a folder; its removal stands for it",
        "the object store errs or is slow": "storage is a folder; a full disk is a part of its own",
    },
    "team": {"the database is locked": "PostgreSQL locks rows"},
}


def mixed(lab: Lab) -> Done:
    """An upload, a transfer of it on fresh features, repeated folds: everything that a fault may meet."""
    first, second = scenarios.ingest(lab), scenarios.cold(lab)
    return Done(first.jobs + second.jobs, first.result | second.result, second.models)


def outages(lab: Lab) -> Iterator[dict[str, Any]]:
    """Each outage once."""
    undisturbed = mixed(lab)
    for what, fault in OUTAGES[lab.stack.kind].items():
        yield beside(lab, mixed, undisturbed, what, fault)
    for what, why in CANNOT[lab.stack.kind].items():
        yield {"what": what, "stack": lab.stack.kind, "wrong": [], "skipped": why}
