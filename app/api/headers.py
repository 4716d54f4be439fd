"""Headers of a request, looked through once: half a dozen middlewares and readers ask for one or two each."""

import re
from typing import Any

_LENGTH = re.compile("[0-9]{1,20}")
_KNOWN = "graft.headers"


def first(scope: Any, name: bytes) -> str | None:
    """What the first header of that name says; None where there is none.

    Args:
        scope: the request's, with the headers that it came with.
        name: in lower case.
    """
    known = scope.get(_KNOWN)
    if known is None:
        # From the last to the first, which so counts.
        known = scope[_KNOWN] = dict(reversed([*scope["headers"]]))
    found: bytes | None = known.get(name)
    return None if found is None else found.decode("latin-1")


def media_type(scope: Any, name: bytes) -> str:
    """What a header says of a kind, without its parameters and in lower case; empty for none."""
    return (first(scope, name) or "").partition(";")[0].strip().lower()


def body_bytes(scope: Any) -> int | None:
    """Bytes of the request's body, where it says so."""
    found = first(scope, b"content-length") or ""
    return int(found) if _LENGTH.fullmatch(found) else None
