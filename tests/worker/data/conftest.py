"""Uploads made in memory, and a store that is a folder."""

import io
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from worker.data.ingest import IngestRequest, IngestResult, Limits, ingest


class FolderStore:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, relative_name: str, local_path: Path) -> None:
        target = self.folder / relative_name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(local_path, target)

    @property
    def files(self) -> list[str]:
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file())


def draw(number: int, kind: str = "PNG", size: tuple[int, int] = (48, 40), **options: Any) -> bytes:
    """A picture like no other: 8 x 8 random patches, enlarged."""
    patches = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(patches).resize(size, Image.Resampling.BICUBIC).save(out, kind, **options)
    return out.getvalue()


def pack(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


def folders(num: int = 6, names: tuple[str, ...] = ("cat", "dog"), prefix: str = "") -> dict[str, bytes]:
    """Class folders of different pictures."""
    return {
        f"{prefix}{name}/{number}.png": draw(1000 * place + number)
        for place, name in enumerate(names)
        for number in range(num)
    }


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "stored")


@pytest.fixture
def run(tmp_path: Path, store: FolderStore) -> Callable[..., IngestResult]:
    """Ingests bytes, or a dict of files as a zip; what it leaves in the scratch folder fails the test."""
    scratch = tmp_path / "scratch"

    def ingest_bytes(
        upload: bytes | dict[str, bytes] | None, into: FolderStore = store, **options: Any
    ) -> IngestResult:
        archive = None
        if upload is not None:
            archive = tmp_path / "upload"
            archive.write_bytes(pack(upload) if isinstance(upload, dict) else upload)
        scratch.mkdir(exist_ok=True)
        options = {"filename": "upload.zip", "dataset_id": "ds_test", "limits": Limits(num_processes=1), **options}
        result = ingest(IngestRequest(archive=archive, scratch=scratch, **options), into, lambda fraction, stage: None)
        assert list(scratch.iterdir()) == []
        if result.state == "invalid":
            assert not into.folder.exists()
        assert sorted(result.files) == (into.files if result.state == "ready" else [])
        return result

    return ingest_bytes
