"""Traces over OpenTelemetry, from a request to the stages of the job that it asked for.

Off unless GRAFT_OTLP_ENDPOINT is set, and nothing of OpenTelemetry is imported before: the extra `otel` has it. What is
passed on, in a job's row and to its runner, is the text of a W3C `traceparent`, which costs nothing where nobody
traces.
"""

import importlib.util
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from app.settings import Settings

EXPORT_SECONDS, CLOSE_SECONDS = 5.0, 2.0
TRACES_PATH = "/v1/traces"

log = logging.getLogger(__name__)

_TRACE_PARENT: ContextVar[str | None] = ContextVar("graft_trace_parent", default=None)


def current() -> str | None:
    """`traceparent` of what is being done in this task or thread; None where it belongs to no trace."""
    return _TRACE_PARENT.get()


def trace_id() -> str | None:
    """Of the trace that it belongs to."""
    trace_parent = current()
    return trace_parent.split("-")[1] if trace_parent else None


@contextmanager
def within(trace_parent: str | None) -> Iterator[None]:
    """What is done meanwhile belongs to the trace; lines of the log say so."""
    before = _TRACE_PARENT.set(trace_parent)
    try:
        yield
    finally:
        _TRACE_PARENT.reset(before)


def mark(record: logging.LogRecord) -> bool:
    """A filter of the log's handlers: gives `trace` to each record, empty where there is none."""
    known = trace_id()
    record.trace = f" trace_id={known}" if known else ""
    return True


class Span:
    """Something that takes time, within a trace."""

    def __init__(self, span: Any) -> None:
        self._span = span

    @property
    def trace_parent(self) -> str:
        """What those below it are given."""
        context = self._span.get_span_context()
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"

    def name(self, name: str) -> None:
        """Calls it something else, once that is known."""
        self._span.update_name(name)

    def tell(self, **attributes: Any) -> None:
        """Adds what is known of it; names have `__` where OpenTelemetry has a dot."""
        self._span.set_attributes(
            {name.replace("__", "."): value for name, value in attributes.items() if value is not None}
        )

    def fail(self, why: str) -> None:
        """Says that it has ended badly."""
        from opentelemetry.trace import Status, StatusCode

        self._span.set_status(Status(StatusCode.ERROR, why))

    def end(self) -> None:
        """Now."""
        self._span.end()


class Tracer:
    """Makes spans of one process and sends them; a collector that is away costs nothing but the spans.

    Args:
        endpoint: base URL of a collector that takes OTLP over HTTP.
        service: what the process is called there, unless OTEL_SERVICE_NAME says otherwise.
    """

    def __init__(self, endpoint: str, service: str) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        timeout = None if "OTEL_EXPORTER_OTLP_TIMEOUT" in os.environ else EXPORT_SECONDS
        exporter = OTLPSpanExporter(endpoint.rstrip("/") + TRACES_PATH, timeout=timeout)
        named = {} if "OTEL_SERVICE_NAME" in os.environ else {"service.name": service}
        self._provider = TracerProvider(resource=Resource.create(named), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("graft")
        self._propagator = TraceContextTextMapPropagator()

    def begin(self, name: str, parent: str | None, begin_ns: int | None = None, *, serves: bool = False) -> Span:
        """A span that its caller ends.

        Args:
            name: of it.
            parent: `traceparent` that it goes on from; one that is none, or that makes no sense, begins a trace.
            begin_ns: nanoseconds since 1970; None for now.
            serves: whether somebody outside waits for it.
        """
        from opentelemetry.trace import SpanKind

        context = self._propagator.extract({"traceparent": parent} if parent else {})
        kind = SpanKind.SERVER if serves else SpanKind.INTERNAL
        return Span(self._tracer.start_span(name, context, kind, start_time=begin_ns))

    def record(self, name: str, parent: str, begin_ns: int, end_ns: int, **attributes: Any) -> None:
        """A span that is over."""
        span = self.begin(name, parent, begin_ns)
        span.tell(**attributes)
        span._span.end(end_ns)

    def close(self) -> None:
        """Sends what is left, for as long as an end may take: a collector that is away would be tried many times."""
        sending = threading.Thread(target=self._provider.shutdown, daemon=True, name="last-spans")
        sending.start()
        sending.join(CLOSE_SECONDS)


def missing(settings: Settings) -> str | None:
    """What is wrong where traces are asked for, and what sends them is not installed; None where all is well."""
    if not settings.otlp_endpoint:
        return None
    try:
        if importlib.util.find_spec("opentelemetry.exporter.otlp.proto.http") is not None:
            return None
    except ModuleNotFoundError:
        # One of the packages around it.
        log.debug("no part of OpenTelemetry's exporter is installed")
    return (
        f"expected OpenTelemetry for GRAFT_OTLP_ENDPOINT={settings.otlp_endpoint}; found no package that sends traces; "
        "install the extra `otel`, or leave the setting out"
    )


def open_tracer(settings: Settings, service: str) -> Tracer | None:
    """The process's tracer; None where no endpoint is set."""
    return Tracer(settings.otlp_endpoint, service) if settings.otlp_endpoint else None
