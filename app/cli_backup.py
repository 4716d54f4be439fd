"""`graft backup FOLDER` and `graft restore FOLDER`: database and storage, there and back into an empty service."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from app.settings import Settings

if TYPE_CHECKING:
    from app.services.backups import Copied
    from app.storage import Storage


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
    from app.services import backups

    # No home is made: where it should have the database, one that is missing is mistyped.
    return _told(backups.backup(settings.resolved_database_url, _storage(settings), given.folder))


def restore(settings: Settings, given: argparse.Namespace) -> int:
    """Brings a back-up back, and its database to this version's tables.

    Returns:
        the exit status.
    """
    from app.db import migration
    from app.services import backups

    settings.home_path.mkdir(parents=True, exist_ok=True)
    url = settings.resolved_database_url
    copied = backups.restore(given.folder, url, _storage(settings))
    migration.upgrade(url)
    return _told(copied)


def _storage(settings: Settings) -> "Storage":
    from app.storage import open_storage

    return open_storage(settings.resolved_storage_url, settings.home_path / "cache")


def _told(copied: "Copied") -> int:
    print(f"{copied.objects} objects copied, {copied.size_bytes} bytes; {copied.present} were there")
    return 0
