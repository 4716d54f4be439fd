"""Connections of a database that is closed."""

import threading

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError


def test_one_that_a_thread_still_uses_is_closed_when_it_is_given_back(database):
    """Else it stays open for as long as anything leads to it."""
    reads, goes_on = threading.Event(), threading.Event()
    used = []

    def read() -> None:
        with database.read() as asked:
            asked.execute(text("SELECT 1"))
            used.append(asked.connection().connection.driver_connection)
            reads.set()
            assert goes_on.wait(10)

    thread = threading.Thread(target=read)
    thread.start()
    assert reads.wait(10)
    database.dispose()
    used[0].cursor().execute("SELECT 1")
    goes_on.set()
    thread.join()
    with pytest.raises(database.engine.dialect.loaded_dbapi.Error, match="closed"):
        used[0].cursor().execute("SELECT 1")


def test_an_error_does_not_tell_what_a_statement_was_given(database):
    """It is logged, and a webhook's secret may be among it."""
    with pytest.raises(DBAPIError) as told, database.read() as asked:
        asked.execute(text("SELECT nothing FROM nowhere WHERE secret = :secret"), {"secret": "whsec_1"})
    assert "whsec" not in str(told.value)
