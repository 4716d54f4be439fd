"""A few decoding children, kept busy from one thread: which image is good, how large it is, its grey levels.

Each child works through a short window of requests in order, so the unanswered image at the front is the one that
crashed or hung it. That image is reported, and a new child takes over behind it.
"""

import base64
import json
import os
import select
import subprocess
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import worker
from app import limited
from worker.data.decode_child import REQUEST, SIDE
from worker.data.limits import Limits

# Requests waiting at one child. They are 16 bytes each; enough to bridge a large member being unpacked.
WINDOW = 64
# Requests waiting at every child before another one is started, which takes as long as decoding fifty small images.
ENOUGH = 8
# No reply is longer; more without a line end means that the child was taken over by its input.
MAX_REPLY_BYTES = 65536
_CODES = frozenset(
    {"image_unreadable", "image_truncated", "image_too_large", "image_unsupported", "decode_out_of_memory"}
)
_ROOT = Path(worker.__file__).parent.parent


@dataclass(frozen=True, slots=True)
class Checked:
    """What a child found: `code` is empty for a good image, of which `grey` is as `decode_child.grey` makes it."""

    index: int
    width: int
    height: int
    grey: bytes
    code: str
    message: str


@dataclass(slots=True)
class _Child:
    process: subprocess.Popen[bytes]
    waiting: deque[tuple[int, int, int]] = field(default_factory=deque)
    received: bytes = b""
    is_ready: bool = False
    front_since: float = 0.0


class Decoders:
    """The children of one ingestion. Use as a context: leaving it ends them.

    Args:
        spool_fd: file that the requests point into, opened for reading.
        limits: time, memory and pixels per image, number of processes: one at first, others once there is enough to do.
        command: starts one child; its arguments follow. Tests put a misbehaving program here.
    """

    def __init__(
        self,
        spool_fd: int,
        limits: Limits,
        command: tuple[str, ...] = limited.python("worker.data.decode_child"),
    ) -> None:
        self._spool_fd = spool_fd
        self._limits = limits
        self._command = command
        self._children = [self._start()]

    def submit(self, index: int, offset: int, length: int) -> Iterator[Checked]:
        """Hands over one image; yields earlier ones that are done, and waits while all children have enough to do."""
        while True:
            child = min(self._children, key=lambda one: len(one.waiting))
            if len(child.waiting) >= ENOUGH and len(self._children) < self._limits.num_processes:
                self._children.append(child := self._start())
            if len(child.waiting) < WINDOW:
                break
            yield from self._receive(wait=True)
        self._send(child, (index, offset, length))
        if len(child.waiting) % 8 == 0:
            yield from self._receive(wait=False)

    def drain(self) -> Iterator[Checked]:
        """Waits for everything handed over."""
        while any(child.waiting for child in self._children):
            yield from self._receive(wait=True)

    def _start(self) -> _Child:
        limits = self._limits
        arguments = [
            str(self._spool_fd),
            str(limits.decode_seconds),
            str(limits.decode_memory_bytes),
            str(limits.max_pixels),
        ]
        process = subprocess.Popen(
            [*self._command, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=(self._spool_fd,),
            cwd=_ROOT,
            env=limited.ENVIRONMENT,
        )
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        return _Child(process, front_since=time.monotonic())

    def _send(self, child: _Child, request: tuple[int, int, int]) -> None:
        if not child.waiting:
            child.front_since = time.monotonic()
        child.waiting.append(request)
        assert child.process.stdin is not None
        try:
            os.write(child.process.stdin.fileno(), REQUEST.pack(*request[1:]))
        except BrokenPipeError:
            # It died; the end of its output, read next, says so and blames the front.
            return

    def _receive(self, wait: bool) -> Iterator[Checked]:
        now = time.monotonic()
        busy = [child for child in self._children if child.waiting]
        until = min((child.front_since + self._limits.decode_seconds for child in busy), default=now)
        by_fd = {child.process.stdout.fileno(): child for child in busy if child.process.stdout is not None}
        poll = select.poll()
        for fd in by_fd:
            poll.register(fd, select.POLLIN)
        for fd, _ in poll.poll(max(0.0, until - now) * 1000 + 1 if wait else 0):
            yield from self._read(by_fd[fd])
        now = time.monotonic()
        for child in busy:
            if child in self._children and child.waiting and now - child.front_since > self._limits.decode_seconds:
                yield self._give_up(child, "decode_timed_out", "")

    def _read(self, child: _Child) -> Iterator[Checked]:
        assert child.process.stdout is not None
        data = os.read(child.process.stdout.fileno(), MAX_REPLY_BYTES)
        *lines, child.received = (child.received + data).split(b"\n")
        for line in lines:
            if not child.is_ready:
                child.is_ready = True
                child.front_since = time.monotonic()
                continue
            checked = _parse(child.waiting[0][0], line) if child.waiting else None
            if checked is None:
                yield self._give_up(child, "decoder_crashed", "an answer that is none")
                return
            child.waiting.popleft()
            child.front_since = time.monotonic()
            yield checked
        if not data:
            returncode = child.process.wait()
            yield self._give_up(child, "decoder_crashed", f"exit status {returncode}")
        elif len(child.received) > MAX_REPLY_BYTES:
            yield self._give_up(child, "decoder_crashed", "an answer without an end")

    def _give_up(self, child: _Child, code: str, message: str) -> Checked:
        """Replaces a child; the image at its front is lost, the others go to the new one."""
        if not child.is_ready and code == "decoder_crashed":
            raise RuntimeError(
                f"expected the decoding process to start; found {message} before its first answer; raise the limit of"
                f" {self._limits.decode_memory_bytes} bytes, or run it by hand: {' '.join(self._command)}"
            )
        _end(child)
        culprit, *others = child.waiting
        fresh = self._start()
        self._children[self._children.index(child)] = fresh
        for request in others:
            self._send(fresh, request)
        return Checked(culprit[0], 0, 0, b"", code, message)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child in self._children:
            _end(child)


def _end(child: _Child) -> None:
    child.process.kill()
    child.process.wait()
    for pipe in (child.process.stdin, child.process.stdout):
        assert pipe is not None
        pipe.close()


def _parse(index: int, line: bytes) -> Checked | None:
    """A child's answer, read as the untrusted text that it is."""
    try:
        reply = json.loads(line)
    except ValueError:
        return None
    match reply:
        case {"width": int(width), "height": int(height), "grey": str(text)} if (
            0 < width < 2**32 and 0 < height < 2**32 and (grey := _grey(text))
        ):
            return Checked(index, width, height, grey, "", "")
        case {"code": str(code), "message": str(message)} if code in _CODES:
            return Checked(index, 0, 0, b"", code, message[:2000])
    return None


def _grey(text: str) -> bytes:
    """Empty where it is not what it should be."""
    try:
        found = base64.b64decode(text, validate=True)
    except ValueError:
        return b""
    return found if len(found) == SIDE * SIDE else b""
