"""Spans of one attempt: the claim, the stages that its runner tells of, and how it is concluded."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from app.tracing import Span, Tracer
from worker.attempt.document import JobDocument


class AttemptTrace:
    """Does nothing where nothing is traced.

    Stages are timed in the runner and made into spans here: it ends as soon as it has said its last word, and must not
    wait for a collector before.

    Args:
        tracer: of the worker; None for none.
        document: the job; its `trace_parent` is that of the request that asked for it.
        claim_ns: nanoseconds since 1970 when the claim began.
    """

    def __init__(self, tracer: Tracer | None, document: JobDocument, claim_ns: int) -> None:
        self._tracer, self._span = tracer, _begin(tracer, document, claim_ns)
        self.trace_parent = self._span.trace_parent if self._span else document.trace_parent
        if tracer is not None:
            self._record("claim", claim_ns, time.time_ns())

    def stages(self, batch: Sequence[dict[str, Any]], pid: int) -> None:
        """Those among the runner's messages that tell of a stage that is over."""
        for message in batch:
            if "stage" in message:
                name, begin_ns, end_ns = message["stage"]
                self._record(name, begin_ns, end_ns, process__pid=pid)

    @contextmanager
    def concluding(self) -> Iterator[None]:
        """While the outcome is written."""
        began = time.time_ns()
        try:
            yield
        finally:
            self._record("conclude", began, time.time_ns())

    def end(self, outcome: str, *, failed: bool) -> None:
        """The attempt is over."""
        if self._span is not None:
            self._span.tell(graft__outcome=outcome)
            if failed:
                self._span.fail(outcome)
            self._span.end()

    def _record(self, name: str, begin_ns: int, end_ns: int, **attributes: Any) -> None:
        if self._tracer is not None and self.trace_parent is not None:
            self._tracer.record(name, self.trace_parent, begin_ns, end_ns, **attributes)


def _begin(tracer: Tracer | None, document: JobDocument, claim_ns: int) -> Span | None:
    if tracer is None:
        return None
    span = tracer.begin("attempt", document.trace_parent, claim_ns)
    span.tell(
        graft__job=document.id,
        graft__kind=document.kind,
        graft__attempt=document.attempt,
        graft__project=document.project,
    )
    return span
