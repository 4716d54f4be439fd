"""A back-up that cannot be put back whole leaves a database into which it can be; a password opens its database."""

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.exc import OperationalError

from app.db import migration
from app.db.base import new_id
from app.services import backups
from app.storage import FolderStorage


def test_a_restoration_that_is_cut_off_can_be_made_again(sqlite_template, tmp_path, monkeypatch):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "graft.db").write_bytes(sqlite_template.read_bytes())
    kept, storage = tmp_path / "kept", FolderStorage(tmp_path / "storage")
    backups.backup(f"sqlite:///{tmp_path}/home/graft.db", storage, kept)
    target = tmp_path / "restored.db"

    def half(source, place):
        data = Path(source).read_bytes()
        Path(place).write_bytes(data[: len(data) // 2])
        raise OSError("cut off")

    with monkeypatch.context() as cut:
        cut.setattr(shutil, "copyfile", half)
        with pytest.raises(OSError, match="cut off"):
            backups.restore(kept, f"sqlite:///{target}", storage)
    backups.restore(kept, f"sqlite:///{target}", storage)
    with closing(sqlite3.connect(target)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert database.execute("SELECT count(*) FROM alembic_version").fetchone() == (1,)


def test_what_is_not_grafts_or_goes_meanwhile_keeps_nothing_from_being_copied(tmp_path):
    kept, gone = (f"datasets/default/{new_id('ds')}/shard" for _ in range(2))
    storage, there = FolderStorage(tmp_path / "storage"), FolderStorage(tmp_path / "there")
    (tmp_path / "x").write_bytes(b"bytes")
    for key in (kept, gone):
        storage.put(key, tmp_path / "x")
    for name in ("notes.txt", "predictions/notes (old).txt", f"{kept} (2)", "datasets/a b.txt"):
        (tmp_path / "storage" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "storage" / name).write_bytes(b"of somebody else")

    class Emptied(FolderStorage):
        """Loses an object as soon as it was listed."""

        def walk(self):
            listed = list(super().walk())
            self.delete(gone)
            return iter(listed)

    copied = backups.copy(Emptied(tmp_path / "storage"), there, tmp_path)
    assert (copied.objects, [one.key for one in there.walk()]) == (1, [kept])


@pytest.fixture
def guarded(postgres):
    """A role that has to say its password; it may create databases."""
    postgres.run("CREATE ROLE guarded LOGIN CREATEDB PASSWORD 'p@ss: w/rd?'")
    engine = create_engine(postgres.url("postgres"))
    with engine.connect() as connection:
        rules = Path(connection.execute(text("SHOW hba_file")).scalar_one())
    engine.dispose()
    before = rules.read_text()
    rules.write_text(f"local all guarded scram-sha-256\n{before}")
    postgres.run("SELECT pg_reload_conf()")
    yield lambda name: make_url(postgres.url(name)).set(username="guarded", password="p@ss: w/rd?")
    rules.write_text(before)
    postgres.run("SELECT pg_reload_conf()", "DROP ROLE guarded")


@pytest.mark.server
def test_a_password_reaches_the_programs_of_the_database(postgres, guarded, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{postgres.programs}:{os.environ['PATH']}")
    postgres.run("CREATE DATABASE guarded OWNER guarded", "CREATE DATABASE again OWNER guarded")
    try:
        place = guarded("guarded").render_as_string(hide_password=False)
        migration.upgrade(place)
        kept, storage = tmp_path / "kept", FolderStorage(tmp_path / "storage")
        backups.backup(place, storage, kept)
        again = guarded("again").render_as_string(hide_password=False)
        backups.restore(kept, again, storage)
        engine = create_engine(again)
        with engine.connect() as connection:
            assert connection.execute(text("SELECT count(*) FROM alembic_version")).scalar_one() == 1
        engine.dispose()
        with pytest.raises(OperationalError, match="password"):
            create_engine(guarded("again").set(password="other")).connect()
    finally:
        postgres.run("DROP DATABASE guarded WITH (FORCE)", "DROP DATABASE again WITH (FORCE)")
