"""Runs the migrations in code: `graft migrate`, `graft up` and the tests."""

import logging
import random
import time
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy.exc import OperationalError

from app.db.session import Database

ROOT = Path(__file__).parents[2] / "migrations"
# A table that is altered waits for who uses it, and whoever comes later waits behind it: for no longer than this.
LOCK_SECONDS = 2
PATIENCE_SECONDS = 300.0
PAUSE_SECONDS = (0.5, 2.0)
# PostgreSQL: no lock within the time, or one that waits for us.
_BUSY_STATES = frozenset({"55P03", "40P01"})

log = logging.getLogger(__name__)


def upgrade(url: str, patience_seconds: float = PATIENCE_SECONDS) -> None:
    """Brings the database at `url` to the newest revision, while the release before this one may use it.

    Where others hold what is to be altered, nothing is done, they are let through, and it is tried again.

    Args:
        url: of SQLAlchemy.
        patience_seconds: for how long.

    Raises:
        OperationalError: the database is away, or was never free.
    """
    database = Database(url)
    deadline = time.monotonic() + patience_seconds
    try:
        while True:
            try:
                return command.upgrade(config(database), "head")
            except OperationalError as error:
                if not _is_busy(error) or time.monotonic() > deadline:
                    raise
                log.warning("the database is in use, trying again: %s", error.orig)
            time.sleep(random.uniform(*PAUSE_SECONDS))
    finally:
        database.dispose()


def config(database: Database) -> Config:
    """Alembic's configuration for one database."""
    settings = Config()
    settings.set_main_option("script_location", str(ROOT))
    settings.attributes["engine"] = database.engine
    return settings


def _is_busy(error: OperationalError) -> bool:
    """Whether somebody else holds a lock."""
    return getattr(error.orig, "sqlstate", None) in _BUSY_STATES or "database is locked" in str(error.orig)
