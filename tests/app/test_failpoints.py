"""What an armed place does, once, and that every place of the registry is in the code once."""

import os
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from app import failpoints

ROOT = Path(__file__).parents[2]


def reaching(folder, name, times=1):
    """A process of its own that reaches a place, with the folder as its setting."""
    code = f"from app import failpoints\nfor _ in range({times}): failpoints.reach({name!r})"
    environment = {**os.environ, failpoints.VARIABLE: str(folder)}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def test_every_place_is_in_the_code_once():
    found = Counter(
        name
        for room in ("app", "worker")
        for path in (ROOT / room).rglob("*.py")
        for name in re.findall(r"failpoints\.reach\(([^)]*)\)", path.read_text("utf-8"))
    )
    assert found == Counter(f'"{name}"' for name in failpoints.POINTS)


def test_an_armed_place_kills_one_process_once(tmp_path):
    (tmp_path / "claim_commit").write_text("kill")
    assert reaching(tmp_path, "claim_committed").returncode == 0
    assert reaching(tmp_path, "claim_commit").returncode == -signal.SIGKILL
    assert [path.name for path in tmp_path.iterdir()] == ["claim_commit.reached"]
    assert reaching(tmp_path, "claim_commit", times=2).returncode == 0


def test_a_full_disk_is_told_once(tmp_path, monkeypatch):
    monkeypatch.setattr(failpoints, "_folder", str(tmp_path))
    (tmp_path / "part_stored").write_text("full")
    with pytest.raises(OSError, match="No space left"):
        failpoints.reach("part_stored")
    failpoints.reach("part_stored")


def test_what_cannot_be_read_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(failpoints, "_folder", str(tmp_path))
    (tmp_path / "part_stored").write_text("explode")
    with pytest.raises(ValueError, match="expected kill, full, sleep SECONDS or take BYTES; found 'explode'"):
        failpoints.reach("part_stored")


def test_memory_is_taken_once(tmp_path, monkeypatch):
    monkeypatch.setattr(failpoints, "_folder", str(tmp_path))
    (tmp_path / "part_stored").write_text(f"take {1 << 60}")
    with pytest.raises(MemoryError):
        failpoints.reach("part_stored")
    failpoints.reach("part_stored")
