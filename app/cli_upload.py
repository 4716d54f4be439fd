"""`graft upload FILE`: a large file to a running service, over a connection that may break."""

import argparse
import json
import os
import sys
import time
from pathlib import Path

from app.settings import Settings

SHOW_SECONDS = 1.0
KEY = "GRAFT_KEY"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The file and its options."""
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.add_argument("--name", help="make a dataset of that name of it")
    parser.add_argument("--resume", metavar="ID", help="go on with an upload of this file that was begun before")
    parser.add_argument(
        "--url", help=f"of the service; by default that of GRAFT_HOST and GRAFT_PORT; {KEY} holds the API key"
    )


def run(settings: Settings, given: argparse.Namespace) -> int:
    """Sends the file, and prints what it has become as JSON.

    Returns:
        the exit status.
    """
    import httpx

    from app.client import ApiError, Client

    if not given.file.is_file():
        print(f"graft: expected a file; found none at {given.file}", file=sys.stderr)
        return 2
    try:
        with Client(given.url or f"http://{settings.host}:{settings.port}", key=os.environ.get(KEY)) as graft:
            made = graft.upload(given.file, resume=given.resume, on_sent=_Show())
            if given.name is not None:
                made = graft.dataset_of_upload(made["id"], given.name)
    except (ApiError, httpx.TransportError) as error:
        print(f"graft: {error or type(error).__name__}", file=sys.stderr)
        return 1
    print(json.dumps(made, indent=2))
    return 0


class _Show:
    """Says how far it is, but not too often."""

    def __init__(self) -> None:
        self._next = time.monotonic() + SHOW_SECONDS

    def __call__(self, sent: int, size: int) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + SHOW_SECONDS
            print(f"{sent / 1e6:.1f} of {size / 1e6:.1f} MB", file=sys.stderr, flush=True)
