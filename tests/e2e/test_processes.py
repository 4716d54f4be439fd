"""Several processes on one port: they share the work, and count as one service."""

import re
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
import tritonclient.grpc

from app.main import make_state
from app.settings import Settings
from tests import processes
from tests.conftest import free_port, wait_until
from tests.e2e.conftest import Service, serve
from tests.inference import NAME, PICTURES, publish

pytestmark = pytest.mark.server
NUM_REQUESTS = 40


def test_processes_share_a_port_and_count_as_one(tmp_path: Path, sqlite_template: Any) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "graft.db").write_bytes(sqlite_template.read_bytes())
    state = make_state(Settings(home=home))
    publish(state, tmp_path / "made")
    state.engine.close()
    state.database.dispose()
    port = free_port()
    with serve(home, ["serve"], serve_processes=2, grpc_port=port) as service:
        answering = [one for one in processes.named(home, "serve") if one.pid != service.process.pid]
        assert len(answering) == 2
        ask(service, NUM_REQUESTS)
        wait_until(lambda: agreed(service) == {NUM_REQUESTS}, "every request in the metrics of any process")
        for shared in (httpx.URL(service.url).port, port):
            check_all_take(answering, shared)
        assert called(port)
        # What a process has counted since it last told the others, a second ago at most, goes with it.
        wait_until(lambda: agreed(service) == {NUM_REQUESTS + 1}, "the request over gRPC too")

        # One of them dies: it is started again on the same port, and what it had counted is not lost.
        answering[0].send_signal(signal.SIGKILL)
        processes.wait_for_end(answering[:1])
        wait_until(lambda: len(processes.named(home, "serve")) == 3, "another process in its place")
        ask(service, NUM_REQUESTS)
        wait_until(lambda: agreed(service) == {2 * NUM_REQUESTS + 1}, "the requests of before and after")
        again = [one for one in processes.named(home, "serve") if one.pid != service.process.pid]
        for shared in (httpx.URL(service.url).port, port):
            check_all_take(again, shared)
        assert called(port)


def test_what_was_answered_outlives_the_service_and_is_seen_by_others(tmp_path: Path, sqlite_template: Any) -> None:
    """Two hosts over one database and one storage; the first one has two processes, and ends."""
    (tmp_path / "graft.db").write_bytes(sqlite_template.read_bytes())
    shared = {"database_url": f"sqlite:///{tmp_path / 'graft.db'}", "storage_url": f"file://{tmp_path / 'shared'}"}
    state = make_state(Settings(home=tmp_path / "operator", **shared))
    publish(state, tmp_path / "made")
    state.engine.close()
    state.database.dispose()
    with serve(tmp_path / "other", ["serve"], **shared) as other:
        with serve(tmp_path / "one", ["serve"], serve_processes=2, **shared) as one:
            ask(one, NUM_REQUESTS)
            wait_until(lambda: {observed(one) for _ in range(10)} == {NUM_REQUESTS}, "the images of both processes")
            assert observed(other) == 0
        assert observed(other) == NUM_REQUESTS
        ask(other, 3)
        assert observed(other) == NUM_REQUESTS + 3
        # Which is Ctrl-C.
        other.process.send_signal(signal.SIGINT)
        assert other.process.wait(30) == 0
    assert "Traceback" not in other.log.read_text()


def check_all_take(answering: list[psutil.Process], port: int | None) -> None:
    """Of many connections to a port, the kernel gives each process some."""

    def takers() -> set[int]:
        return {
            one.pid
            for one in answering
            for connection in one.net_connections("tcp")
            if connection.laddr.port == port and connection.status == psutil.CONN_ESTABLISHED
        }

    with ExitStack() as stack:
        for _ in range(NUM_REQUESTS):
            stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        wait_until(lambda: takers() == {one.pid for one in answering}, f"connections of all processes to {port}")


def called(port: int) -> bool:
    """Whether a prediction comes back by gRPC."""
    image = tritonclient.grpc.InferInput("encoded", [1], "BYTES")
    image.set_data_from_numpy(np.array([PICTURES[0]], np.object_))
    with tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{port}") as client:
        return bool(client.infer(NAME, [image]).as_numpy("probabilities").shape == (1, 3))


def observed(service: Service) -> int:
    """Images of the last day, as whichever process is asked tells of them."""
    found = service.request("GET", f"/api/v1/models/{NAME}/drift?window=day").json()
    assert found["is_whole"]
    return int(found["num_images"])


def ask(service: Service, number: int) -> None:
    """So many predictions, each on a connection of its own."""
    files = {"file": ("a.png", PICTURES[0], "image/png")}

    def one(_: int) -> int:
        url = f"{service.url}/api/v1/models/{NAME}/predict"
        return httpx.post(url, files=files, timeout=60, trust_env=False).status_code

    with ThreadPoolExecutor(4) as threads:
        assert set(threads.map(one, range(number))) == {200}


def agreed(service: Service) -> set[float]:
    """What is said by whichever process is asked, ten times."""
    return {counted(service) for _ in range(10)}


def counted(service: Service) -> float:
    """Requests answered, by the metrics of whichever process is asked."""
    text = service.request("GET", "/metrics").text
    return sum(
        float(value) for value in re.findall(r'graft_predict_requests_total\{.*outcome="success"[^}]*\} (\S+)', text)
    )
