"""`make chaos`: nothing is lost and nothing doubled, whatever breaks. `python -m benchmarks.chaos [PART ...]`.

Every fault is counted in results/chaos-HARDWARE.json at once. What went wrong stays there, and says so; a part that was
not measured is absent; the long ones, while they are not `complete`, are gone on with by the next run.
"""

import argparse
import json
import sys
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.__main__ import hardware, slug
from benchmarks.chaos import parts, prepare

RESULTS = Path(__file__).parents[1] / "results"


def read(target: Path) -> dict[str, Any]:
    """What was measured so far."""
    found: dict[str, Any] = json.loads(target.read_text()) if target.is_file() else {"parts": {}}
    return found


def keep(target: Path, part: str, stack: str, document: dict[str, Any]) -> None:
    """Adds one part on one stack to what is there; the other stack may be measured by another process."""
    kept = read(target) | {"hardware": hardware()}
    kept["parts"].setdefault(part, {})[stack] = document
    target.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")


def main() -> int:
    """Runs the parts that were named, or all; 1 when something was lost or doubled."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(parts.PARTS)}; all by default")
    parser.add_argument("--stack", choices=("local", "team"), action="append", help="both by default")
    parser.add_argument("--minutes", type=float, default=60.0, help="no fault begins after this time")
    parser.add_argument("--again", action="store_true", help="measure again what stands")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="for what is made on the way")
    given = parser.parse_args()
    unknown = [name for name in given.names if name not in parts.PARTS]
    if unknown:
        parser.error(f"expected names of {', '.join(parts.PARTS)}; found {', '.join(unknown)}")
    target = RESULTS / f"chaos-{slug(hardware())}.json"
    deadline = time.monotonic() + 60 * given.minutes
    bad = 0
    with tempfile.TemporaryDirectory(prefix="graft-chaos-", dir=given.folder) as name:
        folder = prepare.backbones(Path(name))
        for part, stack in product(given.names or parts.PARTS, given.stack or ("local", "team")):
            before = {} if given.again else read(target)["parts"].get(part, {}).get(stack, {})
            if before.get("complete"):
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
                keep(target, part, stack, before | {"complete": False})
                if time.monotonic() > deadline:
                    sys.stderr.write(f"{part} on {stack}: no time left; the next run goes on from here\n")
                    rows.close()
                    break
            else:
                keep(target, part, stack, before | {"complete": True})
    sys.stderr.write(f"{bad} wrong; counts in {target}\n")
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
