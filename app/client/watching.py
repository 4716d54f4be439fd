"""Jobs as they run: their events, by a stream or page by page, and their end."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import quote

import httpx

from app.client.wire import ApiError, Json, Wire, document, split

# A refusal of one more stream.
FULL = "too_many_streams"
FINAL = frozenset({"succeeded", "failed", "cancelled"})
POLL_SECONDS = 0.3
MAX_LOST_CONNECTIONS = 20
AWAY = frozenset({502, 503, 504})


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is: `fraction` from 0 to 1, what it does, and when it may end."""

    state: str
    fraction: float
    stage: str
    eta_seconds: float | None


@dataclass(frozen=True, slots=True)
class Event:
    """One message of a job's stream, whole in `data`. `id` is None for what is not in the log: the latest progress."""

    id: int | None
    type: str
    data: Json


class Watching(Wire):
    """Waits for what the service does."""

    def job(self, job_id: str) -> Json:
        """One job."""
        return self.call("GET", f"/jobs/{quote(job_id, safe='')}")

    def wait_job(
        self,
        job_id: str,
        on_progress: Callable[[Progress], None] | None = None,
        on_event: Callable[[Event], None] | None = None,
    ) -> Json:
        """The job once it has ended, whichever way; meanwhile tells what it does."""
        for event in self.events(job_id):
            if on_event is not None and event.id is not None:
                on_event(event)
            if on_progress is not None and event.type == "progress" and event.id is None:
                on_progress(Progress("running", **event.data["data"]))
        return self.job(job_id)

    def wait_report(self, job_id: str, on_progress: Callable[[Progress], None] | None = None) -> Json:
        """A transfer's report, once the transfer has ended, and the job that fills it in where one follows."""
        job = self.wait_job(job_id, on_progress)
        if job["follow_up"] is not None:
            self.wait_job(job["follow_up"], on_progress)
        return self.report(job_id)

    def report(self, job_id: str) -> Json:
        """A finished job's transfer report, as it is now."""
        return self.call("GET", f"/jobs/{quote(job_id, safe='')}/report", headers={"Accept": "application/json"})

    def events(self, job_id: str, after: int = 0) -> Iterator[Event]:
        """A job's log as it grows, and its progress, until the job has ended.

        The stream is taken up again after the last entry seen when the connection breaks. Where no stream comes
        through (a proxy that collects answers), the same is asked for page by page.

        Raises:
            ApiError: no such job.
            httpx.TransportError: the service stayed away for more than MAX_LOST_CONNECTIONS tries.
        """
        lost = 0
        while True:
            try:
                streamed = False
                try:
                    for event in self._stream(job_id, after):
                        after, streamed = event.id or after, True
                        yield event
                except (httpx.TransportError, ApiError) as error:
                    # Cut off in the middle: what came counts, and the job's state says whether there is more. Where
                    # the project has as many streams open as it may, pages tell the same.
                    if not streamed and getattr(error, "code", None) != FULL:
                        raise
                if not streamed:
                    for event in self._page(job_id, after):
                        after = event.id or after
                        yield event
                if self.job(job_id)["state"] in FINAL:
                    # What was written between the last look and the end.
                    for event in self._page(job_id, after):
                        after = event.id or after
                        if event.id is not None:
                            yield event
                    return
                lost = 0
            except (httpx.TransportError, ApiError) as error:
                # A service that is being started again, or a proxy in front of one that is.
                lost += 1
                if lost > MAX_LOST_CONNECTIONS or (isinstance(error, ApiError) and error.status not in AWAY):
                    raise
            time.sleep(POLL_SECONDS)

    def wait(self, place: str, made_id: str, on_progress: Callable[[Progress], None] | None) -> Json:
        """What a job makes, once that job has ended."""
        path = f"{place}/{quote(made_id, safe='')}"
        found = self.call("GET", path)
        if found["finished_at"] is None:
            self.wait_job(found["job_id"], on_progress)
            found = self.call("GET", path)
        return found

    def _stream(self, job_id: str, after: int) -> Iterator[Event]:
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
        path = f"/api/v1/jobs/{quote(job_id, safe='')}/events"
        with self._http.stream("GET", path, headers=headers) as response:
            if response.is_error:
                response.read()
                document(response)
            if response.headers.get("content-type", "").startswith("text/event-stream"):
                yield from parse_stream(map(bytes.decode, split(response.iter_bytes())))

    def _page(self, job_id: str, after: int) -> Iterator[Event]:
        path, more = f"/jobs/{quote(job_id, safe='')}/events", True
        while more:
            page = self.call("GET", path, params={"after": after, "limit": 1000})
            for row in page["data"]:
                after = row["id"]
                yield Event(after, row["type"], row)
            more = page["has_more"]
        yield Event(None, "progress", {"id": None, "type": "progress", "data": self.job(job_id)["progress"]})


def parse_stream(lines: Iterator[str]) -> Iterator[Event]:
    """Server-sent events (WHATWG HTML 9.2) with JSON data; a message cut off by a broken connection is dropped."""
    fields: dict[str, list[str]] = {}
    for line in lines:
        if not line:
            if "data" in fields:
                number = fields.get("id", [""])[-1]
                kind = fields.get("event", ["message"])[-1]
                yield Event(int(number) if number else None, kind, json.loads("\n".join(fields["data"])))
            fields = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(":")
            fields.setdefault(name, []).append(value.removeprefix(" "))
