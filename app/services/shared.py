"""Objects that many rows name: graphs of frozen backbones, and backbones of a project. Nobody owns them.

Whoever is to name one looks for it first, finds it, and names it later, in another process. A collection between the
two would take it away. So both stand in line: a row is written, and an object removed, under one lock, and whoever
comes second sees what the first has done (decision 0032). On SQLite transactions that write stand in line anyway.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy.orm import Session

from app.db.locks import Lock, hold
from app.db.session import Database
from app.errors import Collected
from app.services import references
from app.storage import Storage

GIVEN_UP = "graphs"

log = logging.getLogger(__name__)


def keep(session: Session, storage: Storage, keys: Iterable[str]) -> None:
    """What a transaction asks before it writes a row that names shared objects; none is removed until it ends.

    Raises:
        Collected: one was removed since it was looked for; to be stored again.
    """
    wanted = sorted(set(keys))
    if not wanted:
        return
    hold(session.connection(), Lock.SHARED_OBJECTS, shared=True)
    gone = [key for key in wanted if storage.stat(key) is None]
    if gone:
        raise Collected(
            f"expected {', '.join(gone)} in storage, which was there a moment ago; found that it was removed, since "
            "nothing named it; send it again",
            retry_after_seconds=1,
        )


def take(session: Session) -> None:
    """What a collection asks before it looks whether anything names an object, and removes it in this transaction."""
    # A transaction begins with its connection: on SQLite this alone is the lock.
    hold(session.connection(), Lock.SHARED_OBJECTS)


def of_spec(spec: Mapping[str, Any]) -> list[str]:
    """Keys that a version's spec names beside its own files."""
    return [file["key"] for file in spec["files"].values() if file["key"] is not None]


def of_result(result: Mapping[str, Any]) -> list[str]:
    """Keys that the rows of a job's result will name."""
    keys = of_spec(result["spec"]) if "spec" in result else []
    if result.get("moving_backbone"):
        keys.append(result["moving_backbone"]["graph"]["key"])
    if result.get("document"):
        keys.append(f"{result['document']['prefix']}/record.json")
    return keys


def give_up(session: Session, keys: Iterable[str | None]) -> None:
    """Remembers on the session what a row named that goes; to be freed after the commit."""
    session.info.setdefault(GIVEN_UP, set()).update(key for key in keys if key is not None)


def take_given_up(session: Session) -> set[str]:
    """What was remembered; whoever commits frees it afterwards."""
    keys: set[str] = session.info.pop(GIVEN_UP, set())
    return keys


@contextmanager
def tried(database: Database, storage: Storage) -> Iterator[set[str]]:
    """For a block that stores graphs, and may fail: those that it adds to the set are then freed."""
    keys: set[str] = set()
    try:
        yield keys
    except BaseException:
        free(database, storage, keys)
        raise


def free(database: Database, storage: Storage, keys: Iterable[str]) -> None:
    """Removes graphs that a project has brought and nothing names any more: till a collection nobody would count them.

    Whoever was about to name one is told that it went, see `keep`. What cannot be removed now is left to a collection.
    """
    for key in sorted(set(keys)):
        place = references.place(key)
        try:
            with database.write() as session:
                take(session)
                if place is not None and not references.named(session, {place}):
                    storage.delete("/".join(place))
        except Exception:
            # The transaction that gave it up is committed: whatever is wrong here changes nothing of what was said.
            log.exception("%s could not be removed; a collection will", key)
