"""Images by URL: from the hosts that are allowed, and nowhere else."""

import base64
import gzip
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.api import remote
from app.api.held import Hold
from app.main import create_app
from app.settings import Settings
from tests.app.api.test_predictions import PICTURES, URL, check, prepare
from tests.checks import problem

asked: list[str] = []


class Handler(BaseHTTPRequestHandler):
    """Pictures by number, and what else a host may do."""

    def do_GET(self) -> None:
        asked.append(self.path)
        name = self.path.strip("/")
        if name == "moved":
            self.send_response(302)
            self.send_header("Location", "/0")
            self.end_headers()
        elif name == "slow":
            time.sleep(1.0)
            self.close_connection = True
        elif name == "huge":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(bytes(2**20))
        elif name == "packed":
            packed = gzip.compress(PICTURES[0] if "identity" in self.headers["Accept-Encoding"] else b"asked for it")
            self.send_response(200)
            self.send_header("Content-Encoding", "gzip")
            self.send_header("Content-Length", str(len(packed)))
            self.end_headers()
            self.wfile.write(packed)
        elif name.isdigit():
            self.send_response(200)
            self.send_header("Content-Length", str(len(PICTURES[int(name)])))
            self.end_headers()
            self.wfile.write(PICTURES[int(name)])
        else:
            self.send_error(404)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    """A host of pictures, as `name:port`."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def client(host: str, sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """The application, which may fetch from that host alone."""
    home = tmp_path_factory.mktemp("remote")
    (home / "graft.db").write_bytes(sqlite_template.read_bytes())
    settings = Settings(home=home, image_hosts=(host, "pictures.example"), max_predict_bytes=2**20)
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as found:
        prepare(found, home, 1)
        yield found


def test_images_are_fetched_beside_those_that_are_sent(client: TestClient, host: str) -> None:
    sent: list[dict[str, str]] = [{"url": f"http://{host}/{index}"} for index in range(len(PICTURES))]
    sent[1] = {"b64": base64.b64encode(PICTURES[1]).decode()}
    check(client.post(URL, json={"images": sent}), PICTURES, 1)
    lines = client.post(URL, content="\n".join(map(json.dumps, sent)), headers={"Content-Type": "application/x-ndjson"})
    labels = [json.loads(line)["label"] for line in lines.text.splitlines()]
    assert labels == [item["label"] for item in client.post(URL, json={"images": sent}).json()["predictions"]]


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/0",
        "http://127.0.0.1/0",
        "http://localhost:{port}/0",
        "http://127.0.0.1:{port}@evil.example/0",
        "http://me:secret@127.0.0.1:{port}/0",
        "http://evil.example/?http://127.0.0.1:{port}/0",
        "http://pictures.example.evil.example/0",
        "http://pictures.example:81/0",
        "ftp://pictures.example/0",
        "file:///etc/passwd",
        "//127.0.0.1:{port}/0",
        "http://[::1/0",
        "http://127.0.0.1:99999/0",
        "",
        "0",
    ],
)
def test_other_places_are_never_asked(client: TestClient, host: str, url: str) -> None:
    asked.clear()
    good = {"url": f"http://{host}/0"}
    answer = client.post(URL, json={"images": [good, {"url": url.format(port=host.rpartition(":")[2])}]})
    assert problem(answer, 400, "image_url_refused")["index"] == 1
    assert asked == []


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("http://127.0.0.1/0", 'send the image itself, or have the operator add "127.0.0.1" to it'),
        ("http://pictures.example:81/0", 'send the image itself, or have the operator add "pictures.example:81" to it'),
        ("ftp://pictures.example/0", "send the image itself, or write it as https://HOST/PATH"),
    ],
)
def test_the_entry_that_would_allow_a_place_is_named(client: TestClient, url: str, hint: str) -> None:
    answer = client.post(URL, json={"images": [{"url": url}]})
    assert problem(answer, 400, "image_url_refused")["detail"].endswith(hint)


def test_a_redirect_is_not_followed(client: TestClient, host: str) -> None:
    asked.clear()
    problem(client.post(URL, json={"images": [{"url": f"http://{host}/moved"}]}), 400, "image_url_failed")
    assert asked == ["/moved"]


def test_what_cannot_be_had_is_said(client: TestClient, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = problem(client.post(URL, json={"images": [{"url": f"http://{host}/none"}]}), 400, "image_url_failed")
    assert (found["index"], "404" in found["detail"]) == (0, True)
    monkeypatch.setattr(remote, "TIMEOUT_SECONDS", 0.2)
    problem(client.post(URL, json={"images": [{"url": f"http://{host}/slow"}]}), 400, "image_url_failed")


def test_nothing_is_unpacked(client: TestClient, host: str) -> None:
    """A few bytes could become more than memory has."""
    found = problem(client.post(URL, json={"images": [{"url": f"http://{host}/packed"}]}), 400, "image_url_failed")
    assert (found["index"], "content encoding 'gzip'" in found["detail"]) == (0, True)


def test_images_of_one_request_are_limited_together(client: TestClient, host: str) -> None:
    urls = [{"url": f"http://{host}/{name}"} for name in ("0", "huge")]
    problem(client.post(URL, json={"images": urls}), 413, "body_too_large")


def test_what_is_fetched_is_held_like_what_is_sent(client: TestClient, host: str) -> None:
    held, image = client.app.state.graft.held, {"url": f"http://{host}/0"}  # type: ignore[attr-defined]
    lines = {"content": json.dumps(image), "headers": {"Content-Type": "application/x-ndjson"}}
    hold = Hold(held, "default")
    hold.take(512 * 2**20 - len(PICTURES[0]))
    refused = problem(client.post(URL, json={"images": [image]}), 503, "overloaded")
    assert "GRAFT_MAX_HELD_BYTES" in refused["detail"]
    assert json.loads(client.post(URL, **lines).text)["problem"]["code"] == "overloaded"
    assert held.num_bytes == 512 * 2**20 - len(PICTURES[0])
    hold.close()
    assert "label" in json.loads(client.post(URL, **lines).text)
    assert client.post(URL, json={"images": [image]}).status_code == 200
    assert held.num_bytes == 0


@pytest.mark.parametrize("image", [{}, {"b64": "", "url": "http://a/0"}, {"url": None}, {"url": 3}])
def test_an_image_is_its_bytes_or_its_place(client: TestClient, image: dict[str, Any]) -> None:
    problem(client.post(URL, json={"images": [image]}), 422, "invalid_payload")


def test_no_host_is_allowed_by_default(light_client: TestClient, tmp_path: Path, host: str) -> None:
    prepare(light_client, tmp_path, 1)
    problem(light_client.post(URL, json={"images": [{"url": f"http://{host}/0"}]}), 400, "image_url_refused")
