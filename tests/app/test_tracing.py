"""Traces: what is passed on, and what costs nothing where nobody asks for them."""

import logging
import subprocess
import sys
import time
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from app import tracing
from app.main import create_app
from app.services import models
from app.settings import Settings
from app.tracing import Tracer
from tests import collectors
from tests.conftest import free_port
from tests.processes import environment

ROOT = Path(__file__).parents[2]
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(scope="module")
def collector():
    with collectors.collecting() as found:
        yield found


@pytest.mark.parametrize("given", ["", "nonsense", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "é" * 9])
def test_what_is_no_parent_begins_a_trace(collector, given):
    tracer = Tracer(collector.url, "test")
    span = tracer.begin("one", given)
    tracer.record("two", span.trace_parent, 1_000, 2_000, a__b=1, nothing=None)
    span.fail("because")
    span.end()
    tracer.close()
    two, one = collector.of(span.trace_parent.split("-")[1])
    assert (one.name, one.parent, one.failed, one.service) == ("one", "", True, "test")
    assert (two.parent, two.begin, two.end, two.attributes) == (one.id, 1_000, 2_000, {"a.b": 1})


def test_requests_are_named_after_their_routes(collector, light):
    settings = light.model_copy(update={"otlp_endpoint": collector.url})
    with TestClient(create_app(settings), base_url="http://127.0.0.1", headers={"traceparent": PARENT}) as client:
        client.get("/api/v1/jobs/job_1")
        client.get("/api/v1/nothing")
        client.get("/livez")
    spans = collector.of(PARENT.split("-")[1])
    assert [(span.name, span.attributes["http.response.status_code"]) for span in spans] == [
        ("GET /api/v1/jobs/{job_id}", 404), ("GET", 404)
    ]  # fmt: skip
    assert spans[0].attributes["graft.project"] == "default"


def test_a_request_that_fails_in_an_unforeseen_way_is_named_too(collector, light, monkeypatch):
    def broken(*_):
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(models, "page", broken)
    settings = light.model_copy(update={"otlp_endpoint": collector.url})
    parent = PARENT.replace("0af7", "0af8")
    with TestClient(create_app(settings), base_url="http://127.0.0.1", headers={"traceparent": parent}) as client:
        assert client.get("/api/v1/models").status_code == 500
    (span,) = collector.of(parent.split("-")[1])
    told = span.attributes
    assert (span.name, span.failed) == ("GET /api/v1/models", True)
    assert (told["http.route"], told["http.response.status_code"]) == ("/api/v1/models", 500)
    assert told["graft.project"] == "default"


def test_lines_of_the_log_name_their_trace():
    record = logging.LogRecord("a", logging.INFO, "a.py", 1, "m", (), None)
    with tracing.within(PARENT):
        tracing.mark(record)
        assert record.trace == " trace_id=0af7651916cd43dd8448eb211c80319c"
    tracing.mark(record)
    assert (record.trace, tracing.current()) == ("", None)


def test_a_collector_that_is_away_holds_up_no_end():
    tracer = Tracer(f"http://127.0.0.1:{free_port()}", "test")
    tracer.begin("one", None).end()
    began = time.monotonic()
    tracer.close()
    # Trying again goes on for several times as long.
    assert time.monotonic() - began < 4 * tracing.CLOSE_SECONDS


def test_nothing_that_sends_is_imported_without_an_endpoint():
    """The web framework imports the interface of OpenTelemetry by itself."""
    sends = "opentelemetry.sdk", "opentelemetry.exporter", "requests"
    code = f"import sys, app.main, app.cli; print([name for name in sys.modules if name.startswith({sends!r})])"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"


def test_who_asks_for_traces_without_the_extra_is_told_so(tmp_path):
    code = (
        "import sys; sys.modules['opentelemetry.exporter'] = None; from app import cli; "
        "print([cli.main([command]) for command in ('api', 'worker')])"
    )
    settings = {"otlp_endpoint": "http://127.0.0.1:1", "port": free_port()}
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment(tmp_path, **settings), capture_output=True, text=True,
        check=True, timeout=120,
    )  # fmt: skip
    assert ended.stdout.strip() == "[2, 2]"
    assert ended.stderr.count("install the extra `otel`") == 2
    with pytest.raises(ValueError, match="otlp_endpoint"):
        Settings(otlp_endpoint="collector:4318")
