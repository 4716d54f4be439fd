"""The forecast's own error, on both databases."""

from datetime import timedelta

import pytest
from sqlalchemy import event, text

from app.db.base import now
from app.services import forecasts
from tests import factories


def test_nothing_was_foretold(database):
    with database.read() as session:
        assert forecasts.errors(session) == forecasts.Errors(0, 0, None, None, None)


def test_means_are_those_of_the_last_jobs_and_the_number_of_all(database, monkeypatch):
    monkeypatch.setattr(forecasts, "WINDOW", 3)
    with database.write() as session:
        for age, found in ((5, 0.1), (4, 0.2), (3, 0.9), (2, 0.6), (1, 0.8)):
            factories.forecast(session, found=found, created_at=now() - timedelta(hours=age))
    with database.read() as session:
        found = forecasts.errors(session)
    assert (found.num_total, found.num_recent) == (5, 3)
    assert found.absolute == pytest.approx((0.1 + 0.2 + 0.0) / 3)
    assert found.bias == pytest.approx((0.1 - 0.2 + 0.0) / 3)
    assert found.inside == pytest.approx(2 / 3)  # 0.9 is a bound, and inside


def test_a_job_that_is_deleted_takes_its_forecast_along(database):
    with database.write() as session:
        job_id = factories.forecast(session).job_id
    with database.write() as session:
        session.execute(text("DELETE FROM job_event"))
        session.execute(text("DELETE FROM job WHERE id = :id"), {"id": job_id})
    with database.read() as session:
        found = forecasts.errors(session)
    assert (found.num_total, found.num_recent) == (1, 0)


def test_the_last_jobs_are_found_by_an_index(database):
    """What is asked must not read all rows: each database says how it would go about it."""
    asked = []
    event.listen(database.engine, "before_cursor_execute", lambda *given: asked.append(given[2:4]))
    with database.read() as session:
        forecasts.errors(session)
        statement, given = next(row for row in asked if "forecast.created_at" in row[0])
        postgres = database.engine.dialect.name == "postgresql"
        if postgres:
            session.execute(text("SET LOCAL enable_seqscan = off"))
            session.execute(text("SET LOCAL enable_sort = off"))
        explain = "EXPLAIN " if postgres else "EXPLAIN QUERY PLAN "
        plan = str(session.connection().exec_driver_sql(explain + statement, given).all())
    assert "ix_forecast_created_at" in plan
    assert "TEMP B-TREE" not in plan
