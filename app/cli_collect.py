"""`graft collect`: what lies in storage and no row refers to; shown, and with `--remove` removed."""

import argparse
import sys
from datetime import timedelta
from typing import TYPE_CHECKING

from app.cli_keys import on_database
from app.settings import Settings

if TYPE_CHECKING:
    from app.db.session import Database
    from app.services.collector import Report, What
    from app.storage import Stored


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    doing = parser.add_mutually_exclusive_group()
    doing.add_argument("--dry-run", action="store_true", help="only show it (the default)")
    doing.add_argument("--remove", action="store_true", help="remove it")
    parser.add_argument(
        "--older-than",
        type=_seconds,
        metavar="SECONDS",
        help="leave what came later than that many seconds ago (default: GRAFT_COLLECT_GRACE_SECONDS); less than the "
        "longest upload takes is safe only while nothing runs",
    )
    parser.add_argument("--quiet", action="store_true", help="show the sums alone")


def run(settings: Settings, given: argparse.Namespace) -> int:
    """Does what is asked.

    Returns:
        the exit status, as `on_database`.
    """
    return on_database(settings, lambda database: _collect(settings, database, given))


def _collect(settings: Settings, database: "Database", given: argparse.Namespace) -> int:
    from app import failpoints
    from app.db.base import now
    from app.inbox import open_inbox
    from app.services import collections
    from app.services.collector import Collector, carry_out
    from app.storage import open_storage

    def told(stored: "Stored", what: "What") -> None:
        if not given.quiet:
            print(f"{what:<10} {stored.size_bytes:>14} {stored.key}")

    grace = settings.collect_grace_seconds if given.older_than is None else given.older_than
    storage = open_storage(settings.resolved_storage_url, settings.home_path / "cache")
    with database.write() as session:
        collection_id = collections.begin(session, removes=given.remove)
    failpoints.reach("collection_asked")
    collector = Collector(
        database,
        storage,
        open_inbox(storage),
        settings.scratch,
        now() - timedelta(seconds=grace),
        removes=given.remove,
        told=told,
        max_removed=sys.maxsize,
    )
    _show(carry_out(database, collector, collection_id), given.remove)
    return 0


def _show(report: "Report", removed: bool) -> None:
    """The sums: to standard error, so that the list can be piped on."""
    rows = {
        "seen": report.seen,
        "removed" if removed else "would be removed": report.removed,
        "features rewritten" if removed else "features that would be rewritten": report.rewritten,
        "too young to tell": report.young,
        "not Graft's, left alone": report.foreign,
    }
    for what, count in rows.items():
        print(f"{count.objects:>12} objects {count.size_bytes:>16} bytes  {what}", file=sys.stderr)
    if not removed and report.removed.objects:
        print("nothing was removed: run it with --remove", file=sys.stderr)


def _seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < 1e9:
        raise argparse.ArgumentTypeError(
            f"expected seconds, a number from 0 and below a billion; found {text!r}; leave it out for "
            "GRAFT_COLLECT_GRACE_SECONDS"
        )
    return number
