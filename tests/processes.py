"""Real processes of a service: starting them, finding them, and being sure that they are gone."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver
from pathlib import Path

import psutil

from tests.conftest import COMPUTE_THREADS, wait_until
from worker.supervision import runner_process

ROOT = Path(__file__).parents[1]


def environment(home: Path, **settings: object) -> dict[str, str]:
    """This process's environment with a service's settings, each without its GRAFT_ prefix.

    Nothing is imported ahead unless asked for: most tests start one runner or none.
    """
    defaults = {"offline": "true", "device": "cpu", "log_level": "INFO", "standby": "false"}
    values = {"home": home, "compute_threads": COMPUTE_THREADS, **defaults, **settings}
    return {**os.environ, **{f"GRAFT_{name.upper()}": str(value) for name, value in values.items()}}


@contextmanager
def running(
    arguments: list[str], variables: dict[str, str], log: Path, root: Path = ROOT
) -> Iterator[subprocess.Popen[bytes]]:
    """`graft ARGUMENTS`, of the code below `root`; at the end it and everything below it is gone, or the test fails."""
    command = [sys.executable, "-m", "app.cli", *arguments]
    with log.open("ab") as out:
        process = subprocess.Popen(
            command, cwd=root, env=variables, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield process
    finally:
        family = members(variables["GRAFT_HOME"])
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        finally:
            left = [member for member in family if alive(member)]
            for member in left:
                member.kill()
            process.wait()


@contextmanager
def runners_of_this_process() -> Iterator[None]:
    """Runners that are forked with the environment as it is now; the process that they come from ends afterwards."""
    runner_process.prepare(ahead=False, threads=COMPUTE_THREADS)
    try:
        yield
    finally:
        # As CPython's own tests do it; a worker's ends with the worker.
        forkserver._forkserver._stop()  # type: ignore[attr-defined]


def members(home: str | Path) -> list[psutil.Process]:
    """Processes of a service's home, but for this one."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get("GRAFT_HOME") == str(home) and alive(process):
                found.append(process)
        except psutil.Error:
            # It ended while it was looked at.
            continue
    return found


def named(home: str | Path, *words: str) -> list[psutil.Process]:
    """Those of the home's processes whose command line has all the words."""
    found = []
    for process in members(home):
        try:
            if all(any(word in part for part in process.cmdline()) for word in words):
                found.append(process)
        except psutil.Error:
            continue
    return found


def alive(process: psutil.Process) -> bool:
    """Whether it runs or sleeps; one that waits to be collected does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def runner(home: str | Path, job_id: str, but: int = 0) -> psutil.Process:
    """The process that computes a job, once it is there."""
    found: list[psutil.Process] = []

    def look() -> bool:
        found[:] = [process for process in named(home, "worker.runner", job_id) if process.pid != but]
        return bool(found)

    wait_until(look, f"a runner of {job_id}")
    return found[0]


def wait_for_end(processes: list[psutil.Process], seconds: float = 30.0) -> None:
    """Fails when one of them lives on."""
    wait_until(lambda: not any(map(alive, processes)), f"the end of {processes}", seconds)
