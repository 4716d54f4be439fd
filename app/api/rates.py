"""How many requests a second a project may send to this process: a bucket that fills as fast as it may be emptied."""

import math
import time
from dataclasses import dataclass

from app.errors import TooMany
from app.services.keys import Caller


@dataclass(slots=True)
class _Bucket:
    left: float
    at: float


class Rates:
    """The buckets of all projects that have a limit. Used on the event loop alone."""

    def __init__(self) -> None:
        self._buckets: dict[str, _Bucket] = {}

    def spend(self, caller: Caller) -> None:
        """Takes one request out of the project's bucket, which holds those of one second, and at least one.

        Raises:
            TooMany: code rate_limited, with the seconds until there is one again.
        """
        rate = caller.max_requests
        if rate is None:
            return
        at, most = time.monotonic(), max(rate, 1.0)
        bucket = self._buckets.setdefault(caller.project, _Bucket(most, at))
        bucket.left, bucket.at = min(most, bucket.left + (at - bucket.at) * rate), at
        if bucket.left < 1:
            raise TooMany(
                f"expected at most {rate:g} requests a second of the project; found more; send it again later",
                code="rate_limited",
                retry_after_seconds=max(1, math.ceil((1 - bucket.left) / rate)),
            )
        bucket.left -= 1
