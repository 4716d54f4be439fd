"""What an upload has, once, front to back: images to the decoders, names and labels to the format's reader.

The upload itself is opened in a process of its own (`opening`), which puts its members into the spool.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from worker.data import formats, manifests, parquet_files, sidecars
from worker.data.decoding import Checked, Decoders
from worker.data.formats import Assigned
from worker.data.kinds import MANIFESTS, extension
from worker.data.labelling import Labelled
from worker.data.limits import Limits
from worker.data.names import Names
from worker.data.opening import Columns, Found, Opener
from worker.data.problems import Problem, Problems
from worker.data.records import Records
from worker.data.spool import Spool, Stored


class Reader:
    """One pass over one upload.

    Args:
        records: get a row per image, good or bad.
        spool: gets the bytes.
        decoders: check the images.
        limits: bounds.
        problems: gets the findings.
        scratch: for Parquet files inside an archive.
        progress: gets the share read.
    """

    def __init__(
        self,
        records: Records,
        spool: Spool,
        decoders: Decoders,
        limits: Limits,
        problems: Problems,
        scratch: Path,
        progress: Callable[[float], None],
    ) -> None:
        self._records, self._spool, self._decoders = records, spool, decoders
        self._limits, self._problems, self._scratch, self._progress = limits, problems, scratch, progress
        self._sidecars: list[tuple[str, Stored]] = []
        self._tables = parquet_files.Rows(Labelled(problems))
        self._first = len(records)
        self._num_checked, self._keeps_repeated = 0, False
        # What is wrong with an image, by its row; as many as are listed.
        self.bad: dict[int, Problem] = {}
        self._names = Names()

    def read(self, path: Path, filename: str, wanted: str, task: str | None) -> Assigned:
        """Reads everything; returns what the upload takes for samples, bad images included.

        Raises:
            Rejected: the upload cannot be read, or is not of the wanted format.
        """
        self._open(path, filename, wanted, task)
        return self._assign(wanted, task)

    def read_images(self, path: Path, filename: str, num_checked: int = 0) -> None:
        """Reads all images and no labels: a record for each, good or bad, a second one of the same name included.

        Args:
            path: of the upload.
            filename: as the client named it.
            num_checked: records whose images need not be decoded any more; nothing is said of them.

        Raises:
            Rejected: the upload cannot be read.
        """
        self._num_checked, self._keeps_repeated = num_checked, True
        self._open(path, filename, "auto", None)

    def _open(self, path: Path, filename: str, wanted: str, task: str | None) -> None:
        with Opener(path, filename, wanted, task, self._spool, self._limits, self._problems, self._scratch) as opener:
            for message in opener.messages():
                self._note(message, wanted)
        self._settle(self._decoders.drain())

    def _note(self, message: str | Found | Columns, wanted: str) -> None:
        match message:
            case "parquet" if wanted not in {"auto", "parquet"}:
                raise self._problems.reject("format_mismatch", expected=wanted, found="a Parquet file")
            case Columns():
                self._tables.label_columns, self._tables.names = message.names, message.classes
            case Found():
                self._progress(message.share_before)
                self._keep(message)

    def _keep(self, found: Found) -> None:
        # Of a member that is lost, why that is comes right before it.
        why = self._problems.last
        if found.what == "text":
            self._sidecars.append((found.path, found.stored))
        elif found.what == "row":
            assert found.values is not None
            self._tables.found.add(self._check(found.path, found.stored), found.split, found.values)
        elif self._is_repeated(found.path):
            if self._keeps_repeated:
                self._lose(found, self._problems.last)
        elif found.what == "image":
            self._check(found.path, found.stored)
        else:
            # A row for an image that could not even be stored: its class has to know.
            self._lose(found, why)

    def _lose(self, found: Found, why: Problem | None) -> None:
        row = self._records.add(found.path, found.stored)
        self._records.set_bad(row)
        self._note_bad(row, why)

    def _note_bad(self, row: int, why: Problem | None) -> None:
        if why is not None:
            self.bad[row] = why

    def _assign(self, wanted: str, task: str | None) -> Assigned:
        records, problems = self._records, self._problems
        rows = range(self._first, len(records))
        if self._tables.label_columns is not None:
            self._leave_out(set())
            for row in np.setdiff1d(rows, self._tables.found.rows).tolist():
                problems.add("not_in_manifest", records.path(row))
            return parquet_files.assign(self._tables, records, task, problems)
        if wanted == "parquet":
            raise problems.reject("format_mismatch", expected="Parquet", found="an archive without a Parquet file")
        if wanted == "unlabelled":
            self._leave_out(set())
            return formats.read_unlabelled(rows, task)
        if wanted in {"auto", "manifest"}:
            texts = [one for one in self._sidecars if extension(one[0]) in MANIFESTS]
            found = manifests.find(texts, self._spool, task, wanted == "manifest", problems)
            if found:
                self._leave_out({manifest.path for manifest in found})
                return manifests.read(found, records, rows, self._spool, task, problems)
        self._leave_out(set(), refuses=wanted == "auto")
        assigned = formats.read_folders(records, rows, task, wanted == "folders", problems)
        if len(assigned.columns[0].names) < 2 and any(sidecars.is_coco(one, self._spool) for one in self._sidecars):
            raise problems.reject("coco_unsupported")
        return assigned

    def _leave_out(self, used: set[str], *, refuses: bool = False) -> None:
        """Texts that nothing is read from; what seems to say the labels is refused where they are open."""
        texts = [one for one in self._sidecars if one[0] not in used]
        images = self._records.each(range(self._first, len(self._records)))
        sidecars.note(texts, (one.path for one in images), self._spool, self._problems, refuses=refuses)

    def _check(self, path: str, stored: Stored) -> int:
        row = self._records.add(path, stored)
        if row < self._num_checked:
            return row
        self._settle(self._decoders.submit(row, stored.offset, stored.length))
        return row

    def _settle(self, done: Iterable[Checked]) -> None:
        for checked in done:
            if not checked.code:
                self._records.set_checked(checked.index, checked.width, checked.height, checked.grey)
                continue
            self._records.set_bad(checked.index)
            limit = {
                "decode_timed_out": f"{self._limits.decode_seconds:g}",
                "decode_out_of_memory": self._limits.decode_memory_bytes // 2**20,
            }.get(checked.code)
            self._problems.add(checked.code, self._records.path(checked.index), found=checked.message, limit=limit)
            self._note_bad(checked.index, self._problems.last)

    def _is_repeated(self, path: str) -> bool:
        row = self._names.first(path.casefold(), len(self._records))
        if row == len(self._records):
            return False
        first = self._records.path(row)
        if first == path:
            self._problems.add("duplicate_name", path)
            return True
        self._problems.add("case_collision", path, found=repr(first))
        return False
