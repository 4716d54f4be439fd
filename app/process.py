"""Processes of one machine: `graft up` keeps its children alive, stops them cleanly, takes them along when it dies."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

PARENT_PIPE = "GRAFT_PARENT_PIPE"
STOP_SECONDS = 8.0
RESTART_SECONDS = 1.0
SHORT_SECONDS = 2.0
MAX_SHORT = 3
TICK_SECONDS = 0.2


def gpu_name(device: str) -> str | None:
    """Name of the first GPU that this process may use, asked without torch; None where none is there or wanted."""
    tool = shutil.which("nvidia-smi")
    if device == "cpu" or tool is None or os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        return None
    command = [tool, "--query-gpu=name", "--format=csv,noheader"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    names = answer.stdout.strip().splitlines()
    return names[0] if answer.returncode == 0 and names else None


def give_way(by: int) -> None:
    """Lets other processes go first, for good.

    Args:
        by: as `nice` counts: 0 leaves all as it is, 19 takes only what nobody else wants.
    """
    os.nice(by)
    # Where the kernel weighs sessions, nice says nothing outside of one's own: then the session itself gives way.
    # Elsewhere there is no such file, or nobody may write to it.
    with suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(by))


def end_with_parent() -> None:
    """Sends this process SIGTERM when the manager that started it is gone, however it ended: its pipe closes then."""
    if os.environ.get(PARENT_PIPE):
        threading.Thread(target=_watch_parent, daemon=True, name="parent").start()


@dataclass(frozen=True)
class Child:
    """A command to be kept running.

    Args:
        command: and its arguments.
        environment: variables that it has besides this process's own.
        handed: file descriptors that it is given.
    """

    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    handed: Sequence[int] = ()


def supervise(commands: Mapping[str, Child], greeting: str, grace_seconds: float = 0.0) -> int:
    """Runs the commands until SIGINT or SIGTERM; restarts each that ends by itself.

    Args:
        commands: by name.
        greeting: printed once they are started.
        grace_seconds: time they need to end, on top of STOP_SECONDS.

    Returns:
        the exit status: 1 when a command ended right after its start several times in a row.
    """
    stopping = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        stopping.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    children = {name: _start(command) for name, command in commands.items()}
    started, short = dict.fromkeys(commands, time.monotonic()), dict.fromkeys(commands, 0)
    status = 0
    print(greeting, flush=True)
    while not stopping.wait(TICK_SECONDS):
        for name, child in children.items():
            if child.poll() is not None:
                short[name] = short[name] + 1 if time.monotonic() - started[name] < SHORT_SECONDS else 0
                if short[name] == MAX_SHORT:
                    print(
                        f"graft: expected {name} to run; found it ended {MAX_SHORT} times in a row right after its "
                        f"start, the last time with status {child.returncode}; its own message above says why",
                        file=sys.stderr,
                        flush=True,
                    )
                    status = 1
                    stopping.set()
                    break
                print(
                    f"graft: {name} ended with status {child.returncode}; starting it again",
                    file=sys.stderr,
                    flush=True,
                )
                if stopping.wait(RESTART_SECONDS):
                    break
                children[name], started[name] = _start(commands[name]), time.monotonic()
    _stop_all(children, STOP_SECONDS + grace_seconds)
    return status


def _start(child: Child) -> subprocess.Popen[bytes]:
    # A session of its own: Ctrl-C reaches the manager alone, which stops its children in order.
    return subprocess.Popen(
        child.command,
        stdin=subprocess.PIPE,
        env={**os.environ, **child.environment, PARENT_PIPE: "1"},
        pass_fds=child.handed,
        start_new_session=True,
    )


def _stop_all(children: Mapping[str, subprocess.Popen[bytes]], seconds: float) -> None:
    for child in children.values():
        child.terminate()
    deadline = time.monotonic() + seconds
    for child in children.values():
        try:
            child.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _watch_parent() -> None:
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
