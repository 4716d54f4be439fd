"""A back-up that cannot be put back whole leaves a database into which it can be; a password opens its database.

What nothing has migrated is neither kept, in the place of what was, nor brought back.
"""

import os
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect, make_url, text
from sqlalchemy.exc import OperationalError

from app import cli
from app.db import migration
from app.db.base import new_id
from app.errors import BadRequest
from app.services import backups
from app.storage import FolderStorage
from tests import factories


@pytest.fixture
def home_url(sqlite_template, tmp_path):
    """Of a migrated database in a home of its own."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "graft.db").write_bytes(sqlite_template.read_bytes())
    return f"sqlite:///{tmp_path}/home/graft.db"


def test_a_restoration_that_is_cut_off_can_be_made_again(home_url, tmp_path, monkeypatch):
    kept, storage = tmp_path / "kept", FolderStorage(tmp_path / "storage")
    backups.backup(home_url, storage, kept)
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


def test_what_a_run_that_was_killed_had_on_its_way_goes(home_url, tmp_path):
    kept = tmp_path / "kept"
    kept.mkdir()
    old, new = kept / f"{backups.PASSING}old", kept / f"{backups.PASSING}new"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    backups.backup(home_url, FolderStorage(tmp_path / "storage"), kept)
    assert new.exists()
    assert not old.exists()


def test_where_no_back_up_can_be(home_url, tmp_path):
    (tmp_path / "file").write_bytes(b"somebody else's")
    storage = FolderStorage(tmp_path / "home" / "storage")
    for place, words in (("file", "can be made"), ("file/in", "can be made"), ("home/storage/kept", "outside")):
        with pytest.raises(BadRequest, match=words):
            backups.backup(home_url, storage, tmp_path / place)
    with pytest.raises(BadRequest, match="outside"):
        backups.backup(home_url, storage, tmp_path / "home" / "storage")
    assert (tmp_path / "file").read_bytes() == b"somebody else's"
    assert not (tmp_path / "home" / "storage").exists()


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


@pytest.fixture
def programs(database_kind, request, monkeypatch):
    """Those of the server's version are the ones on PATH."""
    if database_kind == "postgresql":
        folder = request.getfixturevalue("postgres").programs
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


@pytest.fixture
def elsewhere(database_kind, empty_database_url, tmp_path, monkeypatch):
    """The command's GRAFT_HOME, which nobody has made, and with it a database that nothing has migrated."""
    home = tmp_path / "typo"
    monkeypatch.setenv("GRAFT_HOME", str(home))
    if database_kind == "postgresql":
        monkeypatch.setenv("GRAFT_DATABASE_URL", empty_database_url)
    return home


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("programs")
def test_what_nothing_has_migrated_takes_no_back_ups_place(database_url, storage, elsewhere, tmp_path, capsys):
    kept = tmp_path / "kept"
    backups.backup(database_url, storage, kept)
    before = contents(kept)
    for target in (kept, tmp_path / "new"):
        assert cli.main(["backup", str(target)]) == 2
        said = capsys.readouterr().err
        assert said.startswith("graft: expected a migrated database at ")
        assert "run `graft migrate` first" in said
    assert contents(kept) == before
    assert not (tmp_path / "new").exists()
    assert not elsewhere.exists()


@pytest.mark.usefixtures("programs")
def test_rows_whose_objects_are_elsewhere_take_no_back_ups_place(database, database_url, storage, tmp_path):
    with database.write() as session:
        factories.dataset(session)
    (tmp_path / "x").write_bytes(b"bytes")
    storage.put(f"datasets/default/{new_id('ds')}/shard", tmp_path / "x")
    kept = tmp_path / "kept"
    backups.backup(database_url, storage, kept)
    before = contents(kept)
    with pytest.raises(BadRequest, match="the objects of 1 datasets and versions in storage; found none; name the"):
        backups.backup(database_url, FolderStorage(tmp_path / "elsewhere"), kept)
    assert contents(kept) == before


def test_what_is_no_database_of_grafts_is_left_as_it_is(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("GRAFT_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    for given in (None, b"", b"no database at all"):
        if given is not None:
            (tmp_path / "home" / "graft.db").write_bytes(given)
        before = contents(tmp_path)
        assert cli.main(["backup", str(tmp_path / "kept")]) == 2
        assert "expected a migrated database at " in capsys.readouterr().err
        assert contents(tmp_path) == before
        assert not (tmp_path / "kept").exists()


@pytest.mark.usefixtures("programs", "elsewhere")
def test_a_dump_of_what_nothing_has_migrated_is_not_brought_back(database_kind, empty_database_url, tmp_path, capsys):
    kept = tmp_path / "kept"
    kept.mkdir()
    if database_kind == "postgresql":
        place = make_url(empty_database_url).set(drivername="postgresql").render_as_string()
        subprocess.run(["pg_dump", place, "--format=custom", f"--file={kept}/graft.dump"], check=True)
    else:
        with closing(sqlite3.connect(kept / "graft.db")) as database:
            database.execute("VACUUM")
    before = contents(kept)
    assert cli.main(["restore", str(kept)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("graft: expected a back-up of a migrated database in ")
    assert "name the folder of another back-up" in said
    assert contents(kept) == before
    engine = create_engine(empty_database_url)
    assert inspect(engine).get_table_names() == []
    engine.dispose()


@pytest.mark.usefixtures("programs", "elsewhere")
def test_a_dump_that_is_none_is_not_brought_back(database_kind, tmp_path, capsys):
    name = "graft.dump" if database_kind == "postgresql" else "graft.db"
    (tmp_path / name).write_bytes(b"no dump at all")
    assert cli.main(["restore", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("graft: expected ")
