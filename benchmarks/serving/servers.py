"""Starts a server of each kind on the same graph, and stops it."""

import json
import os
import signal
import subprocess
import sys
import time
import venv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from app.artifact.preprocess import Preprocess
from app.artifact.spec import Spec
from app.client import Client
from benchmarks.serving import load

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "examples"))

import demo

PEERS = Path(__file__).parent / "peers"
NEEDED = {"litserve": ("litserve",), "bentoml": ("bentoml",)}
BESIDE = ("onnxruntime", "pillow", "numpy", "python-multipart")
MODEL = "bench"
# The model as a folder for other servers, packed.
REPOSITORY = "repository.zip"
READY_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: where, how an image is sent to it, and its process."""

    host: str
    port: int
    path: str
    field: str
    pid: int

    def requests(self, photos: list[bytes]) -> list[bytes]:
        """The photos as whole HTTP requests, one each."""
        return [load.request(self.host, self.port, self.path, *load.multipart(self.field, data)) for data in photos]

    def memory(self) -> float:
        """MiB that the server's processes hold together, shared pages counted once (proportional set size)."""
        return sum(one.memory_full_info().pss for one in _family(self.pid)) / 2**20

    def processor_seconds(self) -> float:
        """What the server's processes have computed since they began, in seconds of one core."""
        return sum(sum(one.cpu_times()[:2]) for one in _family(self.pid))


def publish(home: Path, archive: Path, backbone: str) -> tuple[Path, Preprocess]:
    """Trains and publishes a model through the real service; its `model.onnx`, and how images are prepared for it.

    Its folder for other servers lies beside it.
    """
    os.environ["GRAFT_HOME"] = str(home)
    os.environ.pop("GRAFT_PORT", None)
    with demo.service() as url, Client(url) as graft:
        dataset = graft.wait_dataset(graft.upload_dataset(archive, "photos")["id"])
        job = graft.start_transfer(dataset["id"], MODEL, backbone=backbone, recipe={"method": "linear_probe"})
        done = graft.wait_job(job["id"])
        if done["state"] != "succeeded":
            raise SystemExit(json.dumps(done["failure"]))
        target, version = home / "model.onnx", f"{url}/api/v1/models/{MODEL}/versions/1"
        for name, path in ((target.name, "files/model.onnx"), (REPOSITORY, "repository")):
            (home / name).write_bytes(httpx.get(f"{version}/{path}", timeout=60).raise_for_status().content)
        spec = Spec.model_validate(graft.call("GET", f"/models/{MODEL}/versions/1")["spec"])
    return target, spec.preprocess


@contextmanager
def graft(home: Path, **settings: str) -> Iterator[Server]:
    """`graft serve` on a home where a model has been published."""
    port = demo.free_port()
    environment = {"GRAFT_HOME": str(home), "GRAFT_PORT": str(port), **settings}
    command = [sys.executable, "-m", "app.cli", "serve"]
    with _running(command, environment, ROOT, home / "graft.log") as child:
        server = Server("127.0.0.1", port, f"/api/v1/models/{MODEL}/predict", "file", child.pid)
        _until_it_listens(server, child, home / "graft.log")
        yield server


@contextmanager
def triton(command: list[str], environment: Mapping[str, str], log: Path) -> Iterator[Server]:
    """Triton's own server."""
    port = demo.free_port()
    place = ["--http-address", "127.0.0.1", "--http-port", str(port)]
    with _running([*command, *place], dict(environment), log.parent, log) as child:
        server = Server("127.0.0.1", port, "/v2", "", child.pid)
        _until_it_listens(server, child, log)
        yield server


@contextmanager
def litserve(python: Path, peer: Mapping[str, str], log: Path) -> Iterator[Server]:
    """LitServe, configured by what `peer` gives."""
    port = demo.free_port()
    environment = {**peer, "PORT": str(port)}
    with _running([str(python), "litserve_app.py"], environment, PEERS, log) as child:
        server = Server("127.0.0.1", port, "/predict", "request", child.pid)
        _until_it_listens(server, child, log)
        yield server


@contextmanager
def bentoml(python: Path, peer: Mapping[str, str], log: Path) -> Iterator[Server]:
    """BentoML, configured by what `peer` gives."""
    port = demo.free_port()
    environment = {**peer, "BENTOML_HOME": str(log.parent / "bentoml"), "BENTOML_DO_NOT_TRACK": "True"}
    command = [str(python), "-m", "bentoml", "serve", "bentoml_app:Classifier", "--host", "127.0.0.1"]
    with _running([*command, "--port", str(port)], environment, PEERS, log) as child:
        server = Server("127.0.0.1", port, "/classify", "images", child.pid)
        _until_it_listens(server, child, log)
        yield server


def environment_of(folder: Path, name: str, packages: Sequence[str], files: Sequence[str] = ()) -> Path:
    """A Python with packages, installed in an environment of its own where there is none.

    Args:
        folder: of all of them.
        name: of this one.
        packages: beside those that each has.
        files: packages of which nothing but their files is wanted, and nothing that they need.
    """
    place = folder / name
    python = place / "bin" / "python"
    if not python.is_file():
        venv.create(place, with_pip=True)
        install = [python, "-m", "pip", "install", "--quiet"]
        subprocess.run([*install, *packages, *BESIDE], check=True)
        if files:
            subprocess.run([*install, "--no-deps", *files], check=True)
    return python


def peer(graph: Path, shape: Preprocess, workers: int, threads: int, decoder: str) -> dict[str, str]:
    """What the peers' scripts read: so many workers of so many threads, and how they prepare images."""
    how = {"SIDE": str(shape.height), "RESIZE": str(shape.resize), "INTERPOLATION": shape.interpolation}
    known = {"MODEL": str(graph), "WORKERS": str(workers), "THREADS": str(threads), "DECODER": decoder}
    return {**known, **how, "PYTHONPATH": str(ROOT)}


@contextmanager
def _running(
    command: list[str], environment: dict[str, str], folder: Path, log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as sink:
        child = subprocess.Popen(
            command, cwd=folder, env={**os.environ, **environment}, stdout=sink, stderr=sink, start_new_session=True
        )
        try:
            yield child
        finally:
            os.killpg(child.pid, signal.SIGTERM)
            try:
                child.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()


def _until_it_listens(server: Server, child: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + READY_SECONDS
    while time.monotonic() < end:
        if child.poll() is not None:
            break
        try:
            httpx.get(f"http://{server.host}:{server.port}/", timeout=5, trust_env=False)
            return
        except httpx.TransportError:
            time.sleep(0.1)
    raise SystemExit(f"expected a server that listens; found none; its log ends with:\n{log.read_text()[-2000:]}")


def _family(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]
