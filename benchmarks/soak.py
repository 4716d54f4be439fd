"""Ten minutes of mixed load on `graft up`: no errors, no memory that grows, and jobs that can still be looked at.

    python benchmarks/soak.py [--seconds 600] [--idle-seconds 60]

Meanwhile: two clients predict, one lists, one watches event streams, one uploads a dataset, trains a head on it, asks
it and deletes all of it again, over and over; and one in a process of its own looks at one job twenty times a second,
whose 99th percentile is compared with that before the load. Every answer but those wanted is an error. Memory is
that of every process which lives for as long as the load does: growth is the slope of a line through the last two
thirds, and counts where it is more than chance (twice the standard error) and than 2 % of the process. Prints one JSON
document.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "examples")]

from app.client import ApiError, Client
from benchmarks._memory import Memory

BACKBONE = "timm/tf_efficientnet_lite0"
POLL_SECONDS = 0.05
PREDICT_PAUSE, LIST_PAUSE, ROUND_PAUSE = 0.5, 0.5, 10.0
RATIO = 5.0


class Load:
    """Threads that ask, each on a connection of its own, until told to end."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.over = threading.Event()
        self.done: Counter[str] = Counter()
        self.errors: list[str] = []
        self._threads: list[threading.Thread] = []

    def start(self, name: str, action: Callable[[Client], None], pause: float) -> None:
        """Repeats an action; what it raises is an error, and it goes on."""

        def run() -> None:
            with Client(self.url) as graft:
                while not self.over.is_set():
                    try:
                        action(graft)
                        self.done[name] += 1
                    except (httpx.HTTPError, ApiError, AssertionError) as error:
                        self.errors.append(f"{name}: {type(error).__name__}: {error}")
                    self.over.wait(pause)

        thread = threading.Thread(target=run, name=name)
        thread.start()
        self._threads.append(thread)

    def end(self) -> None:
        """Lets each finish what it is at."""
        self.over.set()
        for thread in self._threads:
            thread.join()


def poll(url: str, seconds: float) -> None:
    """Looks at one job for a time; prints the milliseconds of each look, and how many failed."""
    taken, failed = [], 0
    with httpx.Client(trust_env=False, timeout=60) as client:
        ends = time.monotonic() + seconds
        due = time.monotonic()
        while due < ends:
            began = time.perf_counter()
            try:
                failed += client.get(url).status_code != 200
            except httpx.HTTPError:
                failed += 1
            taken.append(1000 * (time.perf_counter() - began))
            due = max(due + POLL_SECONDS, time.monotonic())
            time.sleep(max(0.0, due - time.monotonic()))
    print(json.dumps({"ms": taken, "failed": failed}))


def polled(url: str, seconds: float) -> "subprocess.Popen[str]":
    """The same in a process of its own: threads of this one must not add to what is measured."""
    command = [sys.executable, __file__, "--poll", url, "--seconds", str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def told(process: "subprocess.Popen[str]") -> dict[str, Any]:
    """What it has found."""
    found = json.loads(process.communicate()[0])
    quantiles = np.percentile(found["ms"], [50, 99])
    return {
        "num_requests": len(found["ms"]), "failed": found["failed"],
        "p50_ms": round(float(quantiles[0]), 2), "p99_ms": round(float(quantiles[1]), 2),
    }  # fmt: skip


def archive(folder: Path, number: int, images: int = 40) -> Path:
    """Two classes of noise around a colour, other ones each time."""
    import io
    import zipfile

    from PIL import Image

    rng = np.random.default_rng(number)
    path = folder / f"{number}.zip"
    with zipfile.ZipFile(path, "w") as file:
        for index in range(images):
            name, colour = (("warm", (200, 80, 40)), ("cold", (40, 90, 210)))[index % 2]
            pixels = np.clip(rng.normal(colour, 40, (96, 96, 3)), 0, 255).astype(np.uint8)
            out = io.BytesIO()
            Image.fromarray(pixels).save(out, "PNG")
            file.writestr(f"{name}/{index}.png", out.getvalue())
    return path


def trained(graft: Client, path: Path, model: str) -> tuple[str, str]:
    """(dataset, job) of a model that answers."""
    dataset = graft.wait_dataset(graft.upload_dataset(path, path.stem)["id"])
    assert dataset["state"] == "ready", dataset
    job = graft.start_transfer(dataset["id"], model, backbone=BACKBONE, recipe={"method": "linear_probe"})
    done = graft.wait_job(job["id"])
    assert done["state"] == "succeeded", done
    return dataset["id"], job["id"]


def begin(load: Load, folder: Path, image: bytes, job: str) -> None:
    """All that goes on at once."""
    numbers = iter(range(1, 1_000_000))
    latest = [job]

    def predict(graft: Client) -> None:
        assert len(graft.predict("steady", [image])["predictions"]) == 1

    def look(graft: Client) -> None:
        for path in ("/jobs?limit=50", "/jobs?state=running", "/datasets", "/models", "/backbones"):
            graft.call("GET", path)
        assert not graft.missing()

    def watch(graft: Client) -> None:
        assert list(graft.events(latest[0]))

    def live(graft: Client) -> None:
        number = next(numbers)
        path, model = archive(folder, number), f"m{number}"
        dataset = graft.wait_dataset(graft.upload_dataset(path, path.stem)["id"])
        path.unlink()
        made = graft.start_transfer(dataset["id"], model, backbone=BACKBONE, recipe={"method": "linear_probe"})
        latest[0] = made["id"]
        done = graft.wait_job(made["id"])
        assert done["state"] == "succeeded", done
        graft.predict(model, [image])
        graft.call("DELETE", f"/models/{model}")
        graft.call("DELETE", f"/datasets/{dataset['id']}")

    for _ in range(2):
        load.start("predict", predict, PREDICT_PAUSE)
    load.start("list", look, LIST_PAUSE)
    load.start("watch", watch, 1.0)
    load.start("train", live, ROUND_PAUSE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--idle-seconds", type=float, default=60)
    parser.add_argument("--poll")
    given = parser.parse_args()
    if given.poll:
        poll(given.poll, given.seconds)
        return
    from demo import service

    with tempfile.TemporaryDirectory() as home, tempfile.TemporaryDirectory() as folder:
        os.environ["GRAFT_HOME"] = home
        with service() as url, Client(url) as graft:
            # In this process too, which is none of the service's.
            del os.environ["GRAFT_HOME"]
            path = archive(Path(folder), 0)
            image = _first_image(path)
            _, job = trained(graft, path, "steady")
            graft.predict("steady", [image])
            watched = f"{url}/api/v1/jobs/{job}"
            idle = told(polled(watched, given.idle_seconds))
            load, memory = Load(url), Memory(home)
            began = time.monotonic()
            poller = polled(watched, given.seconds)
            begin(load, Path(folder), image, job)
            busy = told(poller)
            load.end()
            seconds = time.monotonic() - began
            grown = memory.end()
    ratio = busy["p99_ms"] / idle["p99_ms"]
    num_errors = len(load.errors) + busy["failed"] + idle["failed"]
    document = {
        "seconds": round(seconds),
        "done": dict(sorted(load.done.items())),
        "errors": {"number": num_errors, "first": load.errors[:5], "meets_goal": num_errors == 0},
        "get_job": {"idle": idle, "busy": busy, "p99_ratio": round(ratio, 2), "meets_goal": ratio <= RATIO},
        "memory": grown,
        "load_average": round(statistics.mean(os.getloadavg()), 1),
    }
    print(json.dumps(document, indent=1))


def _first_image(path: Path) -> bytes:
    import zipfile

    with zipfile.ZipFile(path) as file:
        return file.read(file.namelist()[0])


if __name__ == "__main__":
    main()
