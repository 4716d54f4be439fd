"""The client's connection: calls, and what is refused."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import httpx

Json = dict[str, Any]
DEFAULT_URL = "http://127.0.0.1:8000"
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


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


class Wire:
    """One service, one pool of connections.

    Args:
        url: where the service listens.
        key: an API key, for a service that asks for one; it is sent with every call, and shown nowhere.
        timeout_seconds: for one answer; uploads and streams may take longer as long as bytes flow.
    """

    def __init__(self, url: str = DEFAULT_URL, *, key: str | None = None, timeout_seconds: float = 120.0) -> None:
        # A proxy from the environment cannot reach this machine's loopback, and must not see what goes there.
        trust_env = (urlsplit(url).hostname or "") not in LOOPBACK
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(
            base_url=url.rstrip("/"), timeout=timeout_seconds, trust_env=trust_env, headers=headers
        )

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
        return document(self._http.request(method, f"/api/v1{path}", **arguments))

    def save(self, path: str, target: Path) -> None:
        """One GET of `/api/v1` whose answer goes into a file as it comes; whole, or not at all.

        Raises:
            ApiError: the service refused.
        """
        part = target.with_name(f"{target.name}.part")
        try:
            with self._http.stream("GET", f"/api/v1{path}") as response:
                if response.is_error:
                    response.read()
                    document(response)
                with part.open("wb") as file:
                    for chunk in response.iter_bytes():
                        file.write(chunk)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)

    def lines(self, method: str, path: str, **arguments: Any) -> Iterator[Json]:
        """One call of `/api/v1` whose answer comes line by line.

        Raises:
            ApiError: the service refused.
        """
        with self._http.stream(method, f"/api/v1{path}", **arguments) as response:
            if response.is_error:
                response.read()
                document(response)
            yield from map(json.loads, split(response.iter_bytes()))

    def download(self, path: str, target: Path) -> Path:
        """Writes what `/api/v1` answers to a file, in flat memory; there is the whole file or none.

        Raises:
            ApiError: the service refused.
        """
        part = target.with_name(f"{target.name}.part")
        with self._http.stream("GET", f"/api/v1{path}") as response:
            if response.is_error:
                response.read()
                document(response)
            try:
                with part.open("wb") as file:
                    file.writelines(response.iter_bytes())
                part.replace(target)
            finally:
                part.unlink(missing_ok=True)
        return target


def split(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """A body's lines without their ends, which are line feeds alone: JSON may hold other separators as they are."""
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
    if rest:
        yield rest


def document(response: httpx.Response) -> Json:
    """The answer's JSON.

    Raises:
        ApiError: the service refused.
    """
    if response.is_error:
        raise ApiError(response.status_code, _problem(response))
    found: Json = response.json() if response.content else {}
    return found


def _problem(response: httpx.Response) -> Json:
    """The problem document; made up from the status when something in between answered instead of the service."""
    if response.headers.get("content-type", "").startswith("application/problem+json"):
        found: Json = response.json()
        return found
    answered = f"{response.reason_phrase!r} from something in between: {response.text[:200]}"
    detail = f"expected an answer of Graft; found {answered}; check the address and the proxies on the way"
    return {"status": response.status_code, "code": "not_graft", "title": "Unexpected answer", "detail": detail}
