"""Downloads against a real HTTP server on loopback that honours ranges and breaks on demand."""

import hashlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from app.artifact.preprocess import Preprocess
from app.backbones import Backbone, Weights
from app.errors import JobFailure
from worker.backbones import weights
from worker.prepare import download
from worker.prepare.download import Refused, Source

CONTENT = bytes(range(256)) * 4096  # 1 MiB
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Host:
    """What the server does, and what it was asked."""

    cut_after: list[int] = field(default_factory=list)  # bytes of the body per answer, before the connection breaks
    ranges: bool = True
    status: int = 200
    asked: list[str] = field(default_factory=list)
    lacks: str = "nothing"  # end of the names that it answers 404 for
    address: str = ""


@pytest.fixture
def host() -> Iterator[Host]:
    plan = Host()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            if plan.status != 200 or self.path.endswith(plan.lacks):
                self.send_response(404 if plan.status == 200 else plan.status)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.send_header("X-Repo-Commit", "0" * 40)
            self.send_header("ETag", f'"{DIGEST}"')
            self.end_headers()

        def do_GET(self) -> None:
            wanted = self.headers.get("Range", "")
            plan.asked.append(wanted)
            if plan.status != 200:
                self.send_response(plan.status)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and plan.ranges else 0
            if start >= len(CONTENT):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(CONTENT)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            body = CONTENT[start:]
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if plan.cut_after:
                self.wfile.write(body[: plan.cut_after.pop(0)])
                self.close_connection = True
            else:
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    plan.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield plan
    server.shutdown()
    thread.join()
    server.server_close()


def quiet(share: float, text: str) -> None:
    pass


def row(kind: str, location: str, file: str = "", sha256: str = "") -> Backbone:
    shape = Preprocess(32, 32, 36, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    origin = Weights(kind=kind, location=location, file=file, sha256=sha256)
    return Backbone("timm/tiny", "timm", "tiny", 1, 1, shape, "", "", False, None, origin)


def test_a_file_is_fetched_checked_and_reported(host: Host, tmp_path: Path) -> None:
    seen: list[float] = []
    source = Source(f"{host.address}/tiny-{DIGEST[:8]}.pth", DIGEST[:8])
    path = tmp_path / "deep" / "tiny.pth"
    download.download(source, path, lambda share, _: seen.append(share))
    assert path.read_bytes() == CONTENT
    assert seen[-1] == 1.0
    assert seen == sorted(seen)
    assert [entry.name for entry in path.parent.iterdir()] == ["tiny.pth"]


def test_a_broken_connection_resumes_where_it_stopped(host: Host, tmp_path: Path) -> None:
    host.cut_after = [300_000, 200_000]
    path = tmp_path / "tiny.pth"
    download.download(Source(host.address, DIGEST), path, quiet, pause_seconds=0)
    assert path.read_bytes() == CONTENT
    assert host.asked[0] == ""
    starts = [int(asked.removeprefix("bytes=").rstrip("-")) for asked in host.asked[1:]]
    assert len(starts) == 2
    assert 0 < starts[0] <= 300_000
    assert starts[0] < starts[1] <= 500_000


def test_beyond_4_gib_a_file_goes_on_where_its_connection_broke(tmp_path: Path) -> None:
    """Nearly all of it came before; of the rest nothing is sent twice, however often the connection breaks."""
    tail = hashlib.sha256(b"tail").digest() * 2**15  # 1 MiB
    size_bytes = 2**32 + 3 * len(tail)
    part = tmp_path / "large.pth.part"
    with part.open("wb") as file:
        file.truncate(size_bytes - len(tail))
    asked, cuts = [], [300_000, 200_000]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
            asked.append(start)
            body = tail[start - (size_bytes - len(tail)) :]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{size_bytes - 1}/{size_bytes}")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: cuts.pop(0)] if cuts else body)
            self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        path = tmp_path / "large.pth"
        source = Source(f"http://127.0.0.1:{server.server_port}/large.pth", "", size_bytes)
        told: list[float] = []
        download.download(source, path, lambda share, _: told.append(share), pause_seconds=0)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert path.stat().st_size == size_bytes
    with path.open("rb") as file:
        file.seek(-len(tail), 2)
        assert file.read() == tail
    first = size_bytes - len(tail)
    assert len(asked) == 3
    assert asked[0] == first > 2**32
    assert first < asked[1] <= first + 300_000 < first + 500_000
    assert asked[1] < asked[2] <= first + 500_000
    assert told == sorted(told)
    assert (told[0] > 0.999, told[-1]) == (True, 1.0)


def test_what_an_earlier_process_left_is_used(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "tiny.pth"
    (tmp_path / "tiny.pth.part").write_bytes(CONTENT[:1000])
    download.download(Source(host.address, DIGEST), path, quiet)
    assert path.read_bytes() == CONTENT
    assert host.asked == ["bytes=1000-"]


def test_a_complete_part_is_only_checked(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "tiny.pth"
    (tmp_path / "tiny.pth.part").write_bytes(CONTENT)
    download.download(Source(host.address, DIGEST), path, quiet)
    assert path.read_bytes() == CONTENT


def test_a_part_longer_than_the_file_starts_again(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "tiny.pth"
    (tmp_path / "tiny.pth.part").write_bytes(CONTENT + b"more")
    download.download(Source(host.address, DIGEST), path, quiet, pause_seconds=0)
    assert path.read_bytes() == CONTENT


def test_a_server_without_ranges_starts_again(host: Host, tmp_path: Path) -> None:
    host.ranges, host.cut_after = False, [300_000]
    path = tmp_path / "tiny.pth"
    download.download(Source(host.address, DIGEST), path, quiet, pause_seconds=0)
    assert path.read_bytes() == CONTENT


def test_a_connection_that_brings_nothing_is_given_up(host: Host, tmp_path: Path) -> None:
    host.cut_after = [0] * 20
    with pytest.raises(Refused, match="4 attempts"):
        download.download(Source(host.address, DIGEST), tmp_path / "tiny.pth", quiet, pause_seconds=0)
    assert len(host.asked) == 4
    assert list(tmp_path.iterdir()) == []


def test_what_came_of_a_file_stays_for_the_next_attempt(host: Host, tmp_path: Path) -> None:
    host.cut_after = [1000, *[0] * 20]
    with pytest.raises(Refused, match="4 attempts"):
        download.download(Source(host.address, DIGEST), tmp_path / "tiny.pth", quiet, pause_seconds=0)
    assert (tmp_path / "tiny.pth.part").stat().st_size == 1000


@pytest.mark.parametrize(("status", "asked"), [(404, 1), (403, 1), (503, 4)])
def test_only_answers_that_may_change_are_asked_for_again(host: Host, tmp_path: Path, status: int, asked: int) -> None:
    host.status = status
    with pytest.raises(Refused, match=str(status)):
        download.download(Source(host.address, DIGEST), tmp_path / "tiny.pth", quiet, pause_seconds=0)
    assert len(host.asked) == asked
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_digest_leaves_nothing_behind(host: Host, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="expected a file whose sha256 starts with 00000000"):
        download.download(Source(host.address, "0" * 8), tmp_path / "tiny.pth", quiet)
    assert list(tmp_path.iterdir()) == []


def test_a_hub_repository_is_resolved_to_its_digest(host: Host) -> None:
    source = download.resolve(row("hub", "someone/tiny", "model.safetensors"), endpoint=host.address)
    assert source.address == f"{host.address}/someone/tiny/resolve/main/model.safetensors"
    assert (source.sha256, source.size_bytes) == (DIGEST, len(CONTENT))


def test_a_hub_that_cannot_be_reached_is_said() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    with pytest.raises(Refused, match="cannot be reached"):
        download.resolve(row("hub", "someone/tiny", "model.safetensors"), endpoint=f"http://127.0.0.1:{port}")


def test_a_hub_that_refuses_is_named(host: Host) -> None:
    host.status = 404
    with pytest.raises(Refused, match="404"):
        download.resolve(row("hub", "someone/tiny", "model.safetensors"), endpoint=host.address)


def test_an_older_repository_has_its_weights_under_another_name(host: Host, tmp_path: Path) -> None:
    backbone = row("hub", "someone/tiny", "open_clip_model.safetensors")
    host.lacks = ".bin"
    assert download.fetch(backbone, tmp_path / "new", quiet, host.address).name == "tiny.safetensors"
    host.lacks = ".safetensors"
    path = download.fetch(backbone, tmp_path / "old", quiet, host.address)
    assert (path.name, path.read_bytes()) == ("tiny.bin", CONTENT)
    assert weights.locate(backbone, tmp_path / "old") == path
    host.status = 404
    with pytest.raises(JobFailure, match=r"404 for someone/tiny/open_clip_pytorch_model\.bin"):
        download.fetch(backbone, tmp_path / "none", quiet, host.address)


def test_fetch_downloads_once(host: Host, tmp_path: Path) -> None:
    backbone = row("url", f"{host.address}/tiny-{DIGEST[:8]}.pth", sha256=DIGEST[:8])
    assert weights.locate(backbone, tmp_path) is None
    path = download.fetch(backbone, tmp_path, quiet)
    assert path == tmp_path / "weights" / "timm" / "tiny.pth"
    assert download.fetch(backbone, tmp_path, quiet) == path
    assert len(host.asked) == 1


def test_failure_names_what_can_be_used_instead(host: Host, tmp_path: Path) -> None:
    host.status = 404
    with pytest.raises(JobFailure) as caught:
        download.fetch(row("url", f"{host.address}/tiny.pth"), tmp_path, quiet)
    assert caught.value.code == "weights_unavailable"
    assert "timm/tiny" in caught.value.message
    assert "404" in caught.value.message
    assert "timm/tf_efficientnet_lite0" in caught.value.message


def test_a_missing_package_is_named(tmp_path: Path) -> None:
    with pytest.raises(JobFailure, match="package no-such-package is not installed"):
        download.fetch(row("starter", "no-such-package", "no_such_package/tiny.pth"), tmp_path, quiet)
