"""Services as users run them, each in a home of its own."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen
from typing import Any

import httpx
import pytest

from app.client import Client
from tests import processes
from tests.conftest import free_port, wait_until
from tests.factories import files_below


@dataclass
class Service:
    """A running service, what it wrote, and a client of it."""

    home: Path
    url: str
    process: Popen[bytes]
    log: Path
    client: Client

    def request(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        """One call, whatever the answer."""
        return httpx.request(method, f"{self.url}{path}", timeout=60, trust_env=False, **arguments)

    def runners(self) -> list[Any]:
        """Processes that compute a job."""
        return processes.named(self.home, "worker.runner")

    def files(self) -> list[str]:
        """Uploads, working files, objects and messages that lie in the home; not sums, which change by the minute."""
        found = files_below(self.home / "scratch", self.home / "storage", self.home / "broker" / "messages")
        return [path for path in found if not path.startswith(f"{self.home}/storage/observed/")]


Start = Callable[..., Service]


@pytest.fixture
def up(home: Path) -> Iterator[Start]:
    """Starts `graft up` in the home and waits until it is ready; everything is gone afterwards."""
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(serve(home, ["up"], **settings))


@contextmanager
def serve(
    home: Path, arguments: list[str], *, missing: tuple[str, ...] = (), root: Path = processes.ROOT, **settings: object
) -> Iterator[Service]:
    """A service that listens, ready but for what is `missing`; of the code below `root`."""
    home.mkdir(exist_ok=True)
    port = free_port()
    log = home.parent / f"{home.name}.log"
    with ExitStack() as stack:
        variables = processes.environment(home, port=port, **settings)
        process = stack.enter_context(processes.running(arguments, variables, log, root))
        url = f"http://127.0.0.1:{port}"
        client = stack.enter_context(Client(url))
        service = Service(home, url, process, log, client)
        try:
            wait_until(lambda: _missing(service) == set(missing), "a service that is ready")
            yield service
        except BaseException:
            print(log.read_text()[-6000:])
            raise


def _missing(service: Service) -> set[str] | None:
    assert service.process.poll() is None, "the service ended by itself"
    try:
        return set(service.client.missing())
    except httpx.TransportError:
        return None
