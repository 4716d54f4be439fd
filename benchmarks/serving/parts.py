"""What is measured, part by part; each returns its figures and the goals that they are held against."""

import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np

from app import cores
from app.artifact.preprocess import Preprocess
from app.libraries import version
from app.serving.runtime import Session
from benchmarks.serving import bare, load, many, photos, servers
from benchmarks.serving.servers import Server

NUM_PHOTOS = 64
CLIENTS = 32
NUM_MODELS = 50
PROCESSES = tuple(sorted({1, cores.usable()}))
ROUNDS = 5
# Of one client and the bare call.
TURNS = 9
OVERLOAD_SECONDS, SAMPLE_SECONDS = 60, 5
# What is usually sent; the whole range from 400 to 4000 px is measured beside it.
USUAL = (1024, 768)
# The largest starter backbone, of nearly 20 MB.
LARGE = "timm/tf_efficientnet_lite2"
Figures = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Bench:
    """What all parts share: a published model, its graph, photos, the peers' environments."""

    archive: Path
    home: Path
    graph: Path
    shape: Preprocess
    usual: list[bytes]
    mixed: list[bytes]
    pythons: dict[str, Path]
    peers: Path
    seconds: float

    @classmethod
    def prepare(cls, folder: Path, data: Path, peers: Path, backbone: str, seconds: float) -> "Bench":
        """Publishes the model and makes the photos."""
        archive = data / "stamps_photos.zip"
        home = folder / "home"
        home.mkdir()
        graph, shape = servers.publish(home, archive, backbone)
        usual, mixed = photos.of_size(archive, NUM_PHOTOS, USUAL), photos.make(archive, NUM_PHOTOS)
        pythons = {peer: servers.environment_of(peers, peer, needed) for peer, needed in servers.NEEDED.items()}
        return cls(archive, home, graph, shape, usual, mixed, pythons, peers, seconds)

    def libraries(self) -> dict[str, str]:
        """Versions, the peers' own included."""
        found = {name: version(name) for name in ("onnxruntime", "pillow", "numpy", "uvicorn", "fastapi")}
        for peer, python in self.pythons.items():
            command = [python, "-c", f"from importlib.metadata import version; print(version({peer!r}))"]
            found[peer] = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        return found

    def sets(self) -> dict[str, list[bytes]]:
        """The photos by name."""
        return {"1024x768": self.usual, "400 to 4000 px": self.mixed}


def throughput(bench: Bench) -> Figures:
    """Graft under a closed loop, in one process and in one for each core, in turns with the bare limit.

    The ratio is that of the best way of either, as the bare limit is that of the best way to share the cores. The
    machine itself changes by a tenth from one minute to the next, so each is measured several times, and the best way
    is that of the highest median.
    """
    figures: Figures = {"goals": []}
    for name, pictures in bench.sets().items():
        rounds, rates = [], {number: [] for number in PROCESSES}
        for _ in range(ROUNDS):
            rounds.append(bare.rates(bench.graph, bench.shape, pictures, bench.seconds))
            for number, found in rates.items():
                with servers.graft(bench.home, GRAFT_SERVE_PROCESSES=str(number)) as server:
                    found.append(closed(server, pictures, CLIENTS, bench.seconds).document()["answers_per_second"])
        limit = statistics.median(bare.limit(rounds))
        of_bare = {number: round(statistics.median(found) / limit, 3) for number, found in rates.items()}
        figures[name] = {"bare": rounds, "graft_by_processes": rates, "of_bare_by_processes": of_bare}
        figures["goals"].append(least(f"throughput over the bare limit, {name}", max(of_bare.values()), 0.9))
    return figures


def one_client(bench: Bench) -> Figures:
    """What HTTP and the engine add to one image at a time.

    In turns, since the machine changes from one minute to the next by more than what is measured: the server stands by
    while the bare call is timed.
    """
    direct, seen = [], []
    with servers.graft(bench.home) as server:
        for _ in range(TURNS):
            calls = bare.one_by_one(bench.graph, bench.shape, bench.usual, 400 // TURNS)
            direct.append(round(1000 * statistics.median(calls), 2))
            seen.append(closed(server, bench.usual, 1, bench.seconds / TURNS).document())
    added = [round(one["p50_ms"] - bare_ms, 2) for one, bare_ms in zip(seen, direct, strict=True)]
    goal = most("milliseconds that one client waits beyond the bare call, median", statistics.median(added), 3.0)
    return {"bare_p50_ms": direct, "graft": seen, "added_ms": added, "goals": [goal]}


def overload(bench: Bench) -> Figures:
    """Twice as many requests as can be answered, from up to 500 clients."""
    with servers.graft(bench.home) as server:
        saturation = closed(server, bench.usual, CLIENTS, bench.seconds).document()["answers_per_second"]
        before = server.memory()
        requests = server.requests(bench.usual)
        with _sampled(server) as memory:
            seen = load.opened(server.host, server.port, requests, 2 * saturation, OVERLOAD_SECONDS, most=500)
        again = closed(server, bench.usual, CLIENTS, bench.seconds).document()["answers_per_second"]
    found = seen.document()
    # Before and after: the machine itself changes by a tenth within minutes.
    goodput = round(found["answers_per_second"] / statistics.mean((saturation, again)), 3)
    strange = sum(number for status, number in seen.statuses.items() if status not in (200, 503))
    return {
        "saturation": [saturation, again],
        "graft": found,
        "memory_mib": {"before": round(before, 1), "every 5 s": [round(one, 1) for one in memory]},
        "goals": [
            least("goodput at twice the saturation, over the saturation", goodput, 0.9),
            most("answers at twice the saturation that are neither 200 nor 503", strange, 0),
            # A full queue holds its images; what counts is that nothing grows from then on.
            most("memory in the last third of the overload over that in the second", _growth(memory), 1.05),
        ],
    }


@contextmanager
def _sampled(server: Server) -> Iterator[list[float]]:
    """MiB that the server holds, every SAMPLE_SECONDS while the body runs."""
    found: list[float] = []
    over = Event()

    def sample() -> None:
        while not over.wait(SAMPLE_SECONDS):
            found.append(server.memory())

    thread = Thread(target=sample)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()


def _growth(memory: list[float]) -> float:
    third = len(memory) // 3
    return round(statistics.mean(memory[-third:]) / statistics.mean(memory[third:-third]), 3)


def many_models(bench: Bench) -> Figures:
    """Fifty models on one backbone, and fifty backbones under a budget that holds five; random turns."""
    shared, own = ([f"{kind}-{number:02}" for number in range(NUM_MODELS)] for kind in ("shared", "own"))
    many.publish(bench.home, servers.MODEL, shared, own_backbones=False)
    many.publish(bench.home, servers.MODEL, own, own_backbones=True)
    with servers.graft(bench.home) as server:
        _turns(server, bench.usual, [servers.MODEL], 200)
        one = server.memory()
        seen = _turns(server, bench.usual, shared, 4 * NUM_MODELS)
        fifty = server.memory()
    with servers.graft(bench.home, GRAFT_POOL_BYTES=str(5 * _held(bench))) as server:
        squeezed = _turns(server, bench.usual, own, 4 * NUM_MODELS)
        memory = server.memory()
    failed = sum(number for status, number in (seen.statuses + squeezed.statuses).items() if status != load.OK)
    return {
        "one_backbone": {**seen.document(), "memory_mib": [round(one, 1), round(fifty, 1)]},
        "fifty_backbones": {**squeezed.document(), "memory_mib": round(memory, 1)},
        "goals": [
            most("memory of fifty models on one backbone over that of one", round(fifty / one, 3), 1.2),
            most("failed requests to a hundred models", failed, 0),
        ],
    }


def cold_start(bench: Bench) -> Figures:
    """From a running server without a model in memory to its first answer; of a graph of 20 MB too."""
    with tempfile.TemporaryDirectory(prefix="graft-bench-") as folder:
        large, _ = servers.publish(Path(folder), bench.archive, LARGE)
        found = {
            "usual": _cold_starts(bench, bench.home, bench.graph),
            "large": _cold_starts(bench, Path(folder), large),
        }
    goals = [
        most(f"seconds to the first answer of a graph of {one['graph_mb']} MB", statistics.median(one["all"]), 1)
        for one in found.values()
    ]
    return {**found, "goals": goals}


def _cold_starts(bench: Bench, home: Path, graph: Path) -> Figures:
    found = []
    for _ in range(5):
        with servers.graft(home) as server:
            begin = time.perf_counter()
            seen = _turns(server, bench.usual, [servers.MODEL], 1, clients=1)
            found.append(round(time.perf_counter() - begin, 3))
        if seen.statuses[load.OK] != 1:
            raise SystemExit(f"expected an answer; found {dict(seen.statuses)}")
    return {"graph_mb": round(graph.stat().st_size / 1e6, 1), "all": found}


def _turns(server: Server, pictures: list[bytes], names: list[str], number: int, clients: int = 8) -> load.Seen:
    """So many requests, to each model in turn."""
    requests = []
    for place in range(number):
        path = f"/api/v1/models/{names[place % len(names)]}/predict"
        body = load.multipart(server.field, pictures[place % len(pictures)])
        requests.append(load.request(server.host, server.port, path, *body))
    return load.once(server.host, server.port, requests, clients)


def _held(bench: Bench) -> int:
    """What the pool counts for one model that has run an image: in turn, none of many has more at once."""
    session = Session(bench.graph)
    session.run(np.zeros((1, *session.input_shape[1:]), np.uint8))
    return session.size_bytes


def closed(server: Server, pictures: list[bytes], clients: int, seconds: float) -> load.Seen:
    """A closed loop, after a warm-up."""
    return load.closed(server.host, server.port, server.requests(pictures), clients, seconds, warm_up=5.0)


def opened(server: Server, pictures: list[bytes], rate: float, seconds: float) -> load.Seen:
    """An open loop, after a warm-up."""
    requests = server.requests(pictures)
    load.closed(server.host, server.port, requests, CLIENTS, 3.0)
    return load.opened(server.host, server.port, requests, rate, max(30.0, seconds))


def least(what: str, found: float, goal: float) -> Figures:
    """A figure and the least that it should be."""
    return {"what": what, "found": found, "goal": goal, "met": found >= goal}


def most(what: str, found: float, goal: float) -> Figures:
    """A figure and the most that it should be."""
    return {"what": what, "found": found, "goal": goal, "met": found <= goal}
