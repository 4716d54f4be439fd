"""`graft keys create|list|revoke`: keys straight in the database, by whoever runs the service.

A new secret goes to standard output alone and everything else to standard error, so that a script can keep it:
`KEY=$(graft keys create --scopes predict)`.
"""

import argparse
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from app.settings import DEFAULT_PROJECT, Settings

if TYPE_CHECKING:
    from app.db.keys import ApiKey
    from app.db.session import Database

DAYS = range(1, 3651)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verbs and their options."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    create = verbs.add_parser("create", help="make a key; its secret is printed this once")
    create.add_argument(
        "--project", default=DEFAULT_PROJECT, help="whose key it is; made where there is none of that name"
    )
    create.add_argument("--name", default="cli", help="who or what uses it")
    create.add_argument(
        "--scopes", default="read,write,predict,admin", help="of read, write, predict and admin, with commas (all)"
    )
    create.add_argument("--expires-days", type=int, metavar="N", help="days from now; without, it does not expire")
    create.add_argument(
        "--first", action="store_true", help="make none where the project has a key with scope admin already"
    )
    listing = verbs.add_parser("list", help="show keys, newest first, without their secrets")
    listing.add_argument("--project", default=DEFAULT_PROJECT, help="whose keys")
    revoke = verbs.add_parser("revoke", help="end a key for good; all processes know within seconds")
    revoke.add_argument("id", help="key_..., see list")
    revoke.add_argument("--project", default=DEFAULT_PROJECT, help="whose key it is")


def run(settings: Settings, given: argparse.Namespace) -> int:
    """Does what is asked.

    Returns:
        the exit status, as `on_database`.
    """
    return on_database(settings, lambda database: VERBS[given.verb](database, given))


def on_database(settings: Settings, work: Callable[["Database"], int]) -> int:
    """Does something in the database, and says what is wrong instead of a trace.

    Returns:
        the exit status: 2 where the arguments or the database do not fit.
    """
    from sqlalchemy.exc import SQLAlchemyError

    from app.db import refusals
    from app.db.session import Database

    database = Database(settings.resolved_database_url)
    try:
        return work(database)
    except SQLAlchemyError as error:
        said = refusals.first_line(error)
        if refusals.is_unmigrated(error):
            return _refuse(f"expected a migrated database; found: {said}; run `graft migrate` first")
        place = database.engine.url.render_as_string(hide_password=True)
        return _refuse(
            f"expected the database at {place} to do as it was told; found: {said}; see that it runs, and that "
            "GRAFT_DATABASE_URL names it, then try again"
        )
    finally:
        database.dispose()


def _create(database: "Database", given: argparse.Namespace) -> int:
    from app.db.base import now
    from app.services import keys

    scopes = [part.strip() for part in given.scopes.split(",") if part.strip()]
    if not scopes or not set(scopes) <= set(keys.SCOPES):
        return _refuse(f"expected --scopes of {', '.join(keys.SCOPES)}; found {given.scopes!r}")
    if given.expires_days is not None and given.expires_days not in DAYS:
        return _refuse(f"expected --expires-days from {DAYS[0]} to {DAYS[-1]}; found {given.expires_days}")
    expires_at = None if given.expires_days is None else now() + timedelta(days=given.expires_days)
    with database.write() as session:
        keys.open_project(session, given.project)
        if given.first and keys.has_admin(session, given.project):
            _say(f"project {given.project} has a key with scope admin already; none was made")
            return 0
        made = keys.create(session, given.project, given.name, scopes, expires_at)
    _say(f"{made.row.id} of project {given.project}, scopes {', '.join(made.row.scopes)}, {_until(expires_at)}.")
    _say("Keep the secret now; it cannot be shown again:")
    print(made.secret, flush=True)
    return 0


def _list(database: "Database", given: argparse.Namespace) -> int:
    from app.services import keys

    after, more = None, True
    print(f"{'id':<26} {'prefix':<16} {'name':<20} {'scopes':<26} {'last used':<17} state")
    while more:
        with database.read() as session:
            rows, more = keys.page(session, given.project, 100, after)
        for row in rows:
            after = row.id
            print(
                f"{row.id:<26} {row.prefix:<16} {row.name:<20} {','.join(row.scopes):<26} "
                f"{_moment(row.last_used_at):<17} {_state(row)}"
            )
    return 0


def _revoke(database: "Database", given: argparse.Namespace) -> int:
    from app.services import keys

    with database.write() as session:
        row = keys.revoke(session, given.project, given.id)
    _say(f"{row.id} ({row.prefix}) is revoked; every process refuses it within five seconds")
    return 0


def _state(row: "ApiKey") -> str:
    if row.revoked_at is not None:
        return f"revoked {_moment(row.revoked_at)}"
    return _until(row.expires_at)


def _until(expires_at: datetime | None) -> str:
    from app.db.base import now

    if expires_at is None:
        return "does not expire"
    return f"{'expired' if expires_at <= now() else 'expires'} {_moment(expires_at)}"


def _moment(at: datetime | None) -> str:
    return "never" if at is None else f"{at:%Y-%m-%d %H:%M}"


def _refuse(text: str) -> int:
    """Says what was wrong, and with which status the process ends."""
    _say(f"graft: {text}")
    return 2


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


VERBS = {"create": _create, "list": _list, "revoke": _revoke}
