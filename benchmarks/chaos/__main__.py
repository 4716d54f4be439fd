"""`make chaos`: nothing is lost and nothing doubled, whatever breaks. `python -m benchmarks.chaos [PART ...]`.

Every fault is counted in results/chaos.json at once: what is lost does not depend on the machine, so there is one file
for all, which names them. What went wrong stays there, and says so; a part that was not measured is absent; the long
ones, while they are not `complete`, are gone on with by the next run. Both stacks are broken side by side, each by a
process of its own: most of the time is spent waiting for what was killed to come back.
"""

import argparse
import fcntl
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.__main__ import hardware, slug
from benchmarks.chaos import parts, prepare

RESULTS = Path(__file__).parents[1] / "results" / "chaos.json"
STACKS = ("local", "team")


def read() -> dict[str, Any]:
    """What was measured so far."""
    found: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {"parts": {}}
    return found


def keep(part: str, stack: str, document: dict[str, Any]) -> None:
    """Adds one part on one stack to what is there; the other stack is measured by another process."""
    machines = {*document.get("hardware", []), slug(hardware())}
    folder = os.open(RESULTS.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        kept = read()
        kept["parts"].setdefault(part, {})[stack] = document | {"hardware": sorted(machines)}
        RESULTS.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
    finally:
        os.close(folder)


def main() -> int:
    """Runs the parts that were named, or all; 1 when something was lost or doubled."""
    given = arguments()
    stacks = given.stack or STACKS
    if len(stacks) == 1:
        return broken(given, stacks[0])
    command = [sys.executable, "-m", "benchmarks.chaos", *sys.argv[1:]]
    children = [subprocess.Popen([*command, "--stack", stack]) for stack in stacks]
    return max(child.wait() for child in children)


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(parts.PARTS)}; all by default")
    parser.add_argument("--stack", choices=STACKS, action="append", help="both by default")
    parser.add_argument("--minutes", type=float, default=60.0, help="no fault begins after this time")
    parser.add_argument("--again", action="store_true", help="measure again what stands")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="for what is made on the way")
    given = parser.parse_args()
    unknown = [name for name in given.names if name not in parts.PARTS]
    if unknown:
        parser.error(f"expected names of {', '.join(parts.PARTS)}; found {', '.join(unknown)}")
    return given


def broken(given: argparse.Namespace, stack: str) -> int:
    """The parts on one stack; 1 when something was lost or doubled."""
    deadline = time.monotonic() + 60 * given.minutes
    bad = 0
    with tempfile.TemporaryDirectory(prefix="graft-chaos-", dir=given.folder) as name:
        folder = prepare.backbones(Path(name))
        for part in given.names or parts.PARTS:
            before = {} if given.again else read()["parts"].get(part, {}).get(stack, {})
            if parts.is_done(part, stack, before):
                continue
            if part not in parts.GONE_ON_WITH:
                before = {}
            rows = parts.PARTS[part](folder, stack, before)
            for row in rows:
                line = {name: value for name, value in row.items() if name != "wrong" or value}
                sys.stderr.write(f"{'WRONG' if row['wrong'] else 'ok   '} {part}: {json.dumps(line)}\n")
                bad += bool(row["wrong"])
                before = parts.document(before, [row])
                # What is measured is measured, whatever ends the next one.
                keep(part, stack, before | {"complete": False})
                if time.monotonic() > deadline:
                    sys.stderr.write(f"{part} on {stack}: no time left; the next run goes on from here\n")
                    rows.close()
                    break
            else:
                keep(part, stack, before | {"complete": True})
    sys.stderr.write(f"{stack}: {bad} wrong; counts in {RESULTS}\n")
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
