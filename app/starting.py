"""What must be right before anything runs: settings, home and database; what is not is said in one line."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import ValidationError

from app.errors import BadRequest, Conflict
from app.settings import Settings

LOCK = "up.lock"


def settings() -> Settings:
    """From the environment.

    Raises:
        BadRequest: a value does not fit its setting.
    """
    try:
        return Settings()
    except ValidationError as error:
        raise BadRequest(
            f"expected settings that can be used; found {'; '.join(map(_problem, error.errors()))}; see "
            "docs/settings.md"
        ) from error


def _problem(one: Any) -> str:
    """Which setting, and what is wrong; addresses may hold a password, and are not shown."""
    if not one["loc"]:
        return str(one["msg"])
    name = f"GRAFT_{one['loc'][0]}".upper()
    shown = "" if "://" in str(one["input"]) else f"={one['input']}"
    return f"{name}{shown}: {str(one['msg']).removeprefix('Value error, ')}"


def make_home(given: Settings) -> None:
    """Makes the folder that everything is in.

    Raises:
        BadRequest: it cannot be made or written to.
    """
    home = given.home_path
    try:
        home.mkdir(parents=True, exist_ok=True)
        (home / LOCK).touch()
    except OSError as error:
        raise BadRequest(
            f"expected a folder that can be written to as GRAFT_HOME; found {home}: {error.strerror}; name another one"
        ) from error


@contextmanager
def only_manager(given: Settings) -> Iterator[None]:
    """Keeps a second `graft up` out of the home for as long as this one runs, however it ends.

    Raises:
        Conflict: there is one.
    """
    with (given.home_path / LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Conflict(
                f"expected one `graft up` in {given.home_path}; found another one that runs there; end it, or name "
                "another GRAFT_HOME"
            ) from error
        yield


def upgrade(given: Settings) -> None:
    """Brings the database to this version's tables.

    Raises:
        BadRequest: it cannot be reached.
    """
    from sqlalchemy import make_url
    from sqlalchemy.exc import OperationalError

    from app.db import migration

    url = given.resolved_database_url
    try:
        migration.upgrade(url)
    except OperationalError as error:
        shown = make_url(url).render_as_string(hide_password=True)
        raise BadRequest(
            f"expected a database that answers at {shown}; found: {str(error.orig).strip()}; start it, or set "
            "GRAFT_DATABASE_URL"
        ) from error
