"""`graft backup FOLDER` and `graft restore FOLDER`: database and storage, there and back into an empty service."""

import argparse
from pathlib import Path

from app.settings import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The folder."""
    parser.add_argument(
        "folder", type=Path, metavar="FOLDER", help="of the back-up: graft.db or graft.dump, and storage"
    )


def backup(settings: Settings, given: argparse.Namespace) -> int:
    """Makes a back-up, while everything may run.

    Returns:
        the exit status.
    """
    return _do(settings, given, restoring=False)


def restore(settings: Settings, given: argparse.Namespace) -> int:
    """Brings a back-up back, and its database to this version's tables.

    Returns:
        the exit status.
    """
    return _do(settings, given, restoring=True)


def _do(settings: Settings, given: argparse.Namespace, *, restoring: bool) -> int:
    from app.db import migration
    from app.services import backups
    from app.storage import open_storage

    settings.home_path.mkdir(parents=True, exist_ok=True)
    url = settings.resolved_database_url
    storage = open_storage(settings.resolved_storage_url, settings.home_path / "cache")
    if restoring:
        copied = backups.restore(given.folder, url, storage)
        migration.upgrade(url)
    else:
        copied = backups.backup(url, storage, given.folder)
    print(f"{copied.objects} objects copied, {copied.size_bytes} bytes; {copied.present} were there")
    return 0
