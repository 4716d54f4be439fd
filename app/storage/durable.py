"""What a machine that loses its power keeps: the bytes of a file, and the names that lead to it."""

import os
from collections.abc import Iterable
from contextlib import suppress
from itertools import takewhile
from pathlib import Path


def sync(path: Path) -> None:
    """Waits until the bytes of a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(folder: Path) -> list[Path]:
    """Makes a folder, and those above it.

    Returns:
        the folders to sync once a name is in that one: itself, and those in which a name has come.
    """
    made = list(takewhile(lambda one: not one.exists(), (folder, *folder.parents)))
    folder.mkdir(parents=True, exist_ok=True)
    return [folder, *(one.parent for one in made)]


def sync_folders(folders: Iterable[Path]) -> None:
    """Waits until the names in some folders are on the disk; whoever has deleted a folder meanwhile wants none."""
    for folder in folders:
        with suppress(FileNotFoundError):
            sync(folder)
