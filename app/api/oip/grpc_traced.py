"""A span for every call over gRPC, where traces are sent somewhere; it goes on from the client's `traceparent`."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from app import tracing
from app.api.oip import proto
from app.tracing import Span, Tracer

# Asked all day by machines.
UNTRACED = frozenset({"ServerLive", "ServerReady", "ModelReady"})


class Call:
    """What is told of a call under way; without a tracer nothing is.

    Args:
        span: of the call.
    """

    def __init__(self, span: Span | None) -> None:
        self._span = span

    def of(self, project: str) -> None:
        """Says whose call it is."""
        if self._span is not None:
            self._span.tell(graft__project=project)

    def ended(self, status: str) -> None:
        """Says with which status of gRPC's it was refused."""
        if self._span is not None:
            self._span.tell(rpc__response__status_code=status)
            if status in ("INTERNAL", "UNAVAILABLE", "DEADLINE_EXCEEDED"):
                self._span.fail(status)


@contextmanager
def traced(tracer: Tracer | None, method: str, context: Any) -> Iterator[Call]:
    """What is done meanwhile belongs to a span of its own."""
    if tracer is None or method in UNTRACED:
        yield Call(None)
        return
    given = (value for key, value in context.invocation_metadata() or () if key == "traceparent")
    span = tracer.begin(f"{proto.SERVICE}/{method}", next(given, ""), serves=True)
    span.tell(rpc__system__name="grpc", rpc__method=f"{proto.SERVICE}/{method}")
    try:
        with tracing.within(span.trace_parent):
            yield Call(span)
    except BaseException as error:
        # Such as a client that does not wait any more.
        span.fail(type(error).__name__)
        raise
    finally:
        span.end()
