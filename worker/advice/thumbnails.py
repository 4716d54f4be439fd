"""Small pictures of what was found, made once by the job, so that a page of advice needs no image of the dataset."""

import io
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from app.advice import NUM_THUMBNAILS, Kind
from app.artifact import decoding
from worker.advice.findings import Finding
from worker.data.samples import Index, iter_images

SIDE = 96
_QUALITY = 80
# Of one finding: a group of a thousand copies must not fill the page.
_OF_ONE = 6


def choose(findings: Sequence[Finding], most: int = NUM_THUMBNAILS) -> list[int]:
    """Rows to be shown: kinds take turns, each with its most telling findings first."""
    queues: dict[Kind, list[tuple[int, ...]]] = {}
    for one in findings:
        if one.rows:
            queues.setdefault(one.kind, []).append(one.rows[:_OF_ONE])
    chosen: dict[int, None] = {}
    for turn in range(max(map(len, queues.values()), default=0)):
        for queue in queues.values():
            wanted = [row for row in queue[turn] if row not in chosen] if turn < len(queue) else []
            if len(chosen) + len(wanted) <= most:
                chosen.update(dict.fromkeys(wanted))
    return list(chosen)


@dataclass(frozen=True)
class Part:
    """Images of one dataset, and the folder of the zip that they are for."""

    index: Index
    rows: Sequence[int]
    folder: str = ""


def write(path: Path, parts: Sequence[Part], locate: Callable[[str], Path], max_pixels: int) -> None:
    """A zip of `SAMPLE_ID.jpg`, each at most SIDE pixels wide and high; one image is held at a time.

    Args:
        path: of the zip.
        parts: what to write.
        locate: where a key of the storage lies on this machine.
        max_pixels: of an encoded image.
    """
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for part in parts:
            for name, data in _images(part, locate):
                image = decoding.decode(data, at_least=SIDE, max_pixels=max_pixels)
                image.thumbnail((SIDE, SIDE), Image.Resampling.BILINEAR)
                out = io.BytesIO()
                image.save(out, "JPEG", quality=_QUALITY)
                # A fixed time: the same dataset gives the same bytes.
                archive.writestr(zipfile.ZipInfo(f"{part.folder}{name}.jpg"), out.getvalue())


def _images(part: Part, locate: Callable[[str], Path]) -> Iterator[tuple[str, bytes]]:
    """Id and encoded bytes."""
    rows_N = np.array(part.rows, np.int64)
    for row, data in iter_images(part.index, rows_N, lambda name: locate(f"{part.index.prefix}/{name}")):
        yield part.index.ids[row].decode(), data
