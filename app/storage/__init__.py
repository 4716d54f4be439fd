"""Bytes under keys: a few verbs over a folder or an S3 bucket."""

from pathlib import Path
from urllib.parse import urlsplit

from app.storage.base import DRAFTS, Storage, Stored, check_key, is_key, out_of_space
from app.storage.copies import remove_old_copies
from app.storage.folder import FolderStorage

__all__ = [
    "DRAFTS",
    "FolderStorage",
    "Storage",
    "Stored",
    "check_key",
    "failures",
    "folder_of",
    "is_key",
    "open_storage",
    "out_of_space",
    "remove_old_copies",
]


def folder_of(url: str) -> Path | None:
    """The folder of a storage on disk; None for any other."""
    parts = urlsplit(url)
    return Path(parts.path) if parts.scheme == "file" else None


def failures(url: str) -> tuple[type[Exception], ...]:
    """What the client of the storage behind a URL raises when it is away or refuses what we ask of it."""
    if urlsplit(url).scheme != "s3":
        return ()
    from app.storage.s3 import FAILURES

    return FAILURES


def open_storage(url: str, cache: Path, *, patient: bool = False) -> Storage:
    """The storage behind a URL.

    Args:
        url: `file:///folder` or `s3://bucket/prefix`.
        cache: folder for local copies of remote objects.
        patient: whether a call outlasts an outage of the object store; otherwise it fails within seconds.

    Raises:
        ValueError: another scheme.
    """
    folder = folder_of(url)
    if folder is not None:
        return FolderStorage(folder)
    parts = urlsplit(url)
    if parts.scheme == "s3":
        from app.storage.s3 import S3Storage

        return S3Storage(parts.netloc, parts.path.strip("/"), cache, patient=patient)
    raise ValueError(f"GRAFT_STORAGE_URL: expected file:// or s3://, found {url!r}")
