"""Processes that outlive what has started them, whatever they are called and whatever their environment is.

Decoders have none, so they cannot be found by their home. On Linux orphans become children of this process instead.
"""

import ctypes
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager

import psutil

from tests import processes

_PR_SET_CHILD_SUBREAPER = 36


@contextmanager
def adopting() -> Iterator[set[int]]:
    """Orphans come to this process as long as the block lasts; yields the children that it had before."""
    _adopt(True)
    try:
        yield {child.pid for child in psutil.Process().children()}
    finally:
        _adopt(False)


def found(known: Collection[int]) -> list[psutil.Process]:
    """Children of this process that run Python and are none of those known: somebody's orphans."""
    python = psutil.Process().exe()
    return [one for one in psutil.Process().children() if one.pid not in known and _runs(one, python)]


def _runs(process: psutil.Process, program: str) -> bool:
    try:
        return processes.alive(process) and process.exe() == program
    except psutil.Error:
        return False


def _adopt(yes: bool) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, int(yes), 0, 0, 0)
