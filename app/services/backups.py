"""Back-ups: a folder with a dump of the database and a copy of storage, and the way back into an empty service.

Objects are copied, then the database is dumped, then the objects that came meanwhile are copied: a dump names nothing
that is missing, unless it came and was deleted again during the last step. Nobody has to stop for it.
"""

import os
import shutil
import sqlite3
import subprocess
import tempfile
import time
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import URL, inspect, make_url, text
from sqlalchemy.exc import SQLAlchemyError

from app.db.session import Database
from app.errors import BadRequest, Conflict, NotFound
from app.inbox import open_inbox
from app.services import references
from app.storage import FolderStorage, Storage, is_key

SQLITE, POSTGRESQL = "graft.db", "graft.dump"
OBJECTS = "storage"
# An object on its way, beside them; after this time nobody brings it any more.
PASSING, PASSING_SECONDS = "passing-", 86400
# The table that a migration writes its revision into: every database of Graft's has it, of whatever release.
REVISIONS = "alembic_version"
REVISION = f"SELECT count(*) FROM {REVISIONS}"
# Rows that have objects, in every release.
STORED = "SELECT (SELECT count(*) FROM model_version) + (SELECT count(*) FROM dataset WHERE state = 'ready')"


@dataclass
class Copied:
    """Objects that were copied, and those that were there already."""

    objects: int = 0
    size_bytes: int = 0
    present: int = 0


def backup(url: str, storage: Storage, folder: Path) -> Copied:
    """Makes a back-up; into the folder of an earlier one only what came since is copied.

    Args:
        url: of the database, for SQLAlchemy.
        storage: with the objects.
        folder: made where it is missing.

    Raises:
        BadRequest: nothing has migrated the database, and nothing is made; the folder cannot be made, or lies in the
            storage; the storage is another service's, or none; or `pg_dump` is not here, or cannot do it.
    """
    _check_migrated(url)
    _check_outside(storage, folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        there = FolderStorage(folder / OBJECTS)
    except OSError as error:
        raise BadRequest(f"expected a folder that can be made for the back-up; found {error}; name another") from error
    _clear(folder)
    copied = copy(storage, there, folder)
    if not copied.objects + copied.present:
        _check_empty(url)
    _dump(make_url(url), folder)
    later = copy(storage, there, folder)
    return Copied(copied.objects + later.objects, copied.size_bytes + later.size_bytes, copied.present)


def _clear(folder: Path) -> None:
    """Removes what a run that was killed had on its way; another one may be under way, so only what is old."""
    for left in folder.glob(f"{PASSING}*"):
        with suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime > PASSING_SECONDS:
                left.unlink()


def restore(folder: Path, url: str, storage: Storage) -> Copied:
    """Fills an empty service: objects first, so that no row names what is missing.

    Args:
        folder: of a back-up.
        url: of an empty database.
        storage: what is there stays, and is taken for the same.

    Raises:
        NotFound: there is no back-up of such a database.
        Conflict: the database has tables already.
        BadRequest: the dump is of what nothing had migrated; or `pg_restore` is not here, or cannot do it.
    """
    place = make_url(url)
    dump = folder / (SQLITE if _is_sqlite(place) else POSTGRESQL)
    if not dump.is_file():
        raise NotFound(
            f"expected a back-up of {place.get_backend_name()} in {folder}; found no {dump.name}; name the folder that "
            "`graft backup` was given"
        )
    _check_dump(dump, place)
    database = Database(url)
    try:
        tables = inspect(database.engine).get_table_names()
    finally:
        database.dispose()
    if tables:
        raise Conflict(
            f"expected an empty database; found one with {len(tables)} tables; name another one in GRAFT_DATABASE_URL "
            "or GRAFT_HOME"
        )
    copied = copy(FolderStorage(folder / OBJECTS), storage, folder)
    _load(dump, place)
    return copied


def copy(source: Storage, target: Storage, passing: Path) -> Copied:
    """Copies objects that the target lacks; they never change, so what is there is the same.

    Args:
        source: of the objects.
        target: their new place.
        passing: folder for one of them at a time, where they come from an object store.
    """
    copied, inbox = Copied(), open_inbox(source)
    for stored in source.walk():
        # What somebody else has put there is not Graft's to keep.
        if stored.unfinished or references.place(stored.key) is None or not is_key(stored.key):
            continue
        found = target.stat(stored.key)
        if found is not None and found.size_bytes == stored.size_bytes:
            copied.present += 1
            continue
        try:
            if isinstance(source, FolderStorage):
                target.put(stored.key, source.fetch(stored.key))
            else:
                # Not by the cache of local copies, which would get all of it.
                with tempfile.NamedTemporaryFile(dir=passing, prefix=PASSING) as file:
                    file.writelines(inbox.read(stored.key))
                    file.flush()
                    target.put(stored.key, Path(file.name))
        except (NotFound, FileNotFoundError):
            # Deleted since it was listed.
            continue
        copied.objects += 1
        copied.size_bytes += stored.size_bytes
    return copied


def _check_outside(storage: Storage, folder: Path) -> None:
    """Refuses to copy a storage into itself.

    Raises:
        BadRequest: see above.
    """
    root = storage.root.resolve() if isinstance(storage, FolderStorage) else None
    if root is not None and folder.resolve().is_relative_to(root):
        raise BadRequest(f"expected a folder outside of the storage {root}; found {folder}; name another")


def _check_migrated(url: str) -> None:
    """Before an empty database, of a mistyped GRAFT_HOME for one, takes the place of a good back-up.

    Raises:
        BadRequest: nothing has migrated it, or it cannot be asked.
    """
    place = make_url(url)
    try:
        _ask(url, REVISION)
    except (sqlite3.Error, SQLAlchemyError) as error:
        found = str(getattr(error, "orig", error)).partition("\n")[0]
        raise BadRequest(
            f"expected a migrated database at {place.render_as_string(hide_password=True)}; found: {found}; run `graft "
            "migrate` first, or name the service's own GRAFT_HOME or GRAFT_DATABASE_URL"
        ) from error


def _check_dump(dump: Path, place: URL) -> None:
    """Before anything is restored of a dump that has nothing.

    Raises:
        BadRequest: what was dumped had not been migrated; or `pg_restore` is not here, or cannot read the dump.
    """
    found = ""
    if _is_sqlite(place):
        try:
            # Which never changes: no lock is taken, and its folder need not be writable.
            _ask_file(dump, REVISION, "immutable=1")
        except sqlite3.Error as error:
            found = str(error)
    elif f" {REVISIONS} " not in _postgres("pg_restore", place, "--list", str(dump)):
        found = f"no table {REVISIONS}"
    if found:
        raise BadRequest(
            f"expected a back-up of a migrated database in {dump}; found: {found}; name the folder of another back-up"
        )


def _check_empty(url: str) -> None:
    """Where the storage has nothing: before rows take a back-up's place whose objects are elsewhere.

    Raises:
        BadRequest: the database names objects.
    """
    if number := _ask(url, STORED):
        raise BadRequest(
            f"expected the objects of {number} datasets and versions in storage; found none; name the service's own "
            "GRAFT_HOME or GRAFT_STORAGE_URL"
        )


def _ask(url: str, statement: str) -> int:
    """The number that a database answers; no file of SQLite is made where there is none.

    Raises:
        sqlite3.Error, SQLAlchemyError: it is away, or has no such table.
    """
    place = make_url(url)
    if _is_sqlite(place):
        return _ask_file(Path(str(place.database)), statement, "mode=rw")
    database = Database(url)
    try:
        with database.read() as session:
            return int(session.execute(text(statement)).scalar_one())
    finally:
        database.dispose()


def _ask_file(file: Path, statement: str, how: str) -> int:
    """The number that a file of SQLite answers.

    Raises:
        sqlite3.Error: there is no file, no such table, or no database in it.
    """
    with closing(sqlite3.connect(f"{file.resolve().as_uri()}?{how}", uri=True)) as connection:
        return int(connection.execute(statement).fetchone()[0])


def _dump(place: URL, folder: Path) -> None:
    """Whole or not at all, in the place of an earlier one."""
    name = SQLITE if _is_sqlite(place) else POSTGRESQL
    part = folder / f"{name}.part"
    part.unlink(missing_ok=True)
    if _is_sqlite(place):
        with closing(sqlite3.connect(str(place.database))) as source, closing(sqlite3.connect(part)) as target:
            source.backup(target)
    else:
        _postgres("pg_dump", place, "--format=custom", "--no-owner", "--no-privileges", f"--file={part}")
    part.replace(folder / name)


def _load(dump: Path, place: URL) -> None:
    if _is_sqlite(place):
        target = Path(str(place.database))
        part = target.with_name(f"{target.name}.part")
        shutil.copyfile(dump, part)
        # The look at its tables has made an empty one; a whole one takes its place, whenever this is cut off.
        part.replace(target)
        return
    _postgres(
        "pg_restore", place, "--no-owner", "--no-privileges", "--exit-on-error", "--single-transaction", str(dump)
    )


def _postgres(tool: str, place: URL, *arguments: str) -> str:
    """What a program of PostgreSQL's own says; the password is not shown in the list of processes.

    Raises:
        BadRequest: it is not here, or it fails.
    """
    found = shutil.which(tool)
    if found is None:
        raise BadRequest(f"expected {tool} on PATH; found none; install PostgreSQL's client of the server's version")
    # Not by `set`, which takes None for no value; a password in the address counts more than the environment's.
    plain = URL.create("postgresql", place.username, None, place.host, place.port, place.database, place.query)
    command = [found, f"--dbname={plain.render_as_string()}", *arguments]
    environment = {**os.environ, **({"PGPASSWORD": str(place.password)} if place.password else {})}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BadRequest(f"expected {tool} to work; found status {done.returncode}: {done.stderr.strip()[-500:]}")
    return done.stdout


def _is_sqlite(place: URL) -> bool:
    return place.get_backend_name() == "sqlite"
