"""A version is tried beside another: a canary answers some of the calls, a shadow is asked too and only compared."""

import random
from concurrent.futures import Future

import numpy as np

from app.errors import Overloaded
from app.services.predictions import Found
from app.serving.call import Images, Result
from app.serving.engine import Engine
from app.serving.statistics import Statistics


def chosen(found: Found) -> Found:
    """Who answers this call: the canary, by its share, or the version itself. Only the version has a shadow."""
    # Not for secrets: any even draw will do.
    if found.canary is not None and random.random() < found.share:
        return found.canary
    return found


def compare(engine: Engine, statistics: Statistics, found: Found, images: Images, answered: Result) -> None:
    """Asks the shadow what has just been answered, and counts on how many images both name the same class.

    Nobody waits for it. Where the engine has other work it is left out, and counted so: a trial must not slow down what
    it is compared with.
    """
    if found.shadow is None:
        return
    pair, number = (found.version_id, found.shadow.version_id), len(images)
    if not engine.is_idle:
        statistics.compared(pair, "dropped", number)
        return
    try:
        future = engine.submit(found.shadow.model, images)
    except Overloaded:
        statistics.compared(pair, "dropped", number)
        return
    future.add_done_callback(lambda ended: _count(statistics, pair, number, answered, ended))


def _count(statistics: Statistics, pair: tuple[str, str], number: int, answered: Result, ended: Future[Result]) -> None:
    if ended.cancelled() or ended.exception() is not None:
        statistics.compared(pair, "failed", number)
        return
    same = answered.probabilities_NC.argmax(1) == ended.result().probabilities_NC.argmax(1)
    statistics.compared(pair, "same", int(np.count_nonzero(same)))
    statistics.compared(pair, "different", int(np.count_nonzero(~same)))
