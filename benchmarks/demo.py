"""`make demo` after installation, as a process: from its start to its end, on a fresh home.

    python benchmarks/demo.py [--repeats 3]

Goal: at most 60 s, exit status 0. Prints one JSON document.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
GOAL_SECONDS = 60.0
# A home or port of the caller's would be used, and kept.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("GRAFT_")}


def seconds() -> float:
    """One demo.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    began = time.perf_counter()
    command = [sys.executable, str(ROOT / "examples" / "demo.py")]
    subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=3)
    runs = [seconds() for _ in range(parser.parse_args().repeats)]
    document = {
        "seconds": [round(run, 1) for run in runs],
        "median_seconds": round(statistics.median(runs), 1),
        "goal_seconds": GOAL_SECONDS,
        "meets_goal": max(runs) <= GOAL_SECONDS,
    }
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
