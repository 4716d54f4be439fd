"""What zip and tar have in common: members as streams, names that are only text, and a budget against bombs."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from worker.data.limits import Limits
from worker.data.problems import Problems

# No file system has longer paths.
MAX_NAME_CHARS = 4096
RATIO_FLOOR_BYTES = 64 * 2**20
CHUNK_BYTES = 2**20
_JUNK = frozenset({"__macosx", "thumbs.db", "desktop.ini", ".ds_store", ".git", ".ipynb_checkpoints"})
_DRIVE = re.compile(r"^[A-Za-z]:")


class UnreadableMember(Exception):
    """One member does not unpack; the others may."""


@dataclass(frozen=True, slots=True)
class Member:
    """One file of the archive: its name, the share of the archive that lies before it, and what streams its content.

    `chunks` must be used before the next member is asked for. It raises UnreadableMember, or Rejected for a bomb.
    """

    path: str
    size_bytes: int
    share_before: float
    chunks: Callable[[], Iterator[bytes]]


def readable_name(raw: bytes) -> tuple[str, bool]:
    """A name as text, and whether it was UTF-8; if not, it is read as code page 437, which knows every byte."""
    try:
        return raw.decode(), True
    except UnicodeDecodeError:
        return raw.decode("cp437"), False


def unsafe(name: str) -> str | None:
    """Why a member's name could reach outside, or None."""
    parts = name.replace("\\", "/").split("/")
    if parts[0] == "" and len(parts) > 1:
        return f"an absolute path, {name!r}"
    if _DRIVE.match(name):
        return f"a drive letter, {name!r}"
    if ".." in parts:
        return f"'..' in {name!r}"
    if len(name) > MAX_NAME_CHARS:
        return f"a name of {len(name)} characters"
    if "\0" in name:
        return f"a NUL character in {name!r}"
    return None


class Passed:
    """Which members are passed over: what systems leave in archives, silently; other hidden ones with a finding.

    Args:
        problems: gets one finding for each top-most hidden folder or file.
    """

    def __init__(self, problems: Problems) -> None:
        self._problems = problems
        self._noted: set[str] = set()

    def over(self, name: str) -> bool:
        """Whether the member is passed over."""
        parts = name.split("/")
        if any(part.lower() in _JUNK or part.startswith("._") for part in parts):
            return True
        depth = next((place for place, part in enumerate(parts, start=1) if part.startswith(".")), None)
        if depth is None:
            return False
        top = "/".join(parts[:depth])
        if top not in self._noted:
            self._noted.add(top)
            self._problems.add("hidden_ignored", top)
        return True


def normal(name: str) -> str:
    """Without empty parts and dots; a folder's name loses its slash."""
    return "/".join(part for part in name.split("/") if part not in {"", "."})


class Budget:
    """Counts what really came out of the archive against the limits."""

    def __init__(self, path: Path, limits: Limits, problems: Problems) -> None:
        self._ratio_bytes = max(RATIO_FLOOR_BYTES, int(limits.max_ratio * path.stat().st_size))
        self._limits, self._problems = limits, problems
        self._num_entries, self._num_bytes = 0, 0

    def count_entry(self) -> None:
        """Counts one member."""
        self._num_entries += 1
        if self._num_entries > self._limits.max_entries:
            limit = f"{self._limits.max_entries} members"
            raise self._problems.reject("bomb", limit=limit, found=f"more than {self._limits.max_entries}")

    def check(self, num_bytes: int, path: str = "") -> None:
        """Refuses when the archive would hold `num_bytes` more."""
        total = self._num_bytes + num_bytes
        if total > self._limits.max_total_bytes:
            raise self._problems.reject(
                "bomb", path, limit=f"{self._limits.max_total_bytes} bytes uncompressed", found=f"at least {total}"
            )
        if total > self._ratio_bytes:
            raise self._problems.reject(
                "bomb",
                path,
                limit=f"{self._limits.max_ratio:g} times the archive's size once unpacked",
                found=f"at least {total} bytes",
            )

    def count(self, chunk: bytes, path: str) -> bytes:
        """Counts what was unpacked, and passes it on."""
        self.count_bytes(len(chunk), path)
        return chunk

    def count_bytes(self, num_bytes: int, path: str) -> None:
        """Counts what was unpacked and is gone."""
        self.check(num_bytes, path)
        self._num_bytes += num_bytes
