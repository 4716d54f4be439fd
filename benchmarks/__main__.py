"""Runs the benchmarks one after the other and keeps their figures: `python -m benchmarks [NAME ...]`.

Each script beside this one prints one JSON document; it is stored under the script's name in `results/HARDWARE.json`.
Named alone, a benchmark replaces its own figures only.
Scripts in ONLY_NAMED, and those whose name begins with `gpu`, run only when named.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from app import process
from app.libraries import version

FOLDER = Path(__file__).parent
# Ten minutes on a machine that does nothing else.
ONLY_NAMED = ("soak",)
LIBRARIES = ("numpy", "onnxruntime", "torch", "torchvision", "timm", "sqlalchemy", "fastapi")


def scripts() -> dict[str, Path]:
    """Every benchmark by its name."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.py")) if not path.stem.startswith("_")}


def hardware() -> dict[str, Any]:
    """The machine, as far as figures depend on it."""
    found = re.search(r"^model name\s*:\s*(.+)$", _text(Path("/proc/cpuinfo")), re.MULTILINE)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cpu = found[1] if found else platform.processor()
    return {"cpu": cpu, "cores": cores, "gpu": process.gpu_name("auto"), "system": platform.system()}


def slug(machine: dict[str, Any]) -> str:
    """The machine's name in file names."""
    parts = (machine["cpu"], f"{machine['cores']} cores", machine["gpu"] or "")
    return re.sub(r"[^a-z0-9]+", "-", " ".join(parts).lower()).strip("-")


def measure(path: Path) -> dict[str, Any]:
    """Runs one script.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    ended = subprocess.run([sys.executable, path], stdout=subprocess.PIPE, text=True, check=True)
    document: dict[str, Any] = json.loads(ended.stdout)
    return document


def missed(found: Any, place: str) -> Iterator[str]:
    """Where `meets_goal` is false in what a benchmark has found."""
    if isinstance(found, dict):
        if found.get("meets_goal") is False:
            yield place
        for name, one in found.items():
            yield from missed(one, f"{place}.{name}")


def main() -> int:
    """Runs those that were named, or all; 1 when one of them missed a goal, whose figures are kept all the same."""
    known = scripts()
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(known)}; all but gpu* and soak by default")
    wanted = parser.parse_args().names or [
        name for name in known if not name.startswith("gpu") and name not in ONLY_NAMED
    ]
    unknown = [name for name in wanted if name not in known]
    if unknown:
        parser.error(f"expected names of {', '.join(known)}; found {', '.join(unknown)}")
    machine = hardware()
    target = FOLDER / "results" / f"{slug(machine)}.json"
    target.parent.mkdir(exist_ok=True)
    kept: dict[str, Any] = json.loads(_text(target) or "{}")
    for name in wanted:
        sys.stderr.write(f"{name} ...\n")
        kept |= {"hardware": machine, "python": platform.python_version()}
        kept["libraries"] = {library: version(library) for library in LIBRARIES}
        kept.setdefault("results", {})[name] = measure(known[name])
        target.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
    below = [one for name in wanted for one in missed(kept["results"][name], name)]
    sys.stderr.writelines(f"MISSED: the goal of {one}\n" for one in below)
    sys.stderr.write(f"wrote {target}\n")
    return 1 if below else 0


def _text(path: Path) -> str:
    return path.read_text() if path.is_file() else ""


if __name__ == "__main__":
    raise SystemExit(main())
