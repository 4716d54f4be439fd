"""Text files of an upload that nothing was read from: a label that stands in one must not be lost without a word.

Whoever sends a table that names the images means its labels. Where it cannot be read as a manifest, folders that happen
to be there would be taken for classes instead, so the upload is refused; any other text is left out, and listed.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from worker.data.kinds import MANIFESTS, extension
from worker.data.manifests import FILE_COLUMNS, header
from worker.data.names import Names
from worker.data.problems import Problems
from worker.data.spool import Spool, Stored

_COCO_BYTES = 16 * 2**20
_HEAD_BYTES = 2**16
# So many different images have to be named: fewer may be an example in a description.
_MIN_NAMED = 3
_BETWEEN = re.compile(r'[,;\t\r\n"{}\[\]|]+')

Text = tuple[str, Stored]


def note(texts: Sequence[Text], paths: Iterable[str], spool: Spool, problems: Problems, *, refuses: bool) -> None:
    """Lists texts that nothing was read from.

    Args:
        texts: name and place of each.
        paths: of the images of the upload.
        spool: has the bytes.
        problems: gets the findings.
        refuses: whether what the labels are is open, so that a text which seems to say them is an error.

    Raises:
        Rejected: code coco_unsupported or manifest_columns.
    """
    names, stems = Names(), Names()
    for path in paths if texts and refuses else ():
        name = PurePosixPath(path)
        names.first(name.name, 0)
        stems.first(name.stem, 0)
    for path, stored in texts:
        if refuses and is_coco((path, stored), spool):
            raise problems.reject("coco_unsupported", path)
        head = spool.read(stored.offset, min(stored.length, _HEAD_BYTES)).decode("utf-8-sig", errors="replace")
        found = header(path, stored, spool)
        shown = ", ".join(found) or f"no column in a .{extension(path)} file"
        if refuses and (_has_file_column(found) or _names(head, names) or _lists(path, head, stems)):
            raise problems.reject("manifest_columns", path, found=shown)
        problems.add("text_ignored", path, found=shown)


def is_coco(text: Text, spool: Spool) -> bool:
    """Whether it is a JSON file of detection annotations."""
    path, stored = text
    if extension(path) != "json":
        return False
    start = spool.read(stored.offset, min(stored.length, _COCO_BYTES))
    return b'"annotations"' in start and b'"images"' in start


def _has_file_column(columns: Sequence[str]) -> bool:
    return len(columns) > 1 and any(name in columns for name in FILE_COLUMNS)


def _names(head: str, names: Names) -> bool:
    """Whether the text names several of the images, or all."""
    parts = {part.strip().replace("\\", "/").rpartition("/")[2] for part in _BETWEEN.split(head)}
    found = [part for part in parts if names.get(part) is not None]
    return bool(found) and len(found) >= min(_MIN_NAMED, len(names))


def _lists(path: str, head: str, stems: Names) -> bool:
    """Whether most lines of a table name an image by its name without the ending, as a column `id` does."""
    if extension(path) not in MANIFESTS:
        return False
    found = [part for part in {one.strip() for one in _BETWEEN.split(head)} if stems.get(part) is not None]
    return len(found) >= max(_MIN_NAMED, len(head.splitlines()) // 2)
