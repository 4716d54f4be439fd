"""Which code was broken: what was measured of other code than today's is told apart."""

import hashlib
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
# What a service runs. Commits change without it, and it changes before a commit.
ROOMS = ("app", "worker", "migrations")


@cache
def digest() -> str:
    """Of every file of the rooms; the same wherever the same code lies."""
    found = hashlib.sha256()
    for path in sorted(path for room in ROOMS for path in (ROOT / room).rglob("*")):
        if path.is_file() and path.suffix != ".pyc":
            found.update(f"{path.relative_to(ROOT).as_posix()} {path.stat().st_size}\n".encode())
            found.update(path.read_bytes())
    return found.hexdigest()[:12]


@cache
def commit() -> str:
    """The checked out commit, for people; `+` says that the rooms differ from it, and nothing that there is none."""
    try:
        head = _git("rev-parse", "--short=9", "HEAD").strip()
        changed = _git("status", "--porcelain", "--", *ROOMS)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return head + "+" * bool(changed)


def _git(*arguments: str) -> str:
    return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True).stdout
