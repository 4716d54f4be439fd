"""Ingestion against a bare loop that unzips, hashes and decodes, and its peak memory as the dataset grows.

    python benchmarks/ingestion.py [--data ../shared/data] [--sizes 1000 20000 100000] [--repeats 9]

Prints one JSON document. Each run is a process of its own, so that its peak memory is its own; bare loop and
ingestion take turns, and the medians are compared. The larger archives hold random crops of the photos of
`stamps_photos` (Debian package tuxpaint-stamps-default), saved again as JPEG, so that no two are copies. `peak_mb` is
the ingesting process, `child_peak_mb` the largest decoding child.
"""

import argparse
import hashlib
import io
import json
import multiprocessing
import os
import platform
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

from PIL import Image

from worker.data import allocation

GOAL = 0.6
# Of all repeats together: a large archive takes long enough to be timed once or twice.
MOST_IMAGES = 50_000


class FolderStore:
    """A dataset store that is a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, relative_name: str, local_path: Path) -> None:
        target = self._folder / relative_name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(local_path, target)


def bare(archive: Path) -> dict[str, Any]:
    """Unzip, hash, decode: nothing checked, nothing kept."""
    num, start = 0, time.perf_counter()
    with zipfile.ZipFile(archive) as file:
        for info in file.infolist():
            if not info.is_dir():
                data = file.read(info)
                hashlib.sha256(data).digest()
                Image.open(io.BytesIO(data)).convert("RGB")
                num += 1
    return {"num_images": num, "seconds": time.perf_counter() - start}


def ingested(archive: Path) -> dict[str, Any]:
    """The real thing, into a folder."""
    from worker.data.ingest import IngestRequest, ingest

    allocation.give_back()
    with tempfile.TemporaryDirectory(dir=archive.parent) as folder:
        scratch, stored = Path(folder) / "scratch", Path(folder) / "stored"
        scratch.mkdir()
        start = time.perf_counter()
        request = IngestRequest(archive=archive, filename=archive.name, dataset_id="ds_benchmark", scratch=scratch)
        result = ingest(request, FolderStore(stored), lambda *_: None)
        seconds = time.perf_counter() - start
    if result.state != "ready":
        raise SystemExit(f"{archive}: {result.failure}")
    peak_kb = {
        name: resource.getrusage(who).ru_maxrss
        for name, who in (("peak_mb", resource.RUSAGE_SELF), ("child_peak_mb", resource.RUSAGE_CHILDREN))
    }
    return {
        "num_images": result.num_samples,
        "seconds": seconds,
        **{name: round(value / 1024) for name, value in peak_kb.items()},
    }


RUNS = {"bare": bare, "ingested": ingested}


def compare(archive: Path, repeats: int) -> dict[str, Any]:
    """Bare loop and ingestion in turns, each in a fresh process."""
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in RUNS}
    for _ in range(repeats):
        for name, found in runs.items():
            command = [sys.executable, __file__, "--run", name, "--archive", str(archive)]
            environment = {**os.environ, **allocation.ENVIRONMENT, "PYTHONPATH": str(Path(__file__).parent.parent)}
            found.append(json.loads(subprocess.run(command, check=True, capture_output=True, env=environment).stdout))
    seconds = {name: statistics.median(run["seconds"] for run in found) for name, found in runs.items()}
    num = runs["ingested"][0]["num_images"]
    ratio = seconds["bare"] / seconds["ingested"]
    return {
        "archive": archive.name,
        "num_images": num,
        "archive_mb": round(archive.stat().st_size / 2**20, 1),
        "bare_images_per_second": round(num / seconds["bare"]),
        "images_per_second": round(num / seconds["ingested"]),
        "ratio": round(ratio, 2),
        "meets_goal": ratio >= GOAL,
        "peak_mb": max(run["peak_mb"] for run in runs["ingested"]),
        "child_peak_mb": max(run["child_peak_mb"] for run in runs["ingested"]),
    }


def make_archive(photos: Path, num: int, target: Path) -> None:
    """Random crops, a quarter to nine tenths of the side, at 256 px."""
    chance = random.Random(0)
    with zipfile.ZipFile(photos) as source, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as out:
        originals = [
            (info.filename.split("/")[-2], Image.open(io.BytesIO(source.read(info))).convert("RGB"))
            for info in source.infolist()
            if not info.is_dir()
        ]
        for number in range(num):
            name, image = originals[number % len(originals)]
            width, height = image.size
            share = chance.uniform(0.25, 0.9)
            left, top = chance.uniform(0, width * (1 - share)), chance.uniform(0, height * (1 - share))
            crop = image.resize((256, 256), box=(left, top, left + width * share, top + height * share))
            encoded = io.BytesIO()
            crop.rotate(chance.choice((0, 90, 180, 270))).save(encoded, "JPEG", quality=90)
            out.writestr(f"photos/{name}/{number:06d}.jpg", encoded.getvalue())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--sizes", type=int, nargs="*", default=[1000, 20000, 100000])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--run", choices=RUNS, help=argparse.SUPPRESS)
    parser.add_argument("--archive", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        print(json.dumps(RUNS[arguments.run](arguments.archive)))
        return
    photos = arguments.data / "stamps_photos.zip"
    sets = [photos, arguments.data / "emoji_google.zip"]
    missing = [str(path) for path in sets if not path.exists()]
    results = []
    with tempfile.TemporaryDirectory() as folder:
        results += [compare(Path(shutil.copy(path, folder)), arguments.repeats) for path in sets if path.exists()]
        for num in arguments.sizes if photos.exists() else []:
            archive = Path(folder) / f"crops_{num}.zip"
            # In a process of its own: what this one holds would count as a peak of those that it starts.
            making = multiprocessing.get_context("spawn").Process(target=make_archive, args=(photos, num, archive))
            making.start()
            making.join()
            results.append(compare(archive, min(arguments.repeats, max(1, MOST_IMAGES // num))))
            archive.unlink()
    document = {
        "benchmark": "ingestion",
        "cores": len(os.sched_getaffinity(0)),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "goal_ratio": GOAL,
        "not_found": missing,
        "results": results,
    }
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
