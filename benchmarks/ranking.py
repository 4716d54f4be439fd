"""Ranking the four starter backbones on 1,000 images, against extracting the features of each in a bare loop.

    python benchmarks/ranking.py [--data ../shared/data] [--repeats 3]

Cold: POST to `ready` through the running service, no feature cached; compared with the sum of four bare, pipelined
decode-and-forward loops over 1,000 of the same images, in the same run. Warm: the same again with another seed.
Processor time of both, the job alone in a process, is told as well: other work on the machine moves it less than the
clock. Scores: everything that is computed of one candidate's features once they are there. Prints one JSON document.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "examples")]

BACKBONES = ("timm/tf_efficientnet_lite0", "timm/tf_efficientnet_lite1", "timm/tf_efficientnet_lite2",
             "torchvision/mobilenet_v2")  # fmt: skip
SETS = ("emoji_google", "emoji_twitter")
RATIO = 1.2
# One of five goes to the test split, which a ranking leaves alone.
UPLOADED, RANKED = 1250, 1000


def pictures(data: Path) -> dict[str, bytes]:
    """As many emoji of both drawings as are uploaded, spread over all classes."""
    found = []
    for name in SETS:
        with zipfile.ZipFile(data / f"{name}.zip") as file:
            members = sorted(info.filename for info in file.infolist() if not info.is_dir())
            found += [(f"{Path(one).parent.name}/{name}-{Path(one).name}", file.read(one)) for one in members]
    step = len(found) / UPLOADED
    return dict(found[int(number * step)] for number in range(UPLOADED))


def bare(archive: Path, backbone: str) -> tuple[float, float]:
    """Seconds, by the clock and of the processor, of decode and forward of 1,000 images, decoded ahead in threads."""
    import numpy as np

    from app.artifact import preprocess
    from app.serving.runtime import Session
    from app.settings import Settings
    from worker.backbones import prepared

    found = prepared.find(backbone, [Settings().prepared])
    assert found is not None
    session = Session(found.graph)
    with zipfile.ZipFile(archive) as file:
        members = [info for info in file.infolist() if not info.is_dir()]
        step = len(members) / RANKED
        data = [file.read(members[int(number * step)]) for number in range(RANKED)]
    began, busy = time.perf_counter(), time.process_time()
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
    return time.perf_counter() - began, time.process_time() - busy


def job(archive: Path) -> tuple[float, float]:
    """Seconds, by the clock and of the processor, of a cold ranking without the service around it, in this process."""
    from app.rankings import RankingIn
    from benchmarks import _pipeline
    from worker import rank

    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        dataset = _pipeline.stored(home, archive, "ds_1")
        context = _pipeline.attempt(home, dataset, None, "auto")
        wish = RankingIn(dataset="ds_1", backbones=list(BACKBONES), max_minutes=60)
        document = context.document.model_copy(update={"inputs": {"request": wish.model_dump(mode="json")}})
        began, busy = time.perf_counter(), time.process_time()
        rank.run(replace(context, document=document))
        return time.perf_counter() - began, time.process_time() - busy


def alone(*arguments: str) -> tuple[float, float]:
    """What this script says of one part, in a process of its own."""
    command = [sys.executable, __file__, *arguments]
    wall, busy = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return wall, busy


def through_service(archive: Path) -> tuple[float, float, dict[str, Any]]:
    """Seconds of a cold ranking on a fresh home and of a warm one; and what the cold one found."""
    from demo import service

    from app.client import Client

    with tempfile.TemporaryDirectory() as home:
        os.environ["GRAFT_HOME"] = home
        with service() as url, Client(url) as graft:
            dataset = graft.wait_dataset(graft.upload_dataset(archive, "emoji")["id"])
            took, found = [], []
            for seed in range(2):
                began = time.perf_counter()
                ranking = graft.wait_ranking(
                    graft.rank_backbones(dataset["id"], BACKBONES, seed=seed, max_minutes=60)["id"]
                )
                took.append(time.perf_counter() - began)
                assert ranking["state"] == "ready", ranking["failure"]
                found.append(ranking["result"])
    return took[0], took[1], found[0]


def scores() -> dict[str, float]:
    """Seconds of each part of what is computed of 1,000 x 1,280 features of 25 classes."""
    import numpy as np

    from worker.ranking import evidence, transferability

    rng = np.random.default_rng(0)
    labels_N = np.arange(RANKED) % 25
    means_CD = rng.normal(size=(25, 1280))
    feats_ND = np.maximum(means_CD[labels_N] + rng.normal(size=(RANKED, 1280)), 0).astype(np.float32)
    basis = transferability.centred_basis(feats_ND)
    parts = {
        "evidence": lambda: evidence.look(feats_ND, labels_N, np.arange(RANKED), 25, 0),
        "principal_axes": lambda: transferability.centred_basis(feats_ND),
        "logme": lambda: transferability.logme(feats_ND, labels_N),
        "h_score": lambda: transferability.h_score(feats_ND, labels_N, basis=basis),
        "nleep": lambda: transferability.nleep(feats_ND, labels_N, 0, basis=basis),
    }
    found = {}
    for name, part in parts.items():
        took = []
        for _ in range(3):
            began = time.perf_counter()
            part()
            took.append(time.perf_counter() - began)
        found[name] = round(min(took), 3)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--bare", nargs=2, metavar=("ARCHIVE", "BACKBONE"))
    parser.add_argument("--job", type=Path, metavar="ARCHIVE")
    given = parser.parse_args()
    if given.bare or given.job:
        print(json.dumps(job(given.job) if given.job else bare(Path(given.bare[0]), given.bare[1])))
        return
    rounds = []
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "emoji.zip"
        with zipfile.ZipFile(archive, "w") as file:
            for name, data in pictures(given.data).items():
                file.writestr(name, data)
        for _ in range(given.repeats):
            loops = [alone("--bare", str(archive), backbone) for backbone in BACKBONES]
            cold, warm, found = through_service(archive)
            rounds.append(
                {
                    "bare": sum(wall for wall, _ in loops),
                    "cold": cold,
                    "warm": warm,
                    "found": found,
                    "cpu": alone("--job", str(archive))[1] / sum(busy for _, busy in loops),
                }
            )
    ratios = [one["cold"] / one["bare"] for one in rounds]
    last = rounds[-1]["found"]
    document = {
        "images": last["data"]["num_images"],
        "bare_seconds": [round(one["bare"], 2) for one in rounds],
        "cold_seconds": [round(one["cold"], 2) for one in rounds],
        "warm_seconds": [round(one["warm"], 2) for one in rounds],
        "ratios": [round(one, 2) for one in ratios],
        "ratio": round(statistics.median(ratios), 2),
        "cpu_ratios": [round(one["cpu"], 2) for one in rounds],
        "meets_goal": statistics.median(ratios) <= RATIO,
        "stages": {row["backbone"]: row["stage"] for row in last["candidates"]},
        "scores_seconds": scores(),
    }
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
