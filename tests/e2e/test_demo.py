"""`make demo`: what a newcomer sees first."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests import processes

ROOT = Path(__file__).parents[2]
SECONDS = 600


def test_the_demo_shows_a_whole_transfer_and_cleans_up(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "examples/demo.py"],
        check=False,
        cwd=ROOT,
        env={**os.environ, "GRAFT_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    told = done.stdout
    assert done.returncode == 0, told + done.stderr
    accuracy = re.search(r"test accuracy (0\.\d+) \(95 % interval (0\.\d+) to (0\.\d+)\)", told)
    assert accuracy is not None, told
    found, low, high = map(float, accuracy.groups())
    # Ten classes: far from chance, and sure of it.
    assert 0.3 < low <= found <= high
    held_out = re.search(r"held-out accuracy (\d+)/60", told)
    assert held_out is not None, told
    assert int(held_out[1]) / 60 > 0.5
    assert re.search(r"^heart +\d+ +\d\.\d\d +\d\.\d\d +\d\.\d\d$", told, re.MULTILINE)
    for words in ("verdict: ", "confused in the test split", "/api/v1/models/emoji/predict", "Everything is stopped"):
        assert words in told
    assert processes.members(tmp_path / "home") == []
