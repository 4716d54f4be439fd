"""The client against a scripted HTTP server that misbehaves on purpose, and against the real application."""

import json
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from python_multipart.multipart import parse_options_header

from app.api.deps import State
from app.client import ApiError, Client, Event, Progress, parse_stream, watching
from app.db import migration
from app.settings import Settings
from tests import factories, listening
from tests.app import bundle_factories

Answer = Callable[[BaseHTTPRequestHandler], None]
JSON, SSE, PROBLEM = "application/json", "text/event-stream", "application/problem+json"
EVENTS = [{"id": number, "type": "log", "message": f"event {number}", "data": {}} for number in range(1, 8)]
HALF = {"fraction": 0.5, "stage": "train", "eta_seconds": 2.0}


def send(handler: BaseHTTPRequestHandler, body: bytes, kind: str = JSON, status: int = 200) -> None:
    handler.send_response(status)
    handler.send_header("Content-Type", kind)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def send_json(document: Any, status: int = 200, kind: str = JSON) -> Answer:
    return lambda handler: send(handler, json.dumps(document).encode(), kind, status)


@contextmanager
def scripted(answer: Answer) -> Iterator[str]:
    """A server on loopback that answers every request with one function."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            answer(self)

        do_POST = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Job:
    """A job's routes. Each stream breaks in the middle of a message after `per_stream` events; 0 means no stream."""

    def __init__(self, per_stream: int) -> None:
        self._per_stream = per_stream
        self._shown = 0
        self.resumed_after: list[int] = []

    def __call__(self, handler: BaseHTTPRequestHandler) -> None:
        path, _, query = handler.path.partition("?")
        if not path.endswith("/events"):
            state = "succeeded" if self._shown >= len(EVENTS) else "running"
            send_json({"id": "job_1", "state": state, "progress": HALF})(handler)
        elif self._per_stream and handler.headers["Accept"] == SSE:
            self._stream(handler, int(handler.headers["Last-Event-ID"]))
        else:
            after = int(dict(part.split("=") for part in query.split("&"))["after"]) if query else 0
            rows = EVENTS[after : after + 2]
            self._shown = max([self._shown, *(row["id"] for row in rows)])
            send_json({"data": rows, "has_more": after + 2 < len(EVENTS)})(handler)

    def _stream(self, handler: BaseHTTPRequestHandler, after: int) -> None:
        self.resumed_after.append(after)
        rows = EVENTS[after : after + self._per_stream]
        text = "retry: 1000\n\n: alive\n\n"
        text += "".join(f"id: {row['id']}\nevent: log\ndata: {json.dumps(row)}\n\n" for row in rows)
        text += f"event: progress\ndata: {json.dumps({'id': None, 'type': 'progress', 'data': HALF})}\n\n"
        self._shown = after + len(rows)
        cut = b"id: 99\nevent: log\ndata: {"
        handler.send_response(200)
        handler.send_header("Content-Type", f"{SSE}; charset=utf-8")
        handler.send_header("Content-Length", str(len(text) + len(cut) + 100))
        handler.end_headers()
        handler.wfile.write(text.encode() + cut)
        handler.wfile.flush()
        handler.close_connection = True


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "POLL_SECONDS", 0.001)


@pytest.mark.parametrize("per_stream", [1, 3, 7])
def test_broken_streams_are_taken_up_without_loss_or_repetition(per_stream: int) -> None:
    job = Job(per_stream)
    seen: list[Event] = []
    progress: list[Progress] = []
    with scripted(job) as url, Client(url) as graft:
        ended = graft.wait_job("job_1", progress.append, seen.append)
    assert ended["state"] == "succeeded"
    assert [event.id for event in seen] == [row["id"] for row in EVENTS]
    assert [event.data for event in seen] == EVENTS
    assert job.resumed_after[: 7 // per_stream] == list(range(0, 7, per_stream))[: 7 // per_stream]
    assert progress[0] == Progress("running", 0.5, "train", 2.0)


def test_pages_are_asked_for_where_no_stream_comes_through() -> None:
    seen: list[Event] = []
    progress: list[Progress] = []
    with scripted(Job(per_stream=0)) as url, Client(url) as graft:
        ended = graft.wait_job("job_1", progress.append, seen.append)
    assert ended["state"] == "succeeded"
    assert [event.id for event in seen] == [row["id"] for row in EVENTS]
    assert progress


def test_waiting_ends_when_the_service_stays_away() -> None:
    with scripted(send_json({})) as url:
        gone = url
    with Client(gone) as graft, pytest.raises(httpx.ConnectError):
        graft.wait_job("job_1")


def test_pages_are_asked_for_where_the_project_has_its_streams_open() -> None:
    job, seen = Job(per_stream=3), list[Event]()
    problem = json.dumps({"status": 429, "code": "too_many_streams", "title": "", "detail": ""}).encode()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        if handler.headers["Accept"] == SSE:
            send(handler, problem, "application/problem+json", 429)
        else:
            job(handler)

    with scripted(answer) as url, Client(url) as graft:
        assert graft.wait_job("job_1", None, seen.append)["state"] == "succeeded"
    assert [event.id for event in seen] == [row["id"] for row in EVENTS]


def test_waiting_outlasts_a_restart() -> None:
    job, refused = Job(per_stream=3), iter(range(5))

    def answer(handler: BaseHTTPRequestHandler) -> None:
        if next(refused, None) is not None:
            send(handler, b"starting", "text/plain", 503)
        else:
            job(handler)

    with scripted(answer) as url, Client(url) as graft:
        assert graft.wait_job("job_1")["state"] == "succeeded"


def test_a_key_goes_with_every_call() -> None:
    seen: list[str | None] = []
    job = Job(per_stream=3)

    def answer(handler: BaseHTTPRequestHandler) -> None:
        seen.append(handler.headers["Authorization"])
        job(handler)

    with scripted(answer) as url:
        with Client(url, key="graft_secret") as graft:
            graft.wait_job("job_1")
        assert len(seen) > 3
        assert set(seen) == {"Bearer graft_secret"}
        seen.clear()
        with Client(url) as graft:
            graft.job("job_1")
        assert seen == [None]


def test_problem_becomes_an_error_with_its_document() -> None:
    problem = {"status": 404, "code": "not_found", "title": "Not found", "detail": "expected a job; found none"}
    with scripted(send_json(problem, 404, PROBLEM)) as url, Client(url) as graft:
        with pytest.raises(ApiError) as caught:
            graft.job("job_1")
        with pytest.raises(ApiError, match="not_found"):
            graft.wait_job("job_1")
    assert (caught.value.status, caught.value.code, caught.value.problem) == (404, "not_found", problem)


def test_an_answer_of_something_in_between_is_named_so() -> None:
    with scripted(lambda handler: send(handler, b"<h1>no</h1>", "text/html", 502)) as url, Client(url) as graft:
        with pytest.raises(ApiError) as caught:
            graft.job("job_1")
        assert caught.value.code == "not_graft"
        assert "<h1>no</h1>" in caught.value.problem["detail"]


def test_upload_is_a_form_with_file_and_fields(tmp_path: Path) -> None:
    received: dict[str, Any] = {}

    def answer(handler: BaseHTTPRequestHandler) -> None:
        received["length"] = handler.headers["Content-Length"]
        received["kind"] = parse_options_header(handler.headers["Content-Type"])
        received["body"] = handler.rfile.read(int(handler.headers["Content-Length"]))
        send_json({"id": "ds_1", "state": "ingesting"}, 202)(handler)

    content = bytes(range(256)) * 5000
    (tmp_path / "data.zip").write_bytes(content)
    with scripted(answer) as url, Client(url) as graft:
        assert graft.upload_dataset(tmp_path / "data.zip", "pets", seed=3)["id"] == "ds_1"
    assert received["kind"][0] == b"multipart/form-data"
    boundary = received["kind"][1][b"boundary"]
    parts = received["body"].split(b"--" + boundary)[1:-1]
    by_name = {part.partition(b'name="')[2].partition(b'"')[0]: part.partition(b"\r\n\r\n")[2][:-2] for part in parts}
    assert by_name == {b"name": b"pets", b"seed": b"3", b"file": content}


def test_predict_sends_images_in_their_order(tmp_path: Path) -> None:
    bodies: list[bytes] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        bodies.append(handler.rfile.read(int(handler.headers["Content-Length"])))
        send_json({"path": handler.path})(handler)

    (tmp_path / "b.png").write_bytes(b"second")
    with scripted(answer) as url, Client(url) as graft:
        shown = graft.predict("my model", [b"first", tmp_path / "b.png", b"third"], top_k=2)
    assert shown["path"] == "/api/v1/models/my%20model/predict?top_k=2"
    places = [bodies[0].index(word) for word in (b"first", b"second", b"third")]
    assert places == sorted(places)


def test_a_class_is_added_with_its_name_and_images(tmp_path: Path) -> None:
    bodies: list[bytes] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        bodies.append(handler.rfile.read(int(handler.headers["Content-Length"])))
        send_json({"path": handler.path, "key": handler.headers["Idempotency-Key"]}, 201)(handler)

    (tmp_path / "b.png").write_bytes(b"second")
    with scripted(answer) as url, Client(url) as graft:
        images = [b"first", tmp_path / "b.png"]
        shown = graft.add_class("my model", "gelb \u2600", images, idempotency_key="once", version=3)
    assert shown == {"path": "/api/v1/models/my%20model/classes?version=3", "key": "once"}
    places = [bodies[0].index(word) for word in ("gelb \u2600".encode(), b"first", b"second")]
    assert places == sorted(places)


def test_a_download_is_a_whole_file_or_none(tmp_path: Path) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        if handler.path.startswith("/api/v1/jobs/whole"):
            send(handler, b"rows" * 100_000, "application/x-ndjson")
        elif handler.path.startswith("/api/v1/jobs/cut"):
            handler.send_response(200)
            handler.send_header("Content-Length", "9")
            handler.end_headers()
            handler.wfile.write(b"rows")
            handler.close_connection = True
        else:
            wait = {"status": 409, "code": "predictions_not_ready", "title": "Conflict", "detail": "wait"}
            send_json(wait, 409, PROBLEM)(handler)

    target = tmp_path / "rows.jsonl"
    with scripted(answer) as url, Client(url) as graft:
        with pytest.raises(ApiError, match="predictions_not_ready"):
            graft.download_predictions("early", target)
        with pytest.raises(httpx.RemoteProtocolError):
            graft.download_predictions("cut", target)
        assert list(tmp_path.iterdir()) == []
        assert graft.download_predictions("whole", target) == target
    assert target.read_bytes() == b"rows" * 100_000
    assert list(tmp_path.iterdir()) == [target]


def test_predictions_of_a_dataset_or_an_upload_are_asked_for() -> None:
    seen: list[Any] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        seen.append((handler.path, handler.headers["Idempotency-Key"], body))
        send_json({"id": "job_1"}, 202)(handler)

    with scripted(answer) as url, Client(url) as graft:
        graft.predict_dataset("ds_1", "pets", idempotency_key="k", alias="staging", splits=["test"])
        graft.predict_upload("up_1", "pets", top_k=2)
    asked = {"kind": "predict", "dataset": "ds_1", "model": "pets", "alias": "staging", "splits": ["test"]}
    other = {"kind": "predict", "upload_id": "up_1", "model": "pets", "top_k": 2}
    assert seen == [("/api/v1/jobs", "k", asked), ("/api/v1/jobs", None, other)]


def test_findings_are_read_page_by_page() -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        after = int(handler.path.partition("after=")[2].partition("&")[0])
        rows = [{"seq": number} for number in range(after + 1, min(after + 4, 8))]
        send_json({"data": rows, "has_more": rows[-1]["seq"] < 7})(handler)

    with scripted(answer) as url, Client(url) as graft:
        assert [row["seq"] for row in graft.problems("ds_1")] == list(range(1, 8))


def test_proxies_of_the_environment_are_ignored_on_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with scripted(send_json({"id": "job_1"})) as url, Client(url) as graft:
        assert graft.job("job_1")["id"] == "job_1"


def test_stream_parser_follows_the_standard() -> None:
    lines = [
        "retry: 1000",
        "",
        ": a comment",
        "id: 4",
        "event: log",
        'data: {"a":',
        "data: 1}",
        "",
        "data:[2]",
        "",
        "event: nothing",
        "",
        "id: 9",
        "data: {",
    ]
    assert list(parse_stream(iter(lines))) == [Event(4, "log", {"a": 1}), Event(None, "message", [2])]  # type: ignore[arg-type]


@contextmanager
def application(home: Path) -> Iterator[tuple[str, State]]:
    """The real application behind a real server; its address and its state."""
    settings = Settings(home=home)
    settings.home_path.mkdir()
    migration.upgrade(settings.resolved_database_url)
    with listening.application(settings) as found:
        yield found


@pytest.mark.server
def test_client_and_application_speak_the_same(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        archive.writestr("cat/1.png", b"not looked at before a worker comes")
    with application(tmp_path / "home") as (url, _), Client(url) as graft:
        assert graft.missing() == ["worker"]
        assert graft.upload_dataset(tmp_path / "data.zip", "pets", seed=7)["seed"] == 7
        with pytest.raises(ApiError) as caught:
            graft.start_transfer("ds_none", "pets", idempotency_key="k")
        assert (caught.value.status, caught.value.code) == (404, "not_found")
        with pytest.raises(ApiError, match="not_found"):
            graft.predict("none", [b"no image"])


@pytest.mark.server
def test_a_model_is_called_in_every_way(tmp_path: Path) -> None:
    pictures = [factories.png((40 * number, 90, 200), seed=number) for number in range(5)]
    with application(tmp_path / "home") as (url, state), Client(url) as graft:
        with state.database.write() as session:
            of = factories.model(session, "tiny", 0)
            for number in (1, 2):
                factories.published(session, state.storage, tmp_path / "made", of, number)
        whole = graft.predict("tiny", pictures, version=1)["predictions"]
        lines = list(graft.predict_lines("tiny", iter([*pictures, b"text"]), version=1))
        assert [line["label"] for line in lines[:5]] == [item["label"] for item in whole]
        assert lines[5]["problem"]["code"] == "image_unreadable"
        many = graft.predict_lines("tiny", (pictures[number % 5] for number in range(500)))
        assert [line["index"] for line in many] == list(range(500))
        with pytest.raises(ApiError, match="not_found"):
            list(graft.predict_lines("none", pictures))
        features = graft.embed("tiny", pictures)
        assert (len(features["features"]), features["dim"]) == (5, 6)
        assert graft.point_alias("tiny", "production", 1)["version"] == 1
        assert graft.point_alias("tiny", "production", 2, canary=1, share=0.1)["canary"] == 1
        ended = graft.roll_back("tiny")
        assert (ended["version"], ended["canary"]) == (2, None)
        assert graft.roll_back("tiny")["version"] == 1
        assert graft.set_log("tiny", 1.0, keep_days=2)["keep_days"] == 2
        graft.predict("tiny", pictures)
        seen = graft.drift("tiny", version=1, window="start")
        assert (seen["verdict"], seen["num_images"]) == ("no_reference", 5 + 5 + 5)
        state.observation.logbook.flush()
        (day,) = graft.log("tiny")["days"]
        assert [row["index"] for row in graft.logged("tiny", day)] == list(range(5))
        graft.delete_log("tiny")
        with pytest.raises(ApiError, match="not_found"):
            graft.log("tiny")


@pytest.mark.server
def test_a_version_goes_from_one_service_to_another(tmp_path: Path) -> None:
    picture = factories.png()
    bundle = tmp_path / "tiny.zip"
    with application(tmp_path / "home") as (url, state), Client(url) as graft:
        with state.database.write() as session:
            of = factories.model(session, "tiny", 0)
            bundle_factories.publish(session, state.storage, tmp_path / "made", of, 1)
        graft.download_bundle("tiny", 1, bundle)
        wanted = graft.predict("tiny", [picture])["predictions"]
        with pytest.raises(ApiError, match="not_found"):
            graft.download_bundle("none", 1, tmp_path / "none.zip")
    assert {path.name for path in tmp_path.glob("*.zip*")} == {"tiny.zip"}
    with application(tmp_path / "other") as (url, _), Client(url) as graft:
        made = graft.import_bundle("copy", bundle, idempotency_key="once")
        assert graft.import_bundle("copy", bundle, idempotency_key="once") == made
        found = graft.predict("copy", [picture])["predictions"]
        assert [item["label"] for item in found[0]["scores"]] == [item["label"] for item in wanted[0]["scores"]]
        assert found[0]["score"] == pytest.approx(wanted[0]["score"], abs=1e-4)
        (tmp_path / "none.zip").write_bytes(b"none")
        with pytest.raises(ApiError, match="not_an_archive"):
            graft.import_bundle("copy", tmp_path / "none.zip")
