"""`graft …`: everything that runs, and a thin client for those who do not like curl."""

import argparse
import errno
import importlib.util
import os
import socket
import sys
from collections.abc import Sequence

from app.settings import Settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry of the `graft` command."""
    parser = argparse.ArgumentParser(
        prog="graft", description="Moves knowledge from pretrained models into your own task."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (function, summary) in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary)
        command.set_defaults(run=function)
    given = parser.parse_args(arguments)
    return int(given.run(Settings()))


def up(settings: Settings) -> int:
    """API, prediction and worker on this machine."""
    from app import process

    if not _may_listen(settings, ("api", "serve")):
        return 2
    migrate(settings)
    return process.supervise(
        {
            "api": [sys.executable, "-m", "app.cli", "both"],
            "worker": [sys.executable, "-m", "app.cli", "worker"],
        },
        f"Graft listens on http://{settings.host}:{settings.port} (docs at /docs){_grpc(settings)}; Ctrl-C stops it",
        settings.stop_grace_seconds,
    )


def both(settings: Settings) -> int:
    """API and prediction in one process."""
    return _listen(settings, ("api", "serve"))


def api(settings: Settings) -> int:
    """The API without prediction."""
    return _listen(settings, ("api",))


def serve(settings: Settings) -> int:
    """Prediction only."""
    return _listen(settings, ("serve",))


def worker(settings: Settings) -> int:
    """A worker; its hardware decides which queues it serves."""
    from app import process
    from app.queue import CPU, GPU

    queues = settings.worker_queues or ((CPU, GPU) if process.gpu_name(settings.device) else (CPU,))
    command = [
        sys.executable, "-m", "celery", "--quiet", "-A", "worker.main", "worker", "--pool", "threads",
        "--concurrency", str(settings.worker_slots), "-Q", ",".join(queues),
        "--loglevel", settings.log_level, "--without-gossip", "--without-mingle", "--without-heartbeat",
    ]  # fmt: skip
    os.environ["GRAFT_WORKER_QUEUES"] = str(list(queues)).replace("'", '"')
    os.execv(sys.executable, command)


def migrate(settings: Settings) -> int:
    """Brings the database to this version's tables."""
    from app.db import migration

    settings.home_path.mkdir(parents=True, exist_ok=True)
    migration.upgrade(settings.resolved_database_url)
    return 0


def _listen(settings: Settings, roles: tuple[str, ...]) -> int:
    import uvicorn

    from app import process
    from app.main import create_app

    if not _may_listen(settings, roles):
        return 2
    process.end_with_parent()
    if process.PARENT_PIPE not in os.environ and "serve" in roles:
        print(f"Graft listens on http://{settings.host}:{settings.port}{_grpc(settings)}", flush=True)
    uvicorn.run(
        create_app(settings, roles),
        host=settings.host,
        port=settings.port,
        log_level=settings.log_level.lower(),
        access_log=False,
        # No address of a caller is looked at, and no address of ours is handed out.
        proxy_headers=False,
        timeout_graceful_shutdown=3,
        timeout_keep_alive=30,
    )
    return 0


def _grpc(settings: Settings) -> str:
    return f" and grpc://{settings.host}:{settings.grpc_port}" if settings.grpc_port else ""


def _may_listen(settings: Settings, roles: tuple[str, ...]) -> bool:
    """Whether the address is one to listen on and its ports are free; says what is wrong with it."""
    from app.api.guard import LOCAL

    if settings.host not in LOCAL:
        print(
            f"graft: expected a loopback address; found GRAFT_HOST={settings.host}. Without API keys "
            "anybody who reaches the port could read and write everything, so Graft does not listen there; "
            "use 127.0.0.1 behind a proxy.",
            file=sys.stderr,
        )
        return False
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


COMMANDS = {
    "up": (up, "run API, prediction and a worker on this machine"),
    "api": (api, "run the API"),
    "serve": (serve, "run prediction only"),
    "both": (both, "run API and prediction in one process"),
    "worker": (worker, "run a worker"),
    "migrate": (migrate, "bring the database to this version's tables"),
}

if __name__ == "__main__":
    sys.exit(main())
