"""Where requests come in: the address, its ports, and the processes that answer there.

Their manager listens, on one socket for each process and all on one port: the kernel deals connections out evenly
(processes that share one socket take whatever they can get: 0.6 of the answers on two cores), and none is refused while
a process is started again.
"""

import errno
import importlib.util
import os
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from app import abandoned, in_use, log_lines, process, tracing
from app.process import Child
from app.settings import Settings

# What the manager tells its processes: their socket, and the folder of what they have counted.
SOCKET, BOARD = "GRAFT_SOCKET", "GRAFT_BOARD"
BACKLOG = 2048
START_FAILED = 3


def answer(settings: Settings, roles: tuple[str, ...]) -> int:
    """Answers requests in this process until it is told to end.

    Returns:
        the exit status.
    """
    from app.api import connections
    from app.main import create_app

    process.end_with_parent()
    log_lines.setup(settings.log_level, settings.log_format)
    given, board = os.environ.get(SOCKET), os.environ.get(BOARD)
    app = create_app(settings, roles, Path(board) if board else None)
    server = connections.server(app, settings.host, settings.port)
    # Raised once all has ended, for whoever runs it: here nobody is to be told of a Ctrl-C.
    with suppress(KeyboardInterrupt):
        server.run([socket.socket(fileno=int(given))] if given else None)
    return 0 if server.started else START_FAILED


def manage(settings: Settings, command: str, others: Mapping[str, Child], grace_seconds: float = 0.0) -> int:
    """Runs a command that answers requests in as many processes as are set, on one socket, and others beside them.

    Args:
        settings: of all of them.
        command: of `graft`.
        others: by name.
        grace_seconds: see `process.supervise`.

    Returns:
        the exit status.
    """
    greeting = f"Graft listens on {addresses(settings)} (docs at /docs); Ctrl-C stops it"
    with _sockets(settings) as sockets, _board(settings, len(sockets)) as shared:
        children = {
            f"api {number}": Child(
                [sys.executable, "-m", "app.cli", command], {SOCKET: str(one.fileno()), **shared}, [one.fileno()]
            )
            for number, one in enumerate(sockets, 1)
        }
        return process.supervise({**children, **others}, greeting, grace_seconds)


def addresses(settings: Settings) -> str:
    """What clients are told."""
    grpc = f" and grpc://{settings.host}:{settings.grpc_port}" if settings.grpc_port else ""
    return f"http://{settings.host}:{settings.port}{grpc}"


def may_listen(settings: Settings, roles: Sequence[str]) -> bool:
    """Whether the address is one to listen on and its ports are free; says what is wrong with it."""
    from app.api.guard import LOCAL

    if settings.host not in LOCAL and not settings.require_keys:
        print(
            f"graft: expected a loopback address; found GRAFT_HOST={settings.host}. Without API keys "
            "anybody who reaches the port could read and write everything, so Graft does not listen there; "
            "make a key with `graft keys create` and set GRAFT_REQUIRE_KEYS=true, or use 127.0.0.1.",
            file=sys.stderr,
        )
        return False
    missing = tracing.missing(settings)
    if missing is not None:
        print(f"graft: {missing}", file=sys.stderr)
        return False
    if SOCKET in os.environ:
        return True
    free = _is_free(settings.host, "GRAFT_PORT", settings.port)
    if not settings.grpc_port or "serve" not in roles:
        return free
    if importlib.util.find_spec("grpc") is None:
        print(
            f"graft: expected the package grpcio for GRAFT_GRPC_PORT={settings.grpc_port}; found none; install it, or "
            "leave the setting out",
            file=sys.stderr,
        )
        return False
    return free and _is_free(settings.host, "GRAFT_GRPC_PORT", settings.grpc_port)


@contextmanager
def _board(settings: Settings, num_processes: int) -> Iterator[dict[str, str]]:
    """The folder that several processes share, as a variable for them; none for a single one."""
    if num_processes == 1:
        yield {}
        return
    settings.scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=abandoned.BOARD, dir=settings.scratch) as folder:
        in_use.mark(Path(folder))
        yield {BOARD: folder}


@contextmanager
def _sockets(settings: Settings) -> Iterator[list[socket.socket]]:
    """One for each process."""
    number = settings.serve_processes
    family = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0][0]
    with ExitStack() as opened:
        found: list[socket.socket] = []
        for _ in range(number):
            # Where the system is asked for a port, it is asked once.
            port = found[0].getsockname()[1] if found else settings.port
            one = socket.create_server((settings.host, port), family=family, backlog=BACKLOG, reuse_port=number > 1)
            found.append(opened.enter_context(one))
        yield found


def _is_free(host: str, name: str, port: int) -> bool:
    try:
        for family, kind, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            with socket.socket(family, kind) as probe:
                # As the server itself does: connections of one that has just ended do not count.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
    except OSError as error:
        found = f"{port} in use" if error.errno == errno.EADDRINUSE else str(error)
        print(f"graft: expected a free port; found {found}; set {name} to another one", file=sys.stderr)
        return False
    return True
