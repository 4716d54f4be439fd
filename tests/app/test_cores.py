"""Cores that a process may use, where control groups bound its time."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from app import cores

GROUPS = Path("/sys/fs/cgroup")
ASK = "from app import cores; print(cores.usable(), cores.quota())"


def test_without_a_quota_it_is_what_the_process_is_bound_to(tmp_path):
    assert cores.quota(tmp_path, tmp_path / "none") == math.inf
    assert 1 <= cores.usable() <= len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("own", "files", "wanted"),
    [
        ("0::/a/b", {"cpu.max": "max 100000", "a/cpu.max": "150000 100000", "a/b/cpu.max": "max 100000"}, 1.5),
        ("0::/a", {"a/cpu.max": "50000 100000"}, 0.5),
        # In a container, told the host's path.
        ("0::/docker/abc", {"cpu.max": "200000 100000"}, 2),
        ("0::/", {}, math.inf),
        ("3:cpuset:/x\n1:cpu,cpuacct:/x", {"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3),
        ("1:cpu:/x", {"cpu/x/cpu.cfs_quota_us": "-1", "cpu/x/cpu.cfs_period_us": "100000"}, math.inf),
        ("2:cpuset:/", {"cpu.max": "50000 100000"}, math.inf),
        # A name with colons.
        ("0::/a:b", {"a:b/cpu.max": "120000 100000"}, 1.2),
    ],
)
def test_the_narrowest_group_above_counts(tmp_path, own, files, wanted):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    (tmp_path / "own").write_text(own + "\n")
    assert cores.quota(tmp_path, tmp_path / "own") == wanted


def test_a_process_in_a_real_group_has_what_the_group_is_given():
    """Where the system lets this user make one."""
    first = GROUPS / "cpu" if (GROUPS / "cpu").is_dir() else GROUPS
    group = first / f"graft-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    try:
        if first == GROUPS:
            (group / "cpu.max").write_text("100000 100000")
        else:
            (group / "cpu.cfs_quota_us").write_text("100000")
        inside = f"echo $$ > {group}/cgroup.procs && exec {sys.executable} -c '{ASK}'"
        done = subprocess.run(["sh", "-c", inside], check=True, capture_output=True, text=True, timeout=60)
    finally:
        group.rmdir()
    assert done.stdout.split() == ["1", "1.0"]
