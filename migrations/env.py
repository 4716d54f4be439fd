"""Alembic's entry: builds and checks the database of GRAFT_DATABASE_URL (or the one handed over in code)."""

from typing import Literal

from alembic import context
from sqlalchemy import text

from app.db import (  # noqa: F401
    aliases,
    alignments,
    audit,
    collections,
    forecasts,
    gpu,
    keys,
    logs,
    models,
    studies,
    uploads,
    waste,
    webhooks,
)
from app.db.base import Base, Document, UtcDateTime
from app.db.locks import Lock, hold
from app.db.migration import LOCK_SECONDS
from app.db.session import Database
from app.settings import Settings


def _render(kind: str, item: object, _context: object) -> str | Literal[False]:
    """Migrations stand alone: they name the database's types, not the application's."""
    if kind == "type" and isinstance(item, UtcDateTime):
        return "sa.DateTime(timezone=True)"
    if kind == "type" and item is Document:
        return "DOCUMENT"
    return False


def run() -> None:
    """Runs the migrations in one transaction, of which there is one at a time: two starters do not race.

    PostgreSQL has an advisory lock for that; on SQLite the transaction begins as a writing one.
    """
    given = context.config.attributes.get("engine")
    engine = given if given is not None else Database(Settings().resolved_database_url).engine
    with engine.execution_options(graft_writes=True).connect() as connection:
        postgres = connection.dialect.name == "postgresql"
        if not postgres:
            # Batch mode drops and rebuilds tables: with foreign keys on, that would delete the rows that refer to them.
            # The setting cannot change inside a transaction, and the connection must not go back to the pool with it.
            connection.detach()
            connection.connection.cursor().execute("PRAGMA foreign_keys=OFF")
        context.configure(
            connection=connection,
            target_metadata=Base.metadata,
            render_as_batch=not postgres,
            transactional_ddl=True,
            compare_type=True,
            render_item=_render,
        )
        with context.begin_transaction():
            hold(connection, Lock.MIGRATION)
            if postgres:
                # After that lock, whose holder may migrate for as long as it takes.
                connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'"))
            context.run_migrations()


run()
