"""`graft projects list|limit`: what each project may have, straight in the database."""

import argparse
from dataclasses import fields
from typing import TYPE_CHECKING

from app.cli_keys import on_database
from app.settings import Settings

if TYPE_CHECKING:
    from app.db.session import Database

# What every database holds as a whole number.
MOST_DIGITS = 19


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verbs and their options."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    verbs.add_parser("list", help="show all projects and their limits")
    summary = "set all limits of a project; one that is not named is taken away"
    limit = verbs.add_parser("limit", help=summary, description=summary)
    limit.add_argument("project")
    limit.add_argument("--max-bytes", type=_positive, metavar="N", help="of all that it stores")
    limit.add_argument("--max-jobs", type=_positive, metavar="N", help="queued and running together")
    limit.add_argument("--max-requests", type=_rate, metavar="R", help="a second, of each process that answers")
    limit.add_argument("--max-gpu-seconds", type=_positive, metavar="N", help="of its jobs on GPUs, of a day (UTC)")


def run(settings: Settings, given: argparse.Namespace) -> int:
    """Does what is asked.

    Returns:
        the exit status, as `on_database`.
    """
    return on_database(settings, lambda database: VERBS[given.verb](database, given))


def _list(database: "Database", _given: argparse.Namespace) -> int:
    from app.services import gpu_use, limits

    with database.read() as session:
        rows = limits.every(session)
        used = gpu_use.of_all(session)
    print(f"{'project':<40} {'bytes':>16} {'jobs':>8} {'requests/s':>10} {'GPU s/day':>10} {'used':>8}")
    for name, found in rows:
        shown = ["-" if one is None else f"{one:g}" for one in (found.max_jobs, found.max_requests)]
        size, gpu = ("-" if one is None else str(one) for one in (found.max_bytes, found.max_gpu_seconds))
        print(f"{name:<40} {size:>16} {shown[0]:>8} {shown[1]:>10} {gpu:>10} {used.get(name, 0):>8.0f}")
    return 0


def _limit(database: "Database", given: argparse.Namespace) -> int:
    from app.services import limits

    with database.write() as session:
        limits.put(
            session,
            given.project,
            limits.Limits(**{field.name: getattr(given, field.name) for field in fields(limits.Limits)}),
        )
    return 0


def _positive(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() and len(text) < MOST_DIGITS else 0
    if not number:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1; found {text!r}; leave it out for no limit")
    return number


def _rate(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < 1e6:
        raise argparse.ArgumentTypeError(
            f"expected a number above 0 and below a million; found {text!r}; leave it out for no limit"
        )
    return number


VERBS = {"list": _list, "limit": _limit}
