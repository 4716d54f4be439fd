"""Celery's filesystem broker, with files that are whole or not there.

kombu's own opens a message, or the table of queues, before it writes it: a reader that comes in between finds an empty
file and takes the worker down with it. Here files come into being by a rename, and a message belongs to whoever removes
it.
"""

import time
from json import dumps, loads
from pathlib import Path
from queue import Empty
from typing import Any
from uuid import uuid4

from kombu.transport import filesystem

from app import failpoints


class Channel(filesystem.Channel):
    """One connection's view of the folders."""

    def _put(self, queue: str, payload: dict[str, Any], **_: Any) -> None:  # type: ignore[override]
        name = f"{time.monotonic_ns():020}_{uuid4().hex}.{queue}.msg"
        _write(Path(self.data_folder_out) / name, dumps(payload))

    def _get(self, queue: str, timeout: float | None = None) -> dict[str, Any]:
        try:
            found = sorted(Path(self.data_folder_in).iterdir())
        except FileNotFoundError:
            # Somebody has wiped the folder; whoever rings next makes it again.
            raise Empty from None
        for path in found:
            if path.name.partition(".")[2] != f"{queue}.msg":
                continue
            try:
                text = path.read_text(encoding="utf-8")
                path.unlink()
            except FileNotFoundError:
                continue  # another reader has it
            message: dict[str, Any] = loads(text)
            return message
        raise Empty

    def _size(self, queue: str) -> int:
        Path(self.data_folder_in).mkdir(parents=True, exist_ok=True)
        return int(super()._size(queue))

    def _lookup(self, exchange: str, routing_key: str, default: str | None = None) -> list[str]:
        # Queues are named as their keys: a table of them that was wiped takes no message along.
        return [routing_key]

    def _queue_bind(self, exchange: str, routing_key: str | None, pattern: str | None, queue: str | None) -> None:
        wanted = filesystem.exchange_queue_t(routing_key or "", pattern or "", queue or "")
        self.control_folder.mkdir(parents=True, exist_ok=True)
        with (self.control_folder / "lock").open("w") as held:
            filesystem.lock(held, filesystem.LOCK_EX)
            table = self.get_table(exchange)
            if wanted not in table:
                _write(self._exchange_file(exchange), dumps([wanted, *table]))
            filesystem.unlock(held)


class Transport(filesystem.Transport):
    """`app.folder_broker:Transport` for Celery."""

    Channel = Channel


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{uuid4().hex}.part")
    part.write_text(text, encoding="utf-8")
    failpoints.reach("bell_written")
    part.replace(path)
