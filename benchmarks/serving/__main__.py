"""`make bench-serving`: Graft, LitServe, BentoML and the bare limit, on the same graph, photos and machine, in one run.

    python -m benchmarks.serving [--data ../shared/data] [--peers .peers] [--seconds 20] [PART ...]

Every part writes its figures into results/serving-HARDWARE.json. What is under its goal stays there, and says so.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.__main__ import hardware, slug
from benchmarks.serving import export, parts, peer_rounds
from benchmarks.serving.parts import Bench

ROOT = Path(__file__).parents[2]
PARTS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "throughput": parts.throughput,
    "one_client": parts.one_client,
    "overload": parts.overload,
    "peers": peer_rounds.run,
    "many_models": parts.many_models,
    "cold_start": parts.cold_start,
    "export": export.run,
}


def main() -> int:
    """Runs the parts that were named, or all; 1 when a goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(PARTS)}; all by default")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--peers", type=Path, default=ROOT / ".peers")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--backbone", default="timm/tf_efficientnet_lite0")
    given = parser.parse_args()
    unknown = [name for name in given.names if name not in PARTS]
    if unknown:
        parser.error(f"expected names of {', '.join(PARTS)}; found {', '.join(unknown)}")
    machine = hardware()
    target = ROOT / "benchmarks" / "results" / f"serving-{slug(machine)}.json"
    kept: dict[str, Any] = json.loads(target.read_text()) if target.is_file() else {}
    with tempfile.TemporaryDirectory(prefix="graft-bench-") as folder:
        bench = Bench.prepare(Path(folder), given.data, given.peers, given.backbone, given.seconds)
        for name in given.names or PARTS:
            sys.stderr.write(f"{name} ...\n")
            kept |= {"hardware": machine, "backbone": given.backbone, "libraries": bench.libraries()}
            kept.setdefault("parts", {})[name] = PARTS[name](bench)
            target.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
    goals = [goal for part in kept["parts"].values() for goal in part["goals"]]
    for goal in goals:
        sys.stderr.write(f"{'met' if goal['met'] else 'MISSED'}: {goal['what']}: {goal['found']} ({goal['goal']})\n")
    return 0 if all(goal["met"] for goal in goals) else 1


if __name__ == "__main__":
    raise SystemExit(main())
