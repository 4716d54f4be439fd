"""`make demo`: the real service on a fresh home, real images, a real transfer; at the end all of it is gone again.

GRAFT_PORT and GRAFT_HOME are honoured when they are set; a home that was given stays.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
from bar import Bar

from app.client import ApiError, Client

ROOT = Path(__file__).parent.parent
DATA = Path(__file__).parent / "data"
BACKBONE = "timm/tf_efficientnet_lite0"
# With this budget the whole demo stays under a minute; without it `auto` takes up to five on a CPU.
RECIPE = {"method": "auto", "max_minutes": 0.4}
MODEL = "emoji"
READY_SECONDS = 60.0
STOP_SECONDS = 20.0


class DemoFailed(Exception):
    """Something did not work; the message is for the reader of the terminal."""


@contextmanager
def service() -> Iterator[str]:
    """Runs `graft up` until the block ends; yields its address."""
    with ExitStack() as stack:
        home = os.environ.get("GRAFT_HOME") or stack.enter_context(tempfile.TemporaryDirectory(prefix="graft-demo-"))
        port = int(os.environ.get("GRAFT_PORT") or free_port())
        Path(home).mkdir(parents=True, exist_ok=True)
        log = stack.enter_context(Path(home, "demo.log").open("w+", encoding="utf-8"))
        environment = {**os.environ, "GRAFT_HOME": home, "GRAFT_PORT": str(port), "GRAFT_HOST": "127.0.0.1"}
        child = subprocess.Popen(
            [sys.executable, "-m", "app.cli", "up"],
            cwd=ROOT,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            url = f"http://127.0.0.1:{port}"
            wait_until_ready(child, url)
            yield url
        except BaseException:
            tail = Path(home, "demo.log").read_text(encoding="utf-8").splitlines()[-25:]
            print("\nlast lines of the service's log:", *tail, sep="\n  ", file=sys.stderr)
            raise
        finally:
            stop(child)


def free_port() -> int:
    """A port that nothing listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_ready(child: subprocess.Popen[bytes], url: str) -> None:
    """Waits for database, broker, storage and a live worker.

    Raises:
        DemoFailed: the service ended, or READY_SECONDS went by.
    """
    deadline = time.monotonic() + READY_SECONDS
    missing = ["everything"]
    with Client(url, timeout_seconds=5.0) as graft:
        while time.monotonic() < deadline:
            if child.poll() is not None:
                raise DemoFailed(f"expected a running service; found that it ended with status {child.returncode}")
            try:
                missing = graft.missing()
            except httpx.TransportError:
                missing = ["api"]
            if not missing:
                return
            time.sleep(0.1)
    raise DemoFailed(f"expected a ready service within {READY_SECONDS:.0f} s; still missing: {', '.join(missing)}")


def stop(child: subprocess.Popen[bytes]) -> None:
    """Stops the service as Ctrl-C would; by force if it does not listen."""
    if child.poll() is None:
        child.send_signal(signal.SIGINT)
        try:
            child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def upload(graft: Client) -> dict[str, Any]:
    """Sends examples/data/emoji.zip and waits until it is a dataset."""
    bar = Bar("ingest  ")
    found = graft.upload_dataset(DATA / "emoji.zip", "emoji")
    dataset = graft.wait_dataset(found["id"], bar.show)
    bar.close()
    if dataset["state"] != "ready":
        raise DemoFailed(f"expected a ready dataset; found it {dataset['state']}: {dataset['failure']}")
    splits = ", ".join(f"{name} {number}" for name, number in dataset["splits"].items())
    print(
        f"dataset {dataset['id']}: {dataset['num_samples']} images of {len(dataset['classes'])} classes ({splits}), "
        f"{dataset['num_problems']} problems"
    )
    return dataset


def transfer(graft: Client, dataset_id: str) -> dict[str, Any]:
    """Runs the transfer with a live bar; what the job says of itself appears above it."""
    bar = Bar("transfer")
    started = graft.start_transfer(dataset_id, MODEL, backbone=BACKBONE, recipe=RECIPE)
    job = graft.wait_job(
        started["id"], bar.show, lambda event: bar.say(f"  {event.data['message']}") if event.type == "log" else None
    )
    bar.close()
    if job["state"] != "succeeded":
        raise DemoFailed(f"expected the job to succeed; found it {job['state']}: {job['failure']}")
    return job


def show_report(job: dict[str, Any], report: dict[str, Any]) -> None:
    """Accuracy with its interval, verdict and gain, the per-class table, the largest confusions."""
    metrics, model = job["metrics"], job["model"]
    print(
        f"\nmodel {model['name']} version {model['version']}: test accuracy {metrics['test_accuracy']:.3f} "
        f"(95 % interval {metrics['test_accuracy_low']:.3f} to {metrics['test_accuracy_high']:.3f}), "
        f"macro F1 {metrics['test_macro_f1']:.3f}"
    )
    gain = report["gain"]
    if gain:
        change = f"{gain['value']:+.3f} ({gain['low']:+.3f} to {gain['high']:+.3f})"
        print(f"verdict: {report['verdict'] or 'open, no baseline fitted the time'}; gain over {gain['over']} {change}")
    width = max(len(row["label"]) for row in report["per_class"])
    print(f"\n{'class':{width}}  images  precision  recall    f1")
    for row in report["per_class"]:
        scores = f"{row['precision']:9.2f}  {row['recall']:6.2f}  {row['f1']:4.2f}"
        print(f"{row['label']:{width}}  {row['num_samples']:6}  {scores}")
    print("\nconfused in the test split (truth -> answer):")
    for number, truth, answer in confusions(report["confusion"])[:5]:
        print(f"  {number} x {truth} -> {answer}")


def confusions(confusion: dict[str, Any]) -> list[tuple[int, str, str]]:
    """Cells off the diagonal, the largest first: how often, truth, answer."""
    labels = confusion["labels"]
    cells = [
        (number, labels[truth], labels[answer])
        for truth, row in enumerate(confusion["matrix"])
        for answer, number in enumerate(row)
        if number and truth != answer
    ]
    return sorted(cells, key=lambda cell: (-cell[0], cell[1], cell[2]))


def predict_held_out(graft: Client) -> None:
    """Sends images that were never uploaded as data to the prediction endpoint."""
    with zipfile.ZipFile(DATA / "emoji_heldout.zip") as archive:
        names = sorted(archive.namelist())
        images = [archive.read(name) for name in names]
    answer = graft.predict(MODEL, images, top_k=1)
    truths = [name.split("/")[1] for name in names]
    rows = list(zip(names, truths, answer["predictions"], strict=True))
    right = sum(found["label"] == truth for _, truth, found in rows)
    print(f"\n{len(rows)} images that were held out, sent to POST /api/v1/models/{MODEL}/predict:")
    for name, truth, found in rows[:: max(1, len(rows) // 12)]:
        mark = "right" if found["label"] == truth else f"wrong, it is {truth}"
        print(f"  {Path(name).name:24} {found['label']:16} {found['score']:.2f}  {mark}")
    print(f"  held-out accuracy {right}/{len(rows)} = {right / len(rows):.3f}")


def show_curl() -> None:
    """The same by hand."""
    body = {"dataset": "DATASET_ID", "backbone": BACKBONE, "recipe": RECIPE, "model": MODEL}
    print(
        f"""
The same by hand, after `make run` (job and dataset ids come from the answers):

  curl -F file=@examples/data/emoji.zip -F name=emoji http://127.0.0.1:8000/api/v1/datasets
  curl http://127.0.0.1:8000/api/v1/datasets/DATASET_ID
  curl -H 'Content-Type: application/json' http://127.0.0.1:8000/api/v1/jobs -d \\
    '{json.dumps(body)}'
  curl -N -H 'Accept: text/event-stream' http://127.0.0.1:8000/api/v1/jobs/JOB_ID/events
  curl http://127.0.0.1:8000/api/v1/jobs/JOB_ID/report
  curl -F file=@photo.png 'http://127.0.0.1:8000/api/v1/models/{MODEL}/predict?top_k=3'
"""
    )


def end_on_terminate(_number: int, _frame: object) -> None:
    """Turns SIGTERM into an exception, so that the service is stopped and its home removed."""
    raise SystemExit(143)


def main() -> int:
    """Runs the demo; 0 when every step worked."""
    signal.signal(signal.SIGTERM, end_on_terminate)
    began = time.monotonic()
    try:
        with service() as url, Client(url) as graft:
            print(f"Graft is ready at {url} ({time.monotonic() - began:.1f} s)")
            dataset = upload(graft)
            job = transfer(graft, dataset["id"])
            show_report(job, graft.report(job["id"]))
            predict_held_out(graft)
    except (DemoFailed, ApiError, httpx.HTTPError) as error:
        print(f"demo failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo interrupted; everything is stopped", file=sys.stderr)
        return 130
    show_curl()
    print(f"Everything is stopped; {time.monotonic() - began:.1f} s in all.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
