"""Strangers' files are opened in a process of their own: no environment, bounded memory, processor time and files.

Nothing in such a file is executed; the process is for what a hostile or broken file can still cost: memory, time, a
crash. The child calls `confinement.confine` after its imports and prints one JSON line; its parent calls `ask`.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[1]
# No answer is longer; more means that the child was taken over by its input.
_MAX_ANSWER_BYTES = 65536
# Arrow reads it when it is loaded. Its own allocator would reserve a gigabyte, which counts where address space is
# bounded, and keep ten megabytes or twenty of what it had.
ARROW = {"ARROW_DEFAULT_MEMORY_POOL": "system"}
# Nothing of ours: no credentials to find. One thread of linear algebra, whose stacks would count as memory. The places
# of the modules are said, since the child does not look for them again.
ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(os.path.isdir, sys.path)), **ARROW}


class Ended(Exception):
    """The child gave no answer; the words say how it ended."""


def python(module: str) -> tuple[str, ...]:
    """The command that starts such a child, with `ENVIRONMENT`; its arguments follow.

    Without `site`, which takes 7 of 47 ms to find what is installed: an upload waits for three of them.
    """
    return (sys.executable, "-S", "-m", module)


def ask(module: str, arguments: Sequence[str], memory_bytes: int, seconds: int) -> dict[str, Any]:
    """Runs `python -m MODULE ARGUMENTS... MEMORY_BYTES SECONDS` and reads its answer.

    Args:
        module: calls `confine` with the last two arguments and prints one JSON object.
        arguments: before those two.
        memory_bytes: beside the child's own imports.
        seconds: of processor and of wall time.

    Raises:
        Ended: it took longer, died, or said something that is no answer.
    """
    command = [*python(module), *arguments, str(memory_bytes), str(seconds)]
    began = time.monotonic()
    with subprocess.Popen(
        command,
        cwd=_ROOT,
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as child:
        alarm = threading.Timer(seconds, child.kill)
        alarm.start()
        try:
            assert child.stdout is not None
            said = child.stdout.read(_MAX_ANSWER_BYTES + 1)
            status = child.wait() if len(said) <= _MAX_ANSWER_BYTES else 0
        finally:
            alarm.cancel()
            child.kill()
    if time.monotonic() - began >= seconds:
        raise Ended(f"it took longer than {seconds} s")
    if status != 0:
        raise Ended(f"its reader, which may take {memory_bytes / 1e6:.0f} MB, ended with status {status}")
    try:
        answer = json.loads(said)
    except ValueError as error:
        raise Ended("its reader said something that is no answer") from error
    if not isinstance(answer, dict):
        raise Ended("its reader said something that is no answer")
    return answer
