"""A small typed client for the HTTP interface. It stands alone: it imports nothing else of Graft, only httpx.

Usage::

    with Client("http://127.0.0.1:8000") as graft:
        dataset = graft.wait_dataset(graft.upload_dataset(Path("data.zip"), "pets")["id"])
        job = graft.wait_job(graft.start_transfer(dataset["id"], "pets")["id"], on_progress=print)
        answer = graft.predict("pets", [Path("cat.jpg")])
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlsplit

import httpx

Json = dict[str, Any]
DEFAULT_URL = "http://127.0.0.1:8000"
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
FINAL = frozenset({"succeeded", "failed", "cancelled"})
POLL_SECONDS = 0.3
MAX_LOST_CONNECTIONS = 20
AWAY = frozenset({502, 503, 504})


class ApiError(Exception):
    """What the service refused, with its problem document (RFC 9457).

    Args:
        status: HTTP status.
        problem: the document; `code` is stable, `detail` says what was expected, found, and what to do.
    """

    def __init__(self, status: int, problem: Json) -> None:
        super().__init__(f"{status} {problem['code']}: {problem['detail']}")
        self.status = status
        self.problem = problem

    @property
    def code(self) -> str:
        """The stable code; docs/errors.md has a section for each."""
        return str(self.problem["code"])


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is: `fraction` from 0 to 1, what it does, and when it may end."""

    state: str
    fraction: float
    stage: str
    eta_seconds: float | None


@dataclass(frozen=True, slots=True)
class Event:
    """One message of a job's stream. `id` is None for what is not in the log (the latest progress)."""

    id: int | None
    type: str
    data: Json


class Client:
    """One service, one pool of connections.

    Args:
        url: where the service listens.
        timeout_seconds: for one answer; uploads and streams may take longer as long as bytes flow.
    """

    def __init__(self, url: str = DEFAULT_URL, *, timeout_seconds: float = 120.0) -> None:
        # A proxy from the environment cannot reach this machine's loopback, and must not see what goes there.
        trust_env = (urlsplit(url).hostname or "") not in LOOPBACK
        self._http = httpx.Client(base_url=url.rstrip("/"), timeout=timeout_seconds, trust_env=trust_env)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def call(self, method: str, path: str, **arguments: Any) -> Json:
        """One call of `/api/v1`; everything else here is made of it.

        Raises:
            ApiError: the service refused.
        """
        return _document(self._http.request(method, f"/api/v1{path}", **arguments))

    def missing(self) -> list[str]:
        """What keeps the service from being ready; nothing when it is."""
        found: list[str] = self._http.get("/readyz").json()["missing"]
        return found

    def upload_dataset(self, archive: Path, name: str, **fields: str | int) -> Json:
        """Streams an archive as a new dataset; `fields` are the form's others: task, format, seed, base."""
        form = {"name": name, **{key: str(value) for key, value in fields.items()}}
        with archive.open("rb") as file:
            return self.call("POST", "/datasets", files={"file": (archive.name, file)}, data=form)

    def dataset(self, dataset_id: str) -> Json:
        """One dataset."""
        return self.call("GET", f"/datasets/{quote(dataset_id, safe='')}")

    def wait_dataset(self, dataset_id: str, on_progress: Callable[[Progress], None] | None = None) -> Json:
        """The dataset once its ingestion has ended: `ready`, or `invalid` with its failure."""
        found = self.dataset(dataset_id)
        if found["state"] == "ingesting":
            self.wait_job(found["job_id"], on_progress)
            found = self.dataset(dataset_id)
        return found

    def problems(self, dataset_id: str) -> Iterator[Json]:
        """Every finding in a dataset, page by page."""
        after = 0
        while True:
            path = f"/datasets/{quote(dataset_id, safe='')}/problems"
            page = self.call("GET", path, params={"after": after, "limit": 1000})
            yield from page["data"]
            if not page["has_more"]:
                return
            after = page["data"][-1]["seq"]

    def start_transfer(
        self,
        dataset_id: str | None,
        model: str,
        *,
        backbone: str = "auto",
        recipe: Json | None = None,
        seed: int = 0,
        idempotency_key: str | None = None,
        **fields: Any,
    ) -> Json:
        """Queues a transfer that publishes to `model`; `fields` are the body's others: report, depends_on, ...

        Only recipes that tell their classes (zero_shot) work without a dataset. A recipe names further datasets itself:
        `{"method": "auto", "source": other["id"]}`.
        """
        body = {
            "kind": "transfer",
            "dataset": dataset_id,
            "backbone": backbone,
            "recipe": recipe or {"method": "auto"},
            "model": model,
            "seed": seed,
            **fields,
        }
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        return self.call("POST", "/jobs", json=body, headers=headers)

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
                on_progress(Progress("running", **event.data))
        return self.job(job_id)

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
                except httpx.TransportError:
                    # Cut off in the middle: what came counts, and the job's state says whether there is more.
                    if not streamed:
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

    def report(self, job_id: str) -> Json:
        """A finished job's transfer report."""
        return self.call("GET", f"/jobs/{quote(job_id, safe='')}/report", headers={"Accept": "application/json"})

    def fit_alignment(self, method: str, source: str, backbone: str, **fields: Any) -> Json:
        """Queues the fit of an alignment; `fields` are the body's others: target, from_backbone, shrinkage, ..."""
        body = {"method": method, "source": source, "backbone": backbone, **fields}
        return self.call("POST", "/alignments", json=body)

    def wait_alignment(self, alignment_id: str, on_progress: Callable[[Progress], None] | None = None) -> Json:
        """The alignment once its fit has ended: `ready`, or `failed` with its failure."""
        path = f"/alignments/{quote(alignment_id, safe='')}"
        found = self.call("GET", path)
        if found["state"] == "fitting":
            self.wait_job(found["job_id"], on_progress)
            found = self.call("GET", path)
        return found

    def bind_domain(self, model: str, domain: str, alignment_id: str) -> Json:
        """Puts an alignment before the model's head for `predict(..., domain=...)`."""
        path = f"/models/{quote(model, safe='')}/domains/{quote(domain, safe='')}"
        return self.call("PUT", path, json={"alignment": alignment_id})

    def model(self, name: str) -> Json:
        """One model with its versions."""
        return self.call("GET", f"/models/{quote(name, safe='')}")

    def predict(self, model: str, images: Sequence[Path | bytes], **query: str | int | float) -> Json:
        """Predictions in the order of the images, in one request; `query`: version, alias, domain, top_k, threshold."""
        with ExitStack() as stack:
            files = [
                ("file", (str(index), image if isinstance(image, bytes) else stack.enter_context(image.open("rb"))))
                for index, image in enumerate(images)
            ]
            return self.call("POST", f"/models/{quote(model, safe='')}/predict", files=files, params=query)

    def add_class(
        self,
        model: str,
        label: str,
        images: Sequence[Path | bytes],
        *,
        idempotency_key: str | None = None,
        **query: str | int,
    ) -> Json:
        """Adds a class to a model from a few images, as a new version; `query`: version or alias to add it to."""
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        with ExitStack() as stack:
            files = [
                ("file", (str(index), image if isinstance(image, bytes) else stack.enter_context(image.open("rb"))))
                for index, image in enumerate(images)
            ]
            path = f"/models/{quote(model, safe='')}/classes"
            return self.call("POST", path, files=files, data={"label": label}, params=query, headers=headers)

    def _stream(self, job_id: str, after: int) -> Iterator[Event]:
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
        path = f"/api/v1/jobs/{quote(job_id, safe='')}/events"
        with self._http.stream("GET", path, headers=headers) as response:
            if response.is_error:
                response.read()
                _document(response)
            if response.headers.get("content-type", "").startswith("text/event-stream"):
                yield from parse_stream(response.iter_lines())

    def _page(self, job_id: str, after: int) -> Iterator[Event]:
        path, more = f"/jobs/{quote(job_id, safe='')}/events", True
        while more:
            page = self.call("GET", path, params={"after": after, "limit": 1000})
            for row in page["data"]:
                after = row["id"]
                yield Event(after, row["type"], row)
            more = page["has_more"]
        yield Event(None, "progress", self.job(job_id)["progress"])


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


def _document(response: httpx.Response) -> Json:
    if response.is_error:
        raise ApiError(response.status_code, _problem(response))
    document: Json = response.json() if response.content else {}
    return document


def _problem(response: httpx.Response) -> Json:
    """The problem document; made up from the status when something in between answered instead of the service."""
    if response.headers.get("content-type", "").startswith("application/problem+json"):
        document: Json = response.json()
        return document
    found = f"{response.reason_phrase!r} from something in between: {response.text[:200]}"
    detail = f"expected an answer of Graft; found {found}; check the address and the proxies on the way"
    return {"status": response.status_code, "code": "not_graft", "title": "Unexpected answer", "detail": detail}
