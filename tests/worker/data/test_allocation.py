"""Freed memory goes back to the system: the same steps with and without the setting, in a process of their own."""

import subprocess
import sys

import pytest

STEPS = """
import re
from pathlib import Path
from worker.data.allocation import give_back

def resident_mb():
    return int(re.search(r"VmRSS:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024

{setting}
before = resident_mb()
# glibc takes it from the size of what is freed here that smaller blocks are worth keeping.
del [bytearray(2**24)][:]
blocks = [bytearray(2**20) for _ in range(64)]
above = bytearray(2**16)
blocks.clear()
print(resident_mb() - before)
"""


def grown_mb(setting: str) -> float:
    done = subprocess.run([sys.executable, "-c", STEPS.format(setting=setting)], capture_output=True, check=True)
    return float(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="a setting of glibc")
def test_what_is_freed_is_given_back() -> None:
    assert grown_mb("") > 40
    assert grown_mb("give_back()") < 5
