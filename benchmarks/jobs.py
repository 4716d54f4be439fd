"""Cold and warm jobs through the running service, against bare loops in the same run.

    python benchmarks/jobs.py [--data ../shared/data] [--repeats 3]

Cold: features not cached; compared with decode + forward of the same images in a bare, pipelined onnxruntime loop.
Warm: POST to `succeeded` on cached features, other seeds: of the same 1,046 images, and of 5,000 crops of the photos of
stamps_photos. (The solver's own figure, on 5,000 x 1,280 made-up features, is in benchmarks/solver.py.)
Prints one JSON document.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "examples")]

from benchmarks import ingestion

BACKBONE = "timm/tf_efficientnet_lite0"
COLD_RATIO, COLD_SECONDS, WARM_SECONDS = 1.25, 3.0, 3.0
CROPS = 5000


def bare(archive: Path) -> float:
    """Seconds of decode and forward of every image, decoding one batch ahead in threads, in this process."""
    import numpy as np

    from app.artifact import preprocess
    from app.serving.runtime import Session
    from app.settings import Settings
    from worker.backbones import prepared

    found = prepared.find(BACKBONE, [Settings().prepared])
    assert found is not None
    session = Session(found.graph)
    with zipfile.ZipFile(archive) as file:
        data = [file.read(info) for info in file.infolist() if not info.is_dir()]
    began = time.perf_counter()
    with ThreadPoolExecutor(2) as threads:
        futures = [threads.submit(preprocess.load, one, found.preprocess) for one in data[:48]]
        position = 48
        while futures:
            batch, futures = futures[:16], futures[16:]
            more = data[position : position + 16]
            position += len(more)
            pixels = np.stack([future.result() for future in batch])
            futures += [threads.submit(preprocess.load, one, found.preprocess) for one in more]
            session.run(pixels)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--bare", type=Path)
    given = parser.parse_args()
    if given.bare:
        print(bare(given.bare))
        return
    archive = given.data / "emoji_google.zip"
    bares, colds, warms = [], [], []
    for _ in range(given.repeats):
        command = [sys.executable, __file__, "--bare", str(archive)]
        bares.append(float(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
        cold, warm = through_service(archive)
        colds.append(cold)
        warms += warm
    bare_seconds, cold_seconds = statistics.median(bares), statistics.median(colds)
    allowed = COLD_RATIO * bare_seconds + COLD_SECONDS
    with tempfile.TemporaryDirectory() as folder:
        crops = Path(folder) / "crops.zip"
        ingestion.make_archive(given.data / "stamps_photos.zip", CROPS, crops)
        large = [seconds for _ in range(given.repeats) for seconds in through_service(crops)[1]]
    document: dict[str, Any] = {
        "cold": {
            "bare_seconds": round(bare_seconds, 2),
            "job_seconds": round(cold_seconds, 2),
            "allowed_seconds": round(allowed, 2),
            "meets_goal": cold_seconds <= allowed,
        },
        "warm": {
            "rows": 1046,
            "seconds": round(statistics.median(warms), 2),
            "all": [round(one, 2) for one in warms],
            "meets_goal": statistics.median(warms) <= WARM_SECONDS,
        },
        "warm_large": {
            "rows": CROPS,
            "seconds": round(statistics.median(large), 2),
            "all": [round(one, 2) for one in large],
            "meets_goal": statistics.median(large) <= WARM_SECONDS,
        },
    }
    print(json.dumps(document, indent=1))


def through_service(archive: Path) -> tuple[float, list[float]]:
    """One cold job on a fresh home, then three warm ones with other seeds."""
    import os

    from demo import service

    from app.client import Client

    with tempfile.TemporaryDirectory() as home:
        os.environ["GRAFT_HOME"] = home
        with service() as url, Client(url) as graft:
            dataset = graft.wait_dataset(graft.upload_dataset(archive, "emoji")["id"])
            seconds = []
            for seed in range(4):
                began = time.perf_counter()
                recipe = {"method": "linear_probe"}
                job = graft.start_transfer(dataset["id"], "bench", backbone=BACKBONE, recipe=recipe, seed=seed)
                done = graft.wait_job(job["id"])
                assert done["state"] == "succeeded", done
                seconds.append(time.perf_counter() - began)
    return seconds[0], seconds[1:]


if __name__ == "__main__":
    main()
