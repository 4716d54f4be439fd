"""`make chaos`: nothing is lost and nothing doubled, whatever breaks. `python -m benchmarks.chaos [PART ...]`.

Every fault is counted in results/chaos.json at once: what is lost does not depend on the machine, so there is one file
for all, which names them. What went wrong stays there, and says so; a part that was not measured is absent; the long
ones, while they are not `complete`, are gone on with by the next run. `measured_at` says which code met how many
faults, by a digest of its rooms; `num_of_other_code` how many met another than the last run's: such a part is begun
anew. What is complete of today's code is left out, unless nothing else was asked for. Both stacks are broken side by
side, each in two lanes (`parts.LANES`) with servers of their own: most of the time is spent waiting for what
was killed to come back. One SIGINT or SIGTERM ends all of it.
"""

import argparse
import fcntl
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks.__main__ import hardware, slug
from benchmarks.chaos import clock, code, parts, prepare

RESULTS = Path(__file__).parents[1] / "results" / "chaos.json"
STACKS = ("local", "team")
# As shells tell of SIGINT.
STOPPED = 130


def read(results: Path) -> dict[str, Any]:
    """What was measured so far."""
    found: dict[str, Any] = json.loads(results.read_text()) if results.is_file() else {"parts": {}}
    return found


def keep(results: Path, part: str, stack: str, document: dict[str, Any]) -> None:
    """Adds one part on one stack to what is there; the other stack is measured by another process."""
    machines = {*document.get("hardware", []), slug(hardware())}
    folder = os.open(results.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        kept = read(results)
        kept["code"] = {"digest": code.digest(), "commit": code.commit()}
        kept["parts"].setdefault(part, {})[stack] = document | {"hardware": sorted(machines)}
        for found in (one for stacks in kept["parts"].values() for one in stacks.values()):
            found["num_of_other_code"] = parts.num_of_other_code(found)
        whole = results.with_suffix(".part")
        whole.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
        whole.replace(results)
    finally:
        os.close(folder)


def main() -> int:
    """Runs the parts that were named, or all; 1 when something was lost or doubled."""
    given = arguments()
    clock.listen()
    lanes = [(stack, lane) for stack in given.stack or STACKS for lane in parts.lanes(given.names)]
    if given.again is None:
        found = read(given.results)
        given.again = all(
            parts.is_done(part, stack, parts.so_far(found, part, stack)) for stack, lane in lanes for part in lane
        )
    if len(lanes) == 1:
        return broken(given, *lanes[0])
    options = ["--minutes", str(given.minutes), "--results", given.results, "--folder", given.folder]
    options.append("--again" if given.again else "--no-again")
    command = [sys.executable, "-m", "benchmarks.chaos", *options]
    return ended([subprocess.Popen([*command, "--stack", stack, *lane]) for stack, lane in lanes])


def ended(children: list[subprocess.Popen[bytes]]) -> int:
    """The worst status of all, which are told to end when this process is."""
    try:
        while any(child.poll() is None for child in children):
            clock.rest(clock.LOOK_SECONDS)
    except clock.Stopped:
        for child in children:
            child.terminate()
    return max(child.wait() for child in children)


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(parts.PARTS)}; all by default")
    parser.add_argument("--stack", choices=STACKS, action="append", help="both by default")
    parser.add_argument("--minutes", type=float, default=50.0, help="after which nothing begins")
    parser.add_argument(
        "--again",
        action=argparse.BooleanOptionalAction,
        help="measure again what stands of this code; by default where there is nothing else",
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="file of the counts")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="for what is made on the way")
    given = parser.parse_args()
    unknown = [name for name in given.names if name not in parts.PARTS]
    if unknown:
        parser.error(f"expected names of {', '.join(parts.PARTS)}; found {', '.join(unknown)}")
    return given


def broken(given: argparse.Namespace, stack: str, names: Sequence[str]) -> int:
    """Parts on one stack, one after the other; 1 when something was lost or doubled."""
    deadline = time.monotonic() + 60 * given.minutes
    bad = 0
    try:
        with tempfile.TemporaryDirectory(prefix="graft-chaos-", dir=given.folder) as name:
            folder = prepare.backbones(Path(name))
            for part in names:
                for row in measured(given, stack, part, folder, deadline):
                    line = {name: value for name, value in row.items() if name != "wrong"}
                    sys.stderr.write(f"{'WRONG' if row['wrong'] else 'ok   '} {part}: {json.dumps(line)}\n")
                    sys.stderr.writelines(f"      {one}\n" for text in row["wrong"] for one in text.splitlines())
                    bad += bool(row["wrong"])
    except clock.Stopped:
        sys.stderr.write(f"{stack}: told to end; the next run goes on from here\n")
    sys.stderr.write(f"{stack}: {bad} wrong; counts in {given.results}\n")
    if bad:
        return 1
    return STOPPED if clock.is_told_to_end() else 0


def measured(
    given: argparse.Namespace, stack: str, part: str, folder: Path, deadline: float
) -> Iterator[dict[str, Any]]:
    """The rows of one part, each of which is kept at once, whatever ends the next one."""
    before = {} if given.again else parts.so_far(read(given.results), part, stack)
    if parts.is_done(part, stack, before):
        sys.stderr.write(f"{part} on {stack}: complete with this code; --again measures it again\n")
        return
    if time.monotonic() > deadline:
        return
    if part not in parts.GONE_ON_WITH:
        before = {}
    with closing(parts.PARTS[part](folder, stack, before)) as rows:
        began = time.monotonic()
        for row in rows:
            row.setdefault("seconds", round(time.monotonic() - began, 1))
            before = parts.document(before, [row])
            keep(given.results, part, stack, before | {"complete": False})
            yield row
            if part in parts.GONE_ON_WITH and time.monotonic() > deadline:
                sys.stderr.write(f"{part} on {stack}: no time left; the next run goes on from here\n")
                return
            began = time.monotonic()
    keep(given.results, part, stack, parts.document(before, []) | {"complete": True})


if __name__ == "__main__":
    raise SystemExit(main())
