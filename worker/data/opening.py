"""The process that opens an upload, from the side of the one that keeps what it says.

What comes is a stranger's: each message is looked at before it is believed, and one that is none ends the ingestion.
"""

import json
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import worker
from app import limited
from worker.data.findings import PROBLEMS
from worker.data.labelling import is_deeper
from worker.data.limits import Limits
from worker.data.opening_child import Request
from worker.data.problems import Problems, Rejected
from worker.data.spool import Spool, Stored

# No message is longer; more without a line end means that the child was taken over by its input.
MAX_MESSAGE_BYTES = 2**20
_ROOT = Path(worker.__file__).parent.parent


@dataclass(frozen=True, slots=True)
class Found:
    """A member: an image, a text, one that is lost, or a row of a table with its labels and split."""

    what: str
    share_before: float
    path: str
    stored: Stored
    values: list[Any] | None = None
    split: int = 0


@dataclass(frozen=True, slots=True)
class Columns:
    """Label columns of the tables so far, and the names of classes that are stored as numbers."""

    names: tuple[str, ...]
    classes: dict[str, list[str]]


LOST = Stored(0, 0, bytes(32))


class Opener:
    """One upload being opened. Use as a context: leaving it ends the process.

    Args:
        path: of the upload.
        filename: as the client named it; for messages only.
        wanted: the format that was named, or auto.
        task: that was named, or None.
        spool: gets the bytes.
        limits: bounds.
        problems: gets the findings.
        scratch: for Parquet files inside an archive.
        command: starts the child; its argument follows. Tests put a misbehaving program here.
    """

    def __init__(
        self,
        path: Path,
        filename: str,
        wanted: str,
        task: str | None,
        spool: Spool,
        limits: Limits,
        problems: Problems,
        scratch: Path,
        command: tuple[str, ...] = limited.python("worker.data.opening_child"),
    ) -> None:
        self._spool, self._limits, self._problems = spool, limits, problems
        request = Request(
            str(path.absolute()),
            filename,
            wanted,
            task,
            str(scratch.absolute()),
            spool.out_fd,
            spool.end,
            asdict(limits),
        )
        self.process = subprocess.Popen(
            [*command, request.dump()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            pass_fds=(spool.out_fd,),
            cwd=_ROOT,
            env=limited.ENVIRONMENT,
        )

    def messages(self) -> Iterator[str | Found | Columns]:
        """The kind of the upload first, then what is in it, in order. Findings go where they belong.

        Raises:
            Rejected: the upload cannot be read any further.
            OSError: the disk is full.
        """
        assert self.process.stdout is not None
        is_ready = False
        while True:
            line = self.process.stdout.readline(MAX_MESSAGE_BYTES)
            if not line.endswith(b"\n"):
                raise self._ended(is_ready)
            match self._parsed(line):
                case ["ready"] if not is_ready:
                    is_ready = True
                case ["end"]:
                    return
                case ["rejected"] if self._problems.has_errors:
                    raise Rejected("the upload")
                case ["errno", int(number), str(words)]:
                    raise OSError(number, words)
                case ["problem", str(code), str(path), dict(found)] if code in PROBLEMS:
                    self._note(code, path, found)
                case ["kind", "zip" | "tar" | "parquet" as kind]:
                    yield kind
                case ["columns", list(names), dict(classes)]:
                    yield Columns(tuple(map(str, names)), classes)
                case ["lost", float() | int() as share, str(path)]:
                    yield Found("lost", share, path, LOST)
                case [
                    "image" | "text" | "row" as what,
                    float() | int() as share,
                    str(path),
                    int(offset),
                    int(length),
                    str(sha256),
                    *rest,
                ]:
                    yield self._found(what, share, path, Stored(offset, length, self._digest(sha256)), rest)
                case _:
                    raise self._failed("a message that is none")

    def _found(self, what: str, share: float, path: str, stored: Stored, rest: list[Any]) -> Found:
        if not self._spool.holds(stored):
            raise self._failed("bytes that are not there")
        match what, rest:
            case "row", [list(values), int(split)] if not is_deeper(values):
                return Found(what, share, path, stored, values, split)
            case "image" | "text", []:
                return Found(what, share, path, stored)
        raise self._failed("a message that is none")

    def _parsed(self, line: bytes) -> Any:
        try:
            return json.loads(line)
        except (ValueError, RecursionError) as error:
            raise self._failed("a message that is none") from error

    def _digest(self, text: str) -> bytes:
        try:
            digest = bytes.fromhex(text)
        except ValueError as error:
            raise self._failed("a message that is none") from error
        if len(digest) != 32:
            raise self._failed("a message that is none")
        return digest

    def _note(self, code: str, path: str, found: dict[str, Any]) -> None:
        try:
            self._problems.add(code, path, **found)
        except (KeyError, TypeError) as error:
            raise self._failed("a finding that is none") from error

    def _ended(self, is_ready: bool) -> Exception:
        """What becomes of a process that says no more, or no end of a message."""
        self.process.kill()
        status = self.process.wait()
        if not is_ready:
            return RuntimeError(
                f"expected the opening process to start; found exit status {status} before its first message; raise "
                f"the limit of {self._limits.open_memory_bytes} bytes, or run it by hand: "
                "python -m worker.data.opening_child"
            )
        return self._failed(f"exit status {status}")

    def _failed(self, found: str) -> Rejected:
        return self._problems.reject("opening_failed", found=found)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
