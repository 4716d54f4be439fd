"""Runs the migrations in code: `graft migrate`, `graft up` and the tests."""

from pathlib import Path

from alembic import command
from alembic.config import Config

from app.db.session import Database

ROOT = Path(__file__).parents[2] / "migrations"


def upgrade(url: str) -> None:
    """Brings the database at `url` to the newest revision."""
    database = Database(url)
    try:
        command.upgrade(config(database), "head")
    finally:
        database.dispose()


def config(database: Database) -> Config:
    """Alembic's configuration for one database."""
    settings = Config()
    settings.set_main_option("script_location", str(ROOT))
    settings.attributes["engine"] = database.engine
    return settings
