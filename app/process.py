"""Processes of one machine: `graft up` keeps its children alive, stops them cleanly, takes them along when it dies."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from types import FrameType

PARENT_PIPE = "GRAFT_PARENT_PIPE"
STOP_SECONDS = 12.0
RESTART_SECONDS = 1.0
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


def end_with_parent() -> None:
    """Sends this process SIGTERM when the manager that started it is gone, however it ended: its pipe closes then."""
    if os.environ.get(PARENT_PIPE):
        threading.Thread(target=_watch_parent, daemon=True, name="parent").start()


def supervise(commands: Mapping[str, Sequence[str]], greeting: str) -> int:
    """Runs the commands until SIGINT or SIGTERM; restarts each that ends by itself."""
    stopping = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        stopping.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    children = {name: _start(command) for name, command in commands.items()}
    print(greeting, flush=True)
    while not stopping.wait(TICK_SECONDS):
        for name, child in children.items():
            if child.poll() is not None:
                print(
                    f"graft: {name} ended with status {child.returncode}; starting it again",
                    file=sys.stderr,
                    flush=True,
                )
                if stopping.wait(RESTART_SECONDS):
                    break
                children[name] = _start(commands[name])
    _stop_all(children)
    return 0


def _start(command: Sequence[str]) -> subprocess.Popen[bytes]:
    # A session of its own: Ctrl-C reaches the manager alone, which stops its children in order.
    environment = {**os.environ, PARENT_PIPE: "1"}
    return subprocess.Popen(command, stdin=subprocess.PIPE, env=environment, start_new_session=True)


def _stop_all(children: Mapping[str, subprocess.Popen[bytes]]) -> None:
    for child in children.values():
        child.terminate()
    deadline = time.monotonic() + STOP_SECONDS
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
