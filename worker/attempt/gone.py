"""What a job says whose version was deleted beneath it."""

from collections.abc import Mapping
from typing import Any

from app.errors import JobFailure


def version_deleted(side: Mapping[str, Any], until: str, advice: str) -> JobFailure:
    """The failure, to be raised.

    Args:
        side: the version, as the job's inputs name it: `model`, `version`, and `alignment` where it is of a domain.
        until: what it had to stay for.
        advice: what to do without it.
    """
    what = f"version {side['version']} of {side['model']!r}"
    what += " or its domain's alignment" if side.get("alignment") else ""
    return JobFailure(
        "version_deleted",
        f"expected {what} to stay until it was {until}; found that it was deleted meanwhile; {advice}",
    )
