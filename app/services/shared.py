"""Objects that many rows name: graphs of frozen backbones, and backbones of a project. Nobody owns them.

Whoever is to name one looks for it first, finds it, and names it later, in another process. A collection between the
two would take it away. So both stand in line: a row is written, and an object removed, under one lock, and whoever
comes second sees what the first has done (decision 0032). On SQLite transactions that write stand in line anyway.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy.orm import Session

from app.db.locks import Lock, hold
from app.errors import Collected
from app.storage import Storage


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
