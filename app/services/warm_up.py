"""What a process holds in memory follows the registry: what aliases mean comes in by itself, what was deleted leaves.

Versions that aliases mean are loaded and tried before the process says that it is ready, and when an alias moves, so
that their first call finds them. Other versions are loaded by their first call, or by `load`.
"""

import logging
import threading
import time
from collections.abc import Iterator

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from app.db.aliases import Alias
from app.db.models import Model
from app.db.session import Database
from app.errors import GraftError
from app.services import models
from app.services.predictions import Lookup, Wanted
from app.serving.engine import Engine
from app.serving.model import Served
from app.serving.statistics import Statistics

log = logging.getLogger(__name__)

# After which aliases are looked at again, if anything was committed meanwhile.
PERIOD_SECONDS = 1.0
# After which deleted versions are looked for, if anything was committed meanwhile.
DROP_SECONDS = 60.0


class WarmUp:
    """One process's loading ahead; nothing happens before `start`.

    Args:
        database: that the registry is in.
        lookup: what aliases mean.
        engine: that is to serve them.
        statistics: of what was asked of them.
        period_seconds: after which aliases are looked at again.
        drop_seconds: after which deleted versions are.
    """

    def __init__(
        self,
        database: Database,
        lookup: Lookup,
        engine: Engine,
        statistics: Statistics,
        period_seconds: float = PERIOD_SECONDS,
        drop_seconds: float = DROP_SECONDS,
    ) -> None:
        self._database, self._lookup, self._engine, self._statistics = database, lookup, engine, statistics
        self._period_seconds, self._drop_seconds = period_seconds, drop_seconds
        self._ended, self._done = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def is_under_way(self) -> bool:
        """Whether what was served when the process began is still being loaded."""
        return self._thread is not None and not self._done.is_set()

    def start(self) -> None:
        """Begins to load, in a thread of its own."""
        self._thread = threading.Thread(target=self._work, name="warm-up", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the thread, at the end of the load that it is in."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def _work(self) -> None:
        seen = dropped_under = None
        due = time.monotonic() + self._drop_seconds
        while True:
            try:
                stamp = self._database.stamp()
                if stamp != seen:
                    self._load_all()
                seen = stamp
                self._done.set()
                if stamp != dropped_under and time.monotonic() >= due:
                    self._drop_deleted()
                    dropped_under, due = stamp, time.monotonic() + self._drop_seconds
            except SQLAlchemyError as error:
                log.warning("aliases cannot be looked up: %s", error)
            except Exception:
                # Without this thread the process would never be ready, and no alias that moves would be loaded.
                log.exception("memory does not follow the registry, trying again in %g s", self._period_seconds)
            if self._ended.wait(self._period_seconds):
                return

    def _load_all(self) -> None:
        """Loads what has never been tried here. What was unloaded since stays out, and so does what has no room."""
        num_evictions = self._engine.pool.stats().num_evictions
        for words, model in self._served():
            if self._ended.is_set() or self._engine.pool.stats().num_evictions > num_evictions:
                return
            if self._engine.trials.passed(model) or self._engine.trials.failure(model) is not None:
                continue
            try:
                self._engine.load(model)
            except Exception:  # (one that fails, in whatever way, keeps none of the others from being loaded)
                log.exception("%s is not ready", words)

    def _drop_deleted(self) -> None:
        """Takes deleted versions out of memory: idle graphs would fill the pool up to its budget, counts know none."""
        held = self._lookup.opened_ids() | self._statistics.version_ids()
        gone = held - models.published(self._database, held)
        for digest in self._lookup.forget(gone):
            self._engine.unload(digest)
        self._statistics.forget(gone)

    def _served(self) -> Iterator[tuple[str, Served]]:
        """What aliases mean, canaries and shadows included."""
        with self._database.read() as session:
            query = select(Model.project_id, Model.name, Alias.alias).join(Alias, Alias.model_id == Model.id)
            rows = session.execute(query.order_by(Model.name, Alias.alias)).all()
        for project, name, alias in rows:
            try:
                found = self._lookup.find(project, Wanted(name, alias=alias))
            except GraftError as error:
                log.warning("alias %s of %s cannot be served: %s", alias, name, error.detail)
                continue
            except SQLAlchemyError:
                raise
            except Exception:
                # Storage has errors of its own kinds.
                log.exception("alias %s of %s cannot be served", alias, name)
                continue
            for one in (found, found.canary, found.shadow):
                if one is not None:
                    yield f"version {one.version} of {name}", one.model
