"""The whole life of a transfer in forty lines: upload -> job -> model -> predict.

Start the service with `make run`, then, in a second terminal:

    .venv/bin/python examples/quickstart.py                              # the drawings in examples/data
    .venv/bin/python examples/quickstart.py my.zip my-model photo.jpg    # your own class folders, and what to classify

GRAFT_KEY is sent where the service asks for API keys.
"""

import os
import sys
import tempfile
import zipfile
from pathlib import Path

import httpx
from bar import Bar

from app.client import Client

URL = f"http://127.0.0.1:{os.environ.get('GRAFT_PORT', '8000')}"
DATA = Path(__file__).parent / "data"


def main(archive: Path, model: str, images: list[Path]) -> int:
    """Runs it and prints what comes out."""
    with Client(URL, key=os.environ.get("GRAFT_KEY")) as graft:
        uploaded = graft.upload_dataset(archive, archive.stem)
        dataset = graft.wait_dataset(uploaded["id"], Bar("ingest").show)
        if dataset["state"] != "ready":
            print(f"the dataset cannot be used: {dataset['failure']['message']}", file=sys.stderr)
            return 1
        print(f"{dataset['num_samples']} images, {len(dataset['classes'])} classes, split {dataset['splits']}")

        bar = Bar("transfer")
        started = graft.start_transfer(dataset["id"], model, recipe={"method": "linear_probe"})
        job = graft.wait_job(started["id"], bar.show, lambda event: bar.say(event.data["message"]))
        bar.close()
        if job["state"] != "succeeded":
            print(f"the job {job['state']}: {job['failure'] or 'see its events'}", file=sys.stderr)
            return 1
        print(f"{model} version {job['model']['version']}: test accuracy {job['metrics']['test_accuracy']:.3f}")

        answer = graft.predict(model, images, top_k=3)
        for image, found in zip(images, answer["predictions"], strict=True):
            print(f"{image.name}: {found['label']} ({found['score']:.2f})")
    return 0


def given() -> int:
    """What the command line names, or the drawings."""
    match sys.argv[1:]:
        case [archive, model, *images] if images:
            return main(Path(archive), model, [Path(name) for name in images])
        case [_, *_]:
            raise SystemExit(__doc__)
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(DATA / "emoji_heldout.zip") as held_out:
        names = held_out.namelist()[::12]
        held_out.extractall(folder, names)
        return main(DATA / "emoji.zip", "emoji", [Path(folder, name) for name in names])


if __name__ == "__main__":
    try:
        raise SystemExit(given())
    except httpx.ConnectError:
        raise SystemExit(f"expected Graft at {URL}; found nothing there; start it with `make run`") from None
