"""Alembic's entry: builds and checks the database of GRAFT_DATABASE_URL (or the one handed over in code)."""

from typing import Literal

from alembic import context
from app.db.base import Base, Document, UtcDateTime
from app.db import models  # noqa: F401  (fills the metadata)
from app.db.session import Database
from app.settings import Settings
from sqlalchemy import text


def _render(kind: str, item: object, autogen_context: object) -> str | Literal[False]:
    """Migrations stand alone: they name the database's types, not the application's."""
    if kind == "type" and isinstance(item, UtcDateTime):
        return "sa.DateTime(timezone=True)"
    if kind == "type" and item is Document:
        return "DOCUMENT"
    return False


def run() -> None:
    """Runs the migrations in one transaction, on PostgreSQL under an advisory lock so that two starters do not race."""
    given = context.config.attributes.get("engine")
    engine = given if given is not None else Database(Settings().resolved_database_url).engine
    with engine.connect() as connection:
        postgres = connection.dialect.name == "postgresql"
        context.configure(
            connection=connection,
            target_metadata=Base.metadata,
            render_as_batch=not postgres,
            compare_type=True,
            render_item=_render,
        )
        with context.begin_transaction():
            if postgres:
                connection.execute(text("SET LOCAL lock_timeout = '10s'"))
                connection.execute(text("SELECT pg_advisory_xact_lock(4711)"))
            context.run_migrations()


run()
