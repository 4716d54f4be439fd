"""What was answered for each version since the service began: counts and times, as the Open Inference Protocol asks.

Several processes of one service add up what they have counted, through a `Board`; the others' part is at most a second
old.
"""

import threading
import time
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import Future
from copy import deepcopy

from pydantic import TypeAdapter

from app import texts
from app.serving.board import Board
from app.serving.call import Result
from app.serving.tally import BUCKETS, Counters, Present, Tally

# Projects, models and codes of refusals that are told apart.
MAX_REFUSED = 2000
OTHERS = ""


_TALLY = TypeAdapter(Tally)


class Statistics:
    """Counters by a version's id. Safe to call from any thread.

    Args:
        present: tells what this process holds.
        board: shared with the service's other processes; none where this is the only one.
        loads: tells how many graphs this process has read into memory.
    """

    def __init__(
        self,
        present: Callable[[], Present] = Present,
        board: Board | None = None,
        loads: Callable[[], int] = int,
    ) -> None:
        self._lock = threading.Lock()
        self._counters: dict[str, Counters] = defaultdict(Counters)
        self._pending: Counter[str] = Counter()
        self._compared: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        self._logged: Counter[str] = Counter()
        self._refused: Counter[tuple[str, str, str]] = Counter()
        self._present, self._board, self._loads = present, board, loads
        if board is not None:
            board.keep(lambda: _TALLY.dump_json(self._own()))

    def watch(self, version_id: str, future: Future[Result], began: float | None = None) -> Future[Result]:
        """Counts a request when it ends, however it does.

        Args:
            version_id: of what is asked.
            future: the engine's.
            began: when it was submitted, by `time.monotonic`: an engine with much to do takes a while to take it in.
                None for now.

        Returns:
            the same future.
        """
        start = time.monotonic() if began is None else began
        with self._lock:
            self._pending[version_id] += 1
        future.add_done_callback(lambda ended: self._ended(version_id, ended, time.monotonic() - start))
        return future

    def compared(self, pair: tuple[str, str], outcome: str, number: int) -> None:
        """Counts images that a shadow was asked for beside a version: `same`, `different`, `dropped` or `failed`.

        Args:
            pair: ids of the version and of the shadow.
            outcome: how it went.
            number: of images.
        """
        with self._lock:
            self._compared[pair][outcome] += number

    def refused(self, project: str, model: str, code: str) -> None:
        """Counts a request that was refused, or not answered in time.

        Args:
            project: whose it was; empty where no key was looked at.
            model: as it was named, which need not be one that there is, nor one that there can be.
            code: of the error.
        """
        if not texts.is_name(model):
            # As long as a message, over gRPC.
            model = OTHERS
        with self._lock:
            if len(self._refused) >= MAX_REFUSED and (project, model, code) not in self._refused:
                # Whoever asks for names that there are not does not take memory for each.
                model = OTHERS
            self._refused[project, model, code] += 1

    def logged(self, outcome: str, number: int) -> None:
        """Counts images that were to be written down by what became of it, as `Logbook` does."""
        with self._lock:
            self._logged[outcome] += number

    def version_ids(self) -> set[str]:
        """Those that this process counts something of."""
        with self._lock:
            return {*self._counters, *(one for pair in self._compared for one in pair)}

    def forget(self, version_ids: set[str]) -> None:
        """Drops what was counted of versions that are not there any more, which nobody can ask for."""
        with self._lock:
            for version_id in version_ids:
                self._counters.pop(version_id, None)
            for pair in [pair for pair in self._compared if not version_ids.isdisjoint(pair)]:
                del self._compared[pair]

    def total(self) -> Tally:
        """Of all processes of the service, at this moment."""
        total = self._own()
        for page in self._board.others() if self._board else ():
            total.add(_TALLY.validate_json(page.data), is_present=page.is_fresh)
        return total

    def close(self) -> None:
        """Tells the others for the last time."""
        if self._board is not None:
            self._board.close()

    def _own(self) -> Tally:
        with self._lock:
            compared: dict[str, dict[str, dict[str, int]]] = defaultdict(dict)
            for (version_id, shadow_id), outcomes in self._compared.items():
                compared[version_id][shadow_id] = dict(outcomes)
            refused: dict[str, dict[str, dict[str, int]]] = defaultdict(lambda: defaultdict(dict))
            for (project, model, code), number in self._refused.items():
                refused[project][model][code] = number
            own = {project: dict(of_models) for project, of_models in refused.items()}
            counters, pending, logged = deepcopy(dict(self._counters)), dict(self._pending), dict(self._logged)
            return Tally(counters, dict(compared), self._present(), pending, self._loads(), logged, own)

    def _ended(self, version_id: str, future: Future[Result], seconds: float) -> None:
        with self._lock:
            self._pending[version_id] -= 1
            if not self._pending[version_id]:
                del self._pending[version_id]
            counters = self._counters[version_id]
            if future.cancelled() or future.exception() is not None:
                counters.fail.add(seconds)
                return
            result = future.result()
            counters.success.add(seconds)
            counters.buckets[bisect_left(BUCKETS, seconds)] += 1
            counters.input_buckets[bisect_left(BUCKETS, result.timing.decode)] += 1
            counters.infer_buckets[bisect_left(BUCKETS, result.timing.compute)] += 1
            counters.queue.add(result.timing.queue)
            counters.compute_input.add(result.timing.decode)
            counters.compute_infer.add(result.timing.compute)
            counters.inference_count += len(result.probabilities_NC)
            counters.execution_count += result.timing.batches
            counters.last_inference_ms = int(time.time() * 1000)
