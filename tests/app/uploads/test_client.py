"""The client over a connection that breaks, and the command that uses it."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest

from app import cli
from app.client import ApiError, Client, uploading
from tests import factories
from tests.app.uploads.conftest import DATA, SHA256


@contextmanager
def breaking(url: str, after: list[int]) -> Iterator[str]:
    """A proxy whose connections break, each after so many bytes of the client's; at the end of the list none does."""
    there = urlsplit(url)
    listener = socket.create_server(("127.0.0.1", 0))

    def carry(source: socket.socket, target: socket.socket, most: int | None) -> None:
        try:
            while data := source.recv(65536):
                target.sendall(data if most is None else data[:most])
                if most is not None and (most := most - len(data)) <= 0:
                    break
            for one in (source, target):
                one.shutdown(socket.SHUT_RDWR)
        except OSError:
            # The other direction, or the other side, has ended it.
            return

    def connect(client: socket.socket, most: int | None) -> None:
        with client, socket.create_connection((there.hostname, there.port)) as server:
            back = threading.Thread(target=carry, args=(server, client, None))
            back.start()
            carry(client, server, most)
            back.join()

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=connect, args=(client, after.pop(0) if after else None))
            thread.start()
            threads.append(thread)

    threads: list[threading.Thread] = []
    accepting = threading.Thread(target=serve)
    accepting.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        accepting.join()
        listener.close()
        for thread in threads:
            thread.join()


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(uploading, "FIRST_WAIT_SECONDS", 0.05)
    monkeypatch.setattr(Client, "large_bytes", 1000)


def test_the_client_goes_on_after_every_break(service, quick, tmp_path):
    file = tmp_path / "data.bin"
    file.write_bytes(DATA)
    sent: list[int] = []
    with breaking(service.url, [3_000_000, 100, 4_000_000, 2_000_000]) as url, Client(url) as graft:
        done = graft.upload(file, on_sent=lambda here, _: sent.append(here))
    assert (done["state"], done["sha256"], done["filename"]) == ("complete", SHA256, "data.bin")
    assert max(sent) == len(DATA)
    # It went back to what was there, and not to the beginning.
    assert sent.count(0) <= 3
    service.request("DELETE", f"/{done['id']}")


def test_another_process_goes_on(service, quick, tmp_path):
    file = tmp_path / "data.bin"
    file.write_bytes(DATA)
    upload_id = service.begin()
    service.patch(upload_id, 0, DATA[:5_000_000])
    with Client(service.url) as graft:
        assert graft.upload(file, resume=upload_id)["sha256"] == SHA256
        with pytest.raises(ApiError, match="not_found"):
            graft.upload(file, resume="up_none")
    service.request("DELETE", f"/{upload_id}")


def test_large_datasets_go_as_uploads(service, quick, tmp_path):
    file = tmp_path / "pets.zip"
    file.write_bytes(factories.pack(factories.pictures(2)))
    with Client(service.url) as graft:
        made = graft.upload_dataset(file, "pets", seed=5)
    assert (made["state"], made["seed"]) == ("ingesting", 5)
    assert service.request("GET").json()["data"][0]["used_by"] == made["id"]


def test_the_client_gives_up_on_a_service_that_stays_away(quick, monkeypatch, tmp_path):
    monkeypatch.setattr(uploading, "MAX_FAILURES", 3)
    (tmp_path / "a").write_bytes(b"x")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with Client(f"http://127.0.0.1:{port}") as graft, pytest.raises(Exception, match="refused"):
        graft.upload(tmp_path / "a")


def test_the_command(service, tmp_path, capsys):
    file = tmp_path / "pets.zip"
    file.write_bytes(factories.pack(factories.pictures(2)))
    assert cli.main(["upload", str(file), "--url", service.url]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["state"] == "complete"
    assert cli.main(["upload", str(file), "--resume", made["id"], "--name", "pets", "--url", service.url]) == 0
    assert json.loads(capsys.readouterr().out)["state"] == "ingesting"
    assert cli.main(["upload", str(file), "--resume", "up_none", "--url", service.url]) == 1
    assert "not_found" in capsys.readouterr().err
    assert cli.main(["upload", str(tmp_path / "none")]) == 2
    assert "expected a file" in capsys.readouterr().err
