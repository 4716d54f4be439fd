"""`make chaos`: nothing is lost and nothing doubled, whatever breaks. `python -m benchmarks.chaos [PART ...]`.

Every part writes its counts into results/chaos-HARDWARE.json as it goes. What went wrong stays there, and says so; a
part that was not measured is absent.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.__main__ import hardware, slug
from benchmarks.chaos import parts, prepare

RESULTS = Path(__file__).parents[1] / "results"


def main() -> int:
    """Runs the parts that were named, or all; 1 when something was lost or doubled."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(parts.PARTS)}; all by default")
    parser.add_argument("--stack", choices=("local", "team"), action="append", help="both by default")
    parser.add_argument("--minutes", type=float, default=60.0, help="no part begins after this time")
    parser.add_argument("--only", default="", help="words that a case of a part must have in its name")
    parser.add_argument("--again", action="store_true", help="measure again what stands")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="for what is made on the way")
    given = parser.parse_args()
    unknown = [name for name in given.names if name not in parts.PARTS]
    if unknown:
        parser.error(f"expected names of {', '.join(parts.PARTS)}; found {', '.join(unknown)}")
    # Processor time is what the parts need; whoever else uses the machine goes before.
    os.nice(0)
    machine = hardware()
    target = RESULTS / f"chaos-{slug(machine)}.json"
    kept: dict[str, Any] = json.loads(target.read_text()) if target.is_file() else {}
    kept["hardware"] = machine
    deadline = time.monotonic() + 60 * given.minutes
    bad = 0
    with tempfile.TemporaryDirectory(prefix="graft-chaos-", dir=given.folder) as name:
        folder = prepare.backbones(Path(name))
        for part in given.names or parts.PARTS:
            for stack in given.stack or ("local", "team"):
                counts = kept.setdefault("parts", {}).setdefault(part, {})
                if stack in counts and not given.again and not given.only:
                    continue
                if time.monotonic() > deadline:
                    sys.stderr.write(f"{part} on {stack}: no time left\n")
                    continue
                found = parts.Counted()
                began = time.monotonic()
                for row in parts.PARTS[part](folder, stack, deadline):
                    if given.only and given.only not in row["what"]:
                        continue
                    found.add(row)
                    line = {name: value for name, value in row.items() if name != "wrong" or value}
                    sys.stderr.write(f"{'ok   ' if not row['wrong'] else 'WRONG'} {part}: {json.dumps(line)}\n")
                if not given.only:
                    counts[stack] = found.document() | {"minutes": round((time.monotonic() - began) / 60, 1)}
                    target.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
                bad += found.num_wrong
    sys.stderr.write(f"{bad} wrong; counts in {target}\n")
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
