"""What a fast report adds to a warm job: the forecast before training and everything that is scored after it.

    python benchmarks/report.py [--data ../shared/data] [--repeats 5]

Timed around the two calls inside a warm `linear_probe` of 1,046 emoji, in this process; other seeds, so other splits.
Prints one JSON document.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import _pipeline
from worker.reports import foresight, report

BACKBONE = "timm/tf_efficientnet_lite0"
GOAL_SECONDS = 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    sys.stdout, out = sys.stderr, sys.stdout
    spent: dict[str, list[float]] = {"forecast": [], "report": []}
    foresight.Foresight.__call__ = timed(foresight.Foresight.__call__, spent["forecast"])  # type: ignore[method-assign]
    report.evaluate = timed(report.evaluate, spent["report"])
    jobs = []
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        dataset = _pipeline.stored(home, given.data / "emoji_google.zip", "ds_emoji")
        for seed in range(given.repeats + 1):
            began = time.perf_counter()
            _pipeline.run(home, dataset, {"method": "linear_probe"}, BACKBONE, seed=seed)
            jobs.append(time.perf_counter() - began)
    # The first one extracts, and imports.
    added = [sum(pair) for pair in list(zip(*spent.values(), strict=True))[1:]]
    document = {
        "rows": 1046,
        "job_seconds": round(statistics.median(jobs[1:]), 3),
        "added_seconds": round(statistics.median(added), 3),
        "all": [round(one, 3) for one in added],
        **{f"{name}_seconds": round(statistics.median(found[1:]), 3) for name, found in spent.items()},
        "goal_seconds": GOAL_SECONDS,
        "meets_goal": statistics.median(added) <= GOAL_SECONDS,
    }
    out.write(json.dumps(document, indent=1) + "\n")


def timed(call: Callable[..., Any], spent: list[float]) -> Callable[..., Any]:
    """The same call, its seconds noted."""

    def measured(*given: Any, **named: Any) -> Any:
        began = time.perf_counter()
        try:
            return call(*given, **named)
        finally:
            spent.append(time.perf_counter() - began)

    return measured


if __name__ == "__main__":
    main()
