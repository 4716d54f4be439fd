"""Reads an upload once, front to back: members into the spool, images to the decoders, names to the format's reader."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from worker.data import archives, formats, manifests, parquet_files
from worker.data.decoding import Checked, Decoders
from worker.data.formats import Assigned, extension
from worker.data.limits import Limits
from worker.data.members import Member, UnreadableMember
from worker.data.problems import Problems
from worker.data.records import Records
from worker.data.spool import Spool, Stored

_NOTHING = Stored(0, 0, bytes(32))
_COCO_BYTES = 16 * 2**20


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
        self._tables = parquet_files.Rows()
        self._first = len(records)
        # Hashes of names in lower case, to their first row: a tenth of the names themselves.
        self._seen: dict[int, int] = {}
        self._num_bytes = 0

    def read(self, path: Path, filename: str, wanted: str, task: str | None) -> Assigned:
        """Reads everything; returns what the upload takes for samples, bad images included.

        Raises:
            Rejected: the upload cannot be read, or is not of the wanted format.
        """
        kind = archives.sniff(path, self._problems)
        if kind == "parquet":
            if wanted not in {"auto", "parquet"}:
                raise self._problems.reject("format_mismatch", expected=wanted, found="a Parquet file")
            self._read_table(path, filename, task)
        else:
            for member in archives.members(path, kind, self._limits, self._problems):
                self._progress(member.share_before)
                self._read_member(member, wanted, task)
        self._settle(self._decoders.drain())
        return self._assign(wanted, task)

    def _assign(self, wanted: str, task: str | None) -> Assigned:
        records, problems = self._records, self._problems
        rows = range(self._first, len(records))
        if self._tables.label_columns is not None:
            return parquet_files.assign(self._tables, records, task, problems)
        if wanted == "parquet":
            raise problems.reject("format_mismatch", expected="Parquet", found="an archive without a Parquet file")
        if wanted == "unlabelled":
            return formats.read_unlabelled(rows, task)
        if wanted in {"auto", "manifest"}:
            texts = [one for one in self._sidecars if extension(one[0]) in formats.MANIFESTS]
            found = manifests.find(texts, self._spool, task, wanted == "manifest", problems)
            if found:
                return manifests.read(found, records, rows, self._spool, task, problems)
        assigned = formats.read_folders(records, rows, task, wanted == "folders", problems)
        if len(assigned.columns[0].names) < 2 and any(self._is_coco(*one) for one in self._sidecars):
            raise problems.reject("coco_unsupported")
        if len(assigned.columns[0].names) == 1 and wanted == "auto":
            # One folder is no class: a table of the files beside it was meant, but says no label by name.
            manifests.refuse_without_labels(texts, self._spool, problems)
        return assigned

    def _read_member(self, member: Member, wanted: str, task: str | None) -> None:
        suffix = extension(member.path)
        if suffix == "parquet" and wanted in {"auto", "parquet"}:
            self._copy_table(member, task)
            return
        is_text = suffix in formats.MANIFESTS or suffix == "json"
        if suffix in formats.NOT_IMAGES and not is_text:
            self._problems.add("not_an_image", member.path, found=f".{suffix}")
            return
        if not is_text and self._is_repeated(member.path):
            return
        if member.size_bytes > self._limits.max_entry_bytes:
            self._problems.add(
                "entry_too_large", member.path, limit=self._limits.max_entry_bytes, found=member.size_bytes
            )
            self._note_bad(member.path, is_text)
            return
        try:
            stored = self._spool.append(member.chunks())
        except UnreadableMember as error:
            self._problems.add("entry_unreadable", member.path, found=str(error))
            self._note_bad(member.path, is_text)
            return
        if is_text:
            self._sidecars.append((member.path, stored))
        else:
            self._check(member.path, stored)

    def _check(self, path: str, stored: Stored) -> int:
        row = self._records.add(path, stored)
        self._settle(self._decoders.submit(row, stored.offset, stored.length))
        return row

    def _settle(self, done: Iterable[Checked]) -> None:
        for checked in done:
            if not checked.code:
                self._records.set_good(checked.index, checked.width, checked.height, checked.phash)
                continue
            self._records.set_bad(checked.index)
            limit = {
                "decode_timed_out": f"{self._limits.decode_seconds:g}",
                "decode_out_of_memory": self._limits.decode_memory_bytes // 2**20,
            }.get(checked.code)
            self._problems.add(checked.code, self._records.path(checked.index), found=checked.message, limit=limit)

    def _note_bad(self, path: str, is_text: bool) -> None:
        """A row for an image that could not even be stored: its class has to know."""
        if not is_text:
            self._records.set_bad(self._records.add(path, _NOTHING))

    def _is_repeated(self, path: str) -> bool:
        row = self._seen.setdefault(hash(path.casefold()), len(self._records))
        if row == len(self._records):
            return False
        first = self._records.path(row)
        if first == path:
            self._problems.add("duplicate_name", path)
            return True
        self._problems.add("case_collision", path, found=repr(first))
        return False

    def _copy_table(self, member: Member, task: str | None) -> None:
        local = self._scratch / "member.parquet"
        try:
            with local.open("wb") as file:
                for chunk in member.chunks():
                    file.write(chunk)
            self._read_table(local, member.path, task)
        except UnreadableMember as error:
            raise self._problems.reject("parquet_broken", member.path, found=str(error)) from error
        finally:
            local.unlink(missing_ok=True)

    def _read_table(self, path: Path, filename: str, task: str | None) -> None:
        tables = self._tables
        for row in parquet_files.read(path, filename, task, tables, self._problems):
            self._progress(row.share_before)
            self._num_bytes += len(row.data)
            if self._num_bytes > self._limits.max_total_bytes:
                limit = f"{self._limits.max_total_bytes} bytes of images"
                raise self._problems.reject("bomb", filename, limit=limit, found="more")
            tables.rows.append(self._check(row.path, self._spool.append(_once(row.data))))
            tables.values.append(row.values)
            tables.splits.append(row.split)

    def _is_coco(self, path: str, stored: Stored) -> bool:
        text = self._spool.read(stored.offset, min(stored.length, _COCO_BYTES))
        return extension(path) == "json" and formats.looks_like_coco(text)


def _once(data: bytes) -> Iterator[bytes]:
    yield data
