"""A version is tried before an alias means it, and beside another.

A canary answers some of the calls, a shadow is asked too and only compared.
"""

import random
from concurrent.futures import Future

import numpy as np

from app.artifact.spec import BundleError
from app.db.session import Database
from app.errors import Conflict, NotFound, NotReady, Overloaded
from app.services import aliases
from app.services.aliases import Target
from app.services.predictions import Found, Opened
from app.serving.call import Images, Result
from app.serving.engine import Engine
from app.serving.statistics import Statistics


def check(database: Database, opened: Opened, engine: Engine, project: str, name: str, target: Target) -> None:
    """Passes when all that an alias is to mean can be served: it is loaded here, and tried on its sample.

    Outside of the transaction that moves the alias, which keeps others from writing; versions do not change.

    Raises:
        NotFound, Conflict: as `aliases.point`; Conflict with code version_unfit where one cannot be served.
    """
    with database.read() as session:
        rows = aliases.versions(session, project, name, target)
    for row in rows:
        try:
            engine.load(opened.version(row))
        except (BundleError, NotFound, NotReady) as error:
            raise Conflict(
                f"expected a version that can be served; found that version {row.version} of {name!r} cannot: "
                f"{error.detail}; the alias means what it did",
                code="version_unfit",
            ) from error


def chosen(found: Found, images: Images = (), *, tells_features: bool = False) -> Found:
    """Who answers this call: the canary, by its share, or the version itself. Only the version has a shadow.

    Args:
        found: what the call means.
        images: of the call, where they may be pixels, which were made in the size of the version that is meant.
        tells_features: whether the answer has features, which callers compare with those of other answers: a canary
            that sees images with another network gives none.
    """
    canary = found.canary
    if canary is None or not _takes(canary, images) or (tells_features and not _sees_alike(found, canary)):
        return found
    # Not for secrets: any even draw will do.
    return canary if random.random() < found.share else found


def compare(engine: Engine, statistics: Statistics, found: Found, images: Images, answered: Result) -> None:
    """Asks the shadow what has just been answered, and counts on how many images both name the same class.

    Nobody waits for it. Where the engine has other work it is left out, and counted so: a trial must not slow down what
    it is compared with. So it is of pixels in another size than its own.
    """
    if found.shadow is None:
        return
    pair, number = (found.version_id, found.shadow.version_id), len(images)
    if not (engine.is_idle and _takes(found.shadow, images)):
        statistics.compared(pair, "dropped", number)
        return
    try:
        future = engine.submit(found.shadow.model, images, project=found.project)
    except Overloaded:
        statistics.compared(pair, "dropped", number)
        return
    except NotReady:
        statistics.compared(pair, "failed", number)
        return
    future.add_done_callback(lambda ended: _count(statistics, pair, number, answered, ended))


def _takes(found: Found, images: Images) -> bool:
    """Whether images can be asked of a version: files of any, pixels of one whose input has their size."""
    shape = found.model.spec.preprocess
    return not isinstance(images, np.ndarray) or images.shape[1:3] == (shape.height, shape.width)


def _sees_alike(one: Found, other: Found) -> bool:
    """Whether both make the same features of an image."""
    ours, theirs = one.model, other.model
    return ours.backbone.sha256 == theirs.backbone.sha256 and ours.spec.preprocess == theirs.spec.preprocess


def _count(statistics: Statistics, pair: tuple[str, str], number: int, answered: Result, ended: Future[Result]) -> None:
    if ended.cancelled() or ended.exception() is not None:
        statistics.compared(pair, "failed", number)
        return
    same = answered.probabilities_NC.argmax(1) == ended.result().probabilities_NC.argmax(1)
    statistics.compared(pair, "same", int(np.count_nonzero(same)))
    statistics.compared(pair, "different", int(np.count_nonzero(~same)))
