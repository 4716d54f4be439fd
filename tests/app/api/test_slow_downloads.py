"""What is composed for a download lies on the disk while a client takes its time, and goes with the answer."""

import asyncio
import gc
import shutil
import socket
import threading
import time
import tracemalloc
from contextlib import ExitStack
from urllib.parse import urlsplit

import httpx
import pytest

from app.errors import Overloaded
from app.services import compositions
from app.settings import Settings
from tests import factories, listening
from tests.app import onnx_factories
from tests.checks import problem
from tests.conftest import wait_until

SIZE_BYTES = 24 * 2**20
VERSION = "/api/v1/models/large/versions/1"
DOORS = ("files/model.onnx", "repository", "mlflow")


@pytest.fixture(scope="module")
def service(sqlite_template, tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    shutil.copyfile(sqlite_template, home / "graft.db")
    with listening.application(Settings(home=home)) as (url, state):
        network = home / "large.onnx"
        network.write_bytes(onnx_factories.backbone_bytes(extra_bytes=SIZE_BYTES))
        with state.database.write() as session:
            of = factories.model(session, "large", 0)
            for number in (1, 2):
                folder = home / f"made-{number}"
                factories.published(
                    session, state.storage, folder, of, number, shared=False, parts={"backbone": network}
                )
        yield url, state


def composed(state):
    return list(state.settings.scratch.glob("composed-*"))


def slow_reader(url, door):
    """A connection of which the beginning of the answer has come, and no more is read."""
    parts = urlsplit(url)
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**14)
    connection.settimeout(60)
    connection.connect((parts.hostname, parts.port))
    connection.sendall(f"GET {VERSION}/{door} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n".encode())
    assert connection.recv(2**10).startswith(b"HTTP/1.1 200 ")
    return connection


@pytest.mark.parametrize("door", DOORS)
def test_slow_readers_hold_no_memory(service, door):
    url, state = service
    with ExitStack() as opened:
        # What is loaded once is no part of it.
        opened.enter_context(slow_reader(url, door))
        gc.collect()
        tracemalloc.start()
        opened.callback(tracemalloc.stop)
        readers = [opened.enter_context(slow_reader(url, door)) for _ in range(4)]
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] < SIZE_BYTES
        assert len(composed(state)) == 1
        num_bytes = 0
        while piece := readers[0].recv(2**20):
            num_bytes += len(piece)
        assert num_bytes > SIZE_BYTES
        time.sleep(0.2)
        assert len(composed(state)) == 1
    wait_until(lambda: not composed(state), "the end of those whose clients have gone")


@pytest.mark.parametrize("door", DOORS)
def test_few_compose_at_once(service, door, monkeypatch):
    url, state = service
    with httpx.Client(base_url=url, trust_env=False, timeout=60) as http:
        with ExitStack() as others:
            for _ in range(compositions.NUM_AT_ONCE):
                others.enter_context(compositions.in_line())
                others.enter_context(compositions.place())
            monkeypatch.setattr(compositions, "WAIT_SECONDS", 0.1)
            answer = http.get(f"{VERSION}/{door}")
            problem(answer, 503, "overloaded")
            assert answer.headers["Retry-After"] == str(compositions.RETRY_SECONDS)
        assert http.get(f"{VERSION}/{door}").status_code == 200
        assert http.get(f"{VERSION}/files/nothing").status_code == 404
    wait_until(lambda: not composed(state), "the end of the answers")


def test_few_versions_of_a_project_are_downloaded_at_once(service, monkeypatch):
    url, state = service
    monkeypatch.setattr(compositions, "NUM_FILES_EACH", 1)
    other = "/api/v1/models/large/versions/2/repository"
    with httpx.Client(base_url=url, trust_env=False, timeout=60) as http:
        with slow_reader(url, "mlflow"):
            answer = http.get(other)
            problem(answer, 503, "overloaded")
            assert "found 1 and 1" in answer.json()["detail"]
            assert http.get(f"{VERSION}/repository").status_code == 200
        wait_until(lambda: not composed(state), "the end of the one that was not read")
        assert http.get(other).status_code == 200
    wait_until(lambda: not composed(state), "the end of the answers")


def test_one_of_several_that_want_a_version_composes_it(service, monkeypatch):
    url, state = service
    made, model_bytes = [], compositions.bundle.model_bytes
    monkeypatch.setattr(compositions.bundle, "model_bytes", lambda *given: made.append(given) or model_bytes(*given))

    async def several():
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=60) as http:
            return await asyncio.gather(*(http.get(f"{VERSION}/{door}") for door in DOORS * 2))

    assert {answer.status_code for answer in asyncio.run(several())} == {200}
    # Two of them may be through before the others ask.
    assert 1 <= len(made) <= 3
    wait_until(lambda: not composed(state), "the end of the answers")


def test_few_wait():
    """Nobody waits behind a line that is full."""

    def wait():
        with compositions.in_line(), compositions.place():
            pass

    waiting = [threading.Thread(target=wait) for _ in range(compositions.NUM_WAITING)]
    with ExitStack() as others:
        for _ in range(compositions.NUM_AT_ONCE):
            others.enter_context(compositions.in_line())
            others.enter_context(compositions.place())
        for thread in waiting:
            thread.start()
        time.sleep(0.2)
        began = time.monotonic()
        with pytest.raises(Overloaded, match="that wait"):
            wait()
        assert time.monotonic() - began < compositions.WAIT_SECONDS / 2
    for thread in waiting:
        thread.join()
    wait()


def test_a_range_of_a_composed_graph(service):
    url, state = service
    with httpx.Client(base_url=url, trust_env=False, timeout=60) as http:
        whole = http.get(f"{VERSION}/files/model.onnx")
        part = http.get(f"{VERSION}/files/model.onnx", headers={"Range": "bytes=100-199"})
        assert (part.status_code, part.content) == (206, whole.content[100:200])
        assert whole.headers["Content-Disposition"] == 'attachment; filename="model.onnx"'
        problem(
            http.get(f"{VERSION}/files/model.onnx", headers={"Range": "bytes=99999999-"}), 416, "range_not_satisfiable"
        )
        assert http.head(f"{VERSION}/files/model.onnx").headers["Content-Length"] == str(len(whole.content))
    wait_until(lambda: not composed(state), "the end of the answers")
