"""Opens an untrusted upload in a process of its own: what it is, its members, a Parquet file's rows.

`python -m worker.data.opening_child REQUEST`, a JSON object with the fields of `Request`. The bytes of images and texts
go into the spool, a file that was inherited for writing; all else is said in JSON lines on stdout, each a list whose
first item says what it is:

    ["ready"]                                                 the imports are done, the bounds hold
    ["image", share, path, offset, length, sha256]            a member that may be one
    ["text", share, path, offset, length, sha256]             a member that may be a manifest
    ["lost", share, path]                                     an image that could not be taken out
    ["row", share, path, offset, length, sha256, values, split]   of a Parquet file
    ["columns", names, classes]                               the label columns of a Parquet file
    ["problem", code, path, found]
    ["kind", kind]                                            zip, tar or parquet
    ["errno", number, words]                                  the disk is full
    ["end"] or ["rejected"]                                   the last one
"""

import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from app.confinement import confine
from worker.data import archives
from worker.data.kinds import MANIFESTS, NOT_IMAGES, extension
from worker.data.limits import Limits
from worker.data.members import Budget, Member, UnreadableMember, normal, unsafe
from worker.data.problems import Problems, Rejected
from worker.data.spool import Appender, Stored

# Of one row; a thousand names of classes fit.
MAX_LABEL_BYTES = 2**16


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be opened.

    Args:
        path: of the upload.
        filename: as the client named it.
        wanted: the format that was named, or auto.
        task: that was named, or None.
        scratch: for a Parquet file inside an archive.
        spool_fd: to write to.
        spool_end: where the first member goes.
        limits: as `Limits`.
    """

    path: str
    filename: str
    wanted: str
    task: str | None
    scratch: str
    spool_fd: int
    spool_end: int
    limits: dict[str, Any]

    def dump(self) -> str:
        """As the child's argument."""
        return json.dumps(asdict(self))


def say(*message: object) -> None:
    """One line. It is sent at once, so that images are decoded while the next ones are unpacked."""
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


class Told(Problems):
    """Findings go to the parent, which keeps the list."""

    def add(self, code: str, path: str = "", **found: object) -> None:
        """See Problems."""
        say("problem", code, path, found)


class Opening:
    """One pass over one upload."""

    def __init__(self, request: Request, limits: Limits) -> None:
        self._request, self._limits, self._problems = request, limits, Told()
        self._spool = Appender(request.spool_fd, request.spool_end)
        self._tables: Any = None
        self._num_text_bytes, self._num_name_chars, self._num_rows = 0, 0, 0

    def read(self) -> None:
        """Says everything.

        Raises:
            Rejected: it cannot be read; why was said.
            MemoryError: it takes more than it may.
        """
        path, problems = Path(self._request.path), self._problems
        kind = archives.sniff(path, problems)
        say("kind", kind)
        if kind == "parquet":
            if self._takes_tables():
                self._read_table(path, self._request.filename)
            return
        for member in archives.members(path, kind, self._limits, problems):
            self._read_member(member)

    def _takes_tables(self) -> bool:
        return self._request.wanted in {"auto", "parquet"}

    def _read_member(self, member: Member) -> None:
        self._count_name(member.path)
        suffix = extension(member.path)
        if suffix == "parquet" and self._takes_tables():
            self._copy_table(member)
            return
        is_text = suffix in MANIFESTS or suffix == "json"
        if suffix in NOT_IMAGES and not is_text:
            self._problems.add("not_an_image", member.path, found=f".{suffix}")
            return
        stored = self._store(member)
        if stored is None:
            if not is_text:
                say("lost", member.share_before, member.path)
            return
        if suffix in MANIFESTS:
            self._count_text(member.path, stored.length)
        say("text" if is_text else "image", member.share_before, member.path, *_place(stored))

    def _store(self, member: Member) -> Stored | None:
        """Into the spool; None where the member is the only one that cannot be taken out."""
        limit = self._limits.max_entry_bytes
        if member.size_bytes > limit:
            self._problems.add("entry_too_large", member.path, limit=limit, found=member.size_bytes)
            return None
        try:
            return self._spool.append(member.chunks())
        except UnreadableMember as error:
            self._problems.add("entry_unreadable", member.path, found=str(error))
            return None

    def _count_text(self, path: str, num_bytes: int) -> None:
        """What says the labels is kept whole."""
        self._num_text_bytes += num_bytes
        most = self._limits.max_text_bytes
        if self._num_text_bytes > most:
            raise self._problems.reject("bomb", path, limit=f"{most} bytes of manifests and labels", found="more")

    def _count_labels(self, values: list[Any], filename: str) -> None:
        num_bytes = len(json.dumps(values))
        if num_bytes > MAX_LABEL_BYTES:
            limit = f"{MAX_LABEL_BYTES} bytes of labels in one row"
            raise self._problems.reject("bomb", filename, limit=limit, found=num_bytes)
        self._count_text(filename, num_bytes)

    def _count_name(self, path: str) -> None:
        self._num_name_chars += len(path)
        most = self._limits.max_name_chars
        if self._num_name_chars > most:
            raise self._problems.reject("bomb", limit=f"{most} characters of names", found="more")

    def _copy_table(self, member: Member) -> None:
        local = Path(self._request.scratch) / "member.parquet"
        try:
            with local.open("wb") as file:
                for chunk in member.chunks():
                    file.write(chunk)
            self._read_table(local, member.path)
        except UnreadableMember as error:
            raise self._problems.reject("parquet_broken", member.path, found=str(error)) from error
        finally:
            local.unlink(missing_ok=True)

    def _read_table(self, path: Path, filename: str) -> None:
        # Two tenths of a second, which only Parquet has to pay.
        from worker.data import labelling, parquet_files

        if self._tables is None:
            self._tables = parquet_files.Rows(labelling.Labelled(self._problems))
        budget = Budget(path, self._limits, self._problems)
        most, is_unsafe = self._limits.max_entries - self._num_rows, False
        for row in parquet_files.read(path, filename, self._request.task, self._tables, most, self._problems):
            self._num_rows += 1
            self._count_name(row.path)
            self._count_labels(row.values, filename)
            if reason := unsafe(row.path):
                self._problems.add("unsafe_path", row.path, found=reason)
                is_unsafe = True
            # As of an archive: nothing is taken any more once one is unsafe, but every such row is listed.
            if not is_unsafe:
                # One picture that stands for a million rows is a few bytes of dictionary.
                stored = self._spool.append((budget.count(row.data, filename),))
                say("row", row.share_before, normal(row.path), *_place(stored), row.values, row.split)
        if is_unsafe:
            raise Rejected("unsafe")
        say("columns", self._tables.label_columns, self._tables.names)


def _place(stored: Stored) -> tuple[int, int, str]:
    return stored.offset, stored.length, stored.sha256.hex()


def main() -> None:
    """Opens one upload."""
    request = Request(**json.loads(sys.argv[1]))
    limits = Limits(**request.limits)
    confine(limits.open_memory_bytes, limits.open_seconds, file_bytes=request.spool_end + limits.max_total_bytes)
    say("ready")
    try:
        Opening(request, limits).read()
    except Rejected:
        say("rejected")
    except MemoryError:
        limit = f"{limits.open_memory_bytes // 2**20} MB of memory to open it"
        say("problem", "bomb", "", {"limit": limit, "found": "more"})
        say("rejected")
    except OSError as error:
        say("errno", error.errno, os.strerror(error.errno or 0))
    else:
        say("end")


if __name__ == "__main__":
    main()
