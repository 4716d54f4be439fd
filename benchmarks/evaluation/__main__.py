"""How good the methods are, measured: `python -m benchmarks.evaluation [NAME ...]` (`make eval`).

Every part writes its own rows into results/evaluation.json, from which docs/methods.md takes its figures. Accuracies do
not depend on the machine, so there is one file for all. What is under its goal stays in the file, and says so.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from app.libraries import version
from benchmarks.evaluation import (
    adaptation,
    aligned,
    choosing,
    episodes,
    foretold,
    frozen,
    goals,
    mislabelled,
    naming,
    tuning,
)
from benchmarks.evaluation.lab import BACKBONE, Lab

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "evaluation.json"
PARTS: dict[str, Callable[[Lab], Iterator[dict[str, Any]]]] = {
    "frozen": frozen.run,
    "foretold": foretold.run,
    "episodes": episodes.run,
    "naming": naming.run,
    "aligned": aligned.run,
    "adaptation": adaptation.run,
    "tuning": tuning.run,
    "choosing": choosing.run,
    "mislabelled": mislabelled.run,
}
LIBRARIES = ("numpy", "onnxruntime", "torch", "torchvision", "timm")


def main() -> int:
    """Runs the parts that were named, or all; 1 when a goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evaluation", description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(PARTS)}; all by default")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--fonts", type=Path, default=Path("/usr/share/fonts"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--again", action="store_true", help="measure again what stands; long parts go on by default")
    given = parser.parse_args()
    unknown = [name for name in given.names if name not in PARTS]
    if unknown:
        parser.error(f"expected names of {', '.join(PARTS)}; found {', '.join(unknown)}")
    document: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {"parts": {}}
    with tempfile.TemporaryDirectory() as home:
        known = {} if given.again else dict(document["parts"])
        lab = Lab(Path(home), given.data, given.fonts, tuple(range(given.seeds)), known)
        for name in given.names or PARTS:
            sys.stderr.write(f"{name} ...\n")
            for found in PARTS[name](lab):
                document["parts"][name] = found
                document |= {
                    "backbone": BACKBONE,
                    "libraries": {library: version(library) for library in LIBRARIES},
                    "goals": goals.check(document["parts"]),
                }
                RESULTS.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
    for goal in document["goals"]:
        sys.stderr.write(
            f"{'met' if goal['met'] else 'MISSED'}: {goal['what']}: {goal['found']} (goal {goal['goal']})\n"
        )
    return 0 if all(goal["met"] for goal in document["goals"]) else 1


if __name__ == "__main__":
    raise SystemExit(main())
