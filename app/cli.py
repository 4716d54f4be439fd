"""`graft …`: everything that runs, and a thin client for those who do not like curl."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from app import cli_backup, cli_collect, cli_keys, cli_projects, cli_upload, starting
from app.errors import GraftError
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
        if name in WITH_ARGUMENTS:
            WITH_ARGUMENTS[name].add_arguments(command)
    given = parser.parse_args(arguments)
    try:
        settings = starting.settings()
        return int(given.run(settings, given) if given.command in WITH_ARGUMENTS else given.run(settings))
    except GraftError as error:
        print(f"graft: {error.detail}", file=sys.stderr)
        return 2


def up(settings: Settings) -> int:
    """API, prediction and worker on this machine."""
    from app import listen

    if not listen.may_listen(settings, ("api", "serve")):
        return 2
    starting.make_home(settings)
    with starting.only_manager(settings):
        return _manage(settings)


def _manage(settings: Settings) -> int:
    from app import listen
    from app.process import Child

    migrate(settings)
    worker = {"worker": Child([sys.executable, "-m", "app.cli", "worker"])}
    return listen.manage(settings, "both", worker, settings.stop_grace_seconds)


def both(settings: Settings) -> int:
    """API and prediction, without a worker."""
    return _listen(settings, "both", ("api", "serve"))


def api(settings: Settings) -> int:
    """The API without prediction."""
    return _listen(settings, "api", ("api",))


def serve(settings: Settings) -> int:
    """Prediction only."""
    return _listen(settings, "serve", ("serve",))


def worker(settings: Settings) -> int:
    """A worker; its hardware decides which queues it serves."""
    from app import tracing

    missing = tracing.missing(settings)
    if missing is None:
        _become_celery(settings)
    print(f"graft: {missing}", file=sys.stderr)
    return 2


def _become_celery(settings: Settings) -> NoReturn:
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
    starting.make_home(settings)
    starting.upgrade(settings)
    return 0


def _listen(settings: Settings, command: str, roles: tuple[str, ...]) -> int:
    """In this process, or as the manager of several."""
    from app import listen

    if not listen.may_listen(settings, roles):
        return 2
    if listen.SOCKET in os.environ:
        return listen.answer(settings, roles)
    if settings.serve_processes > 1:
        return listen.manage(settings, command, {})
    if "serve" in roles:
        print(f"Graft listens on {listen.addresses(settings)}", flush=True)
    return listen.answer(settings, roles)


# Those of administration work in the database itself, since a first key has to come from somewhere.
WITH_ARGUMENTS = {
    "keys": cli_keys,
    "projects": cli_projects,
    "collect": cli_collect,
    "backup": cli_backup,
    "restore": cli_backup,
    "upload": cli_upload,
}
COMMANDS: dict[str, tuple[Callable[..., int], str]] = {
    "up": (up, "run API, prediction and a worker on this machine"),
    "api": (api, "run the API"),
    "serve": (serve, "run prediction only"),
    "both": (both, "run API and prediction, without a worker"),
    "worker": (worker, "run a worker"),
    "migrate": (migrate, "bring the database to this version's tables"),
    "keys": (cli_keys.run, "make, list and revoke API keys"),
    "projects": (cli_projects.run, "list projects, and limit what they may have"),
    "collect": (cli_collect.run, "show, or remove, what lies in storage and nothing refers to"),
    "backup": (cli_backup.backup, "copy database and storage into a folder, while everything runs"),
    "restore": (cli_backup.restore, "fill an empty database and storage from such a folder"),
    "upload": (cli_upload.run, "send a large file to a running service, and go on when the connection breaks"),
}

if __name__ == "__main__":
    sys.exit(main())
