"""One running Graft: an API and workers as processes of their own, which are started again when they die."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil

from app import failpoints
from app.client import ApiError, Client
from app.db import migration
from app.db.session import Database
from app.errors import Unavailable
from app.settings import Settings
from app.storage import Storage, open_storage
from benchmarks.chaos import orphans
from benchmarks.chaos.clock import Patience, Stopped, wait_until
from benchmarks.chaos.servers import KINDS, Servers
from tests import processes
from tests.conftest import free_port
from tests.receivers import LOOPBACK, Receiver, receiving

ROOT = Path(__file__).parents[2]
LEASE_SECONDS = 1.0
# A worker that others keep from running for a second has lost its lease as well, which is nobody's fault here.
MAX_ATTEMPTS = 100
READY_SECONDS = 300.0

T = TypeVar("T")


class Stack:
    """The processes of one service, and what a client sees of it.

    Args:
        kind: local or team.
        folder: of everything that it writes.
        servers: what it stands on.
        receiver: of its webhooks.
        strangers: processes that this one had started before.
        settings: of its processes, besides the usual ones.
    """

    def __init__(
        self,
        kind: str,
        folder: Path,
        servers: Servers,
        receiver: Receiver,
        strangers: Collection[int] = (),
        **settings: object,
    ) -> None:
        self.kind, self.folder, self.home = kind, folder, folder / "home"
        self.servers, self.receiver, self._strangers = servers, receiver, strangers
        self.home.mkdir()
        self.armed = folder / "failpoints"
        self.armed.mkdir()
        self.log = folder / "service.log"
        # Not below the folder, whose path may be too long for a socket's.
        self.temporary = Path(tempfile.mkdtemp(prefix="graft-"))
        # Ids of jobs that somebody waits for: others are there by mistake.
        self.asked: set[str] = set()
        self._port = free_port()
        self.prepared = Path(str(settings.get("prepared", folder.parent / "prepared")))
        usual: dict[str, object] = {
            "port": self._port, "lease_seconds": LEASE_SECONDS, "max_attempts": MAX_ATTEMPTS, "standby": "true",
            "prepared": self.prepared, "webhook_allowed": f'["{LOOPBACK}"]', "webhook_timeout_seconds": 2,
        }  # fmt: skip
        self._environment = {
            **processes.environment(self.home, **{**usual, **servers.settings, **settings}),
            **servers.variables,
            failpoints.VARIABLE: str(self.armed),
            "TMPDIR": str(self.temporary),
        }
        self._commands = {"api": "both", "worker": "worker"}
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._held: set[str] = set()
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        self.restarts = 0
        own = {name: value for name, value in self._environment.items() if name.startswith("GRAFT_")}
        self.settings = Settings(**{name.removeprefix("GRAFT_").lower(): value for name, value in own.items()
                                    if name in {"GRAFT_HOME", "GRAFT_DATABASE_URL", "GRAFT_STORAGE_URL"}})  # fmt: skip
        self.client = Client(f"http://127.0.0.1:{self._port}", timeout_seconds=60)

    @property
    def database(self) -> Database:
        return self._database

    @property
    def storage(self) -> Storage:
        return self._storage

    def start(self) -> None:
        """Migrates, starts, and waits until it is ready; from then on what dies is started again."""
        self.open()
        for name in self._commands:
            self._start(name)
        threading.Thread(target=self._tend, daemon=True, name="tend").start()
        self.wait_ready()

    def open(self) -> None:
        """Migrates, and opens what the harness looks into."""
        migration.upgrade(self.settings.resolved_database_url)
        self._database = Database(self.settings.resolved_database_url)
        self._storage = open_storage(self.settings.resolved_storage_url, self.folder / "cache")

    def wait_ready(self) -> None:
        def ready() -> bool:
            try:
                return not self.client.missing()
            except httpx.HTTPError:
                return False

        wait_until(ready, "a service that is ready", READY_SECONDS)

    def add_worker(self, name: str) -> None:
        """One more worker of the same home."""
        with self._lock:
            self._commands[name] = "worker"
            self._start(name)

    def process(self, name: str) -> psutil.Process:
        return psutil.Process(self._children[name].pid)

    def signal(self, name: str, number: int) -> None:
        self._children[name].send_signal(number)

    def hold(self, *names: str) -> None:
        """What dies of these is not started again for now."""
        with self._lock:
            self._held |= set(names)

    def let_go(self, *names: str) -> None:
        with self._lock:
            self._held -= set(names)

    def kill(self, *names: str) -> None:
        """Kill -9."""
        for name in names:
            self._children[name].kill()

    def command(self, *arguments: str) -> int:
        """The exit status of `graft …`, beside all that runs."""
        with self.log.open("ab") as out:
            return subprocess.call(
                [sys.executable, "-m", "app.cli", *arguments], cwd=ROOT, env=self._environment, stdout=out,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def kill_all(self) -> None:
        """A power cut: every process of the service at once, runners included."""
        with self._lock:
            everything = processes.members(self.home)
            for process in everything:
                with_no_fuss(process.kill)
            processes.wait_for_end(everything)

    def runners(self) -> list[psutil.Process]:
        """Processes that compute a job."""
        return processes.named(self.home, "worker.runner")

    def orphans(self) -> list[psutil.Process]:
        """Processes whose parent has gone, with or without a home."""
        return orphans.found({*self._strangers, *(child.pid for child in self._children.values())})

    def arm(self, point: str, what: str = "kill") -> None:
        part = self.armed / f".{point}"
        part.write_text(what)
        part.replace(self.armed / point)

    def reached(self, point: str) -> bool:
        """Whether an armed place was reached; the record of it is taken away."""
        place = self.armed / f"{point}{failpoints.REACHED}"
        found = place.exists()
        place.unlink(missing_ok=True)
        return found

    def disarm(self) -> None:
        """What was armed and not reached is not."""
        for place in self.armed.iterdir():
            place.unlink()

    def persist(self, call: Callable[[], T], seconds: float = 120.0) -> T:
        """A call as a client makes it that does not give up while the service, or the storage behind it, is away."""
        patience = Patience(seconds)
        while True:
            try:
                return call()
            except (httpx.TransportError, ApiError, Unavailable) as error:
                # Not 500: that is no way to say that something is away.
                busy = not isinstance(error, ApiError) or error.status > 500 or error.status == 423
                if not busy or not patience.wait():
                    raise

    def post(self, path: str, key: str, **arguments: Any) -> Any:
        """A POST that may be repeated: it has an idempotency key."""
        headers = {"Idempotency-Key": key}
        return self.persist(lambda: self.client.call("POST", path, headers=headers, **arguments))

    def delete(self, call: Callable[[], None]) -> None:
        """A deletion as such a client makes it: where an answer was lost, what is gone may be gone by that call."""
        lost = False

        def attempt() -> None:
            nonlocal lost
            try:
                call()
            except httpx.TransportError:
                lost = True
                raise
            except ApiError as error:
                if not lost or error.status != 404:
                    raise

        self.persist(attempt)

    def stop(self) -> None:
        self._stopping.set()
        with self._lock:
            for child in self._children.values():
                if child.poll() is None:
                    child.send_signal(signal.SIGCONT)
                    child.terminate()
            for child in self._children.values():
                try:
                    child.wait(20)
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait()
            left = [*processes.members(self.home), *self.orphans()]
            for process in left:
                with_no_fuss(process.kill)
            processes.wait_for_end(left)
        self.client.close()
        self._database.dispose()
        shutil.rmtree(self.temporary)

    def _start(self, name: str) -> None:
        command = [sys.executable, "-m", "app.cli", self._commands[name]]
        with self.log.open("ab") as out:
            self._children[name] = subprocess.Popen(
                command, cwd=ROOT, env=self._environment, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
            )

    def _tend(self) -> None:
        while not self._stopping.wait(0.1):
            with self._lock:
                for name, child in self._children.items():
                    if child.poll() is not None and name not in self._held and not self._stopping.is_set():
                        self.restarts += 1
                        self._start(name)


def with_no_fuss(action: Callable[[], None]) -> None:
    """For processes that end by themselves meanwhile."""
    try:
        action()
    except psutil.NoSuchProcess:
        return


@contextmanager
def running(kind: str, folder: Path, **settings: object) -> Iterator[Stack]:
    """A stack that is ready; everything of it is gone afterwards."""
    folder = folder / f"{kind}-{time.monotonic_ns()}"
    folder.mkdir(parents=True)
    with KINDS[kind]() as servers, receiving() as receiver, orphans.adopting() as strangers:
        stack = Stack(kind, folder, servers, receiver, strangers, **settings)
        try:
            stack.start()
            yield stack
        except (Stopped, GeneratorExit):
            raise
        except BaseException:
            os.sys.stderr.write(stack.log.read_text(errors="replace")[-8000:])
            raise
        finally:
            stack.stop()
    shutil.rmtree(folder)
