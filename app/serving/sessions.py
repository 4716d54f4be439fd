"""The loaded graphs of one process: which of a version's are there, what is run on them, and what was tried.

Shape legend: N images, H x W pixels, D features, C classes.
"""

import threading
from contextlib import AbstractContextManager

import numpy as np
from numpy.typing import NDArray

from app.artifact.spec import BundleError
from app.errors import NotReady
from app.serving import providers
from app.serving.call import Pixels
from app.serving.model import Graph, Served
from app.serving.pool import Pool
from app.serving.runtime import Session, failures
from app.serving.trial import Trials

# Graphs that are loaded at once for calls, beside what runs, and as many because they were asked for by name: each may
# exceed the budget until it has been run.
NUM_LOADERS = 4


class Sessions:
    """Safe to use from any thread.

    Args:
        pool_bytes: what loaded graphs that nobody uses may hold together.
        num_threads: of a session for an image that is alone.
    """

    def __init__(self, pool_bytes: int, num_threads: int) -> None:
        self.pool: Pool[Session] = Pool(pool_bytes)
        self.trials = Trials()
        self._num_threads = num_threads
        self._loading = threading.BoundedSemaphore(NUM_LOADERS)

    def missing(self, model: Served, threads: int) -> str | None:
        """What has to be loaded or tried before the version answers at once; None when nothing has.

        Args:
            model: the version.
            threads: of the backbone's session.
        """
        found: dict[str, Session] = {}
        for graph in model.graphs:
            key = self._key(graph, threads if graph is model.backbone else 1)
            session = self.pool.peek(key)
            if session is None:
                return key
            found[graph.sha256] = session
        pair = found[model.backbone.sha256], found[model.head.sha256]
        return None if self.trials.known(model, *pair) else "/".join(model.key)

    def lease(self, graph: Graph, threads: int = 1, number: int = 1) -> AbstractContextManager[Session]:
        """The graph's session, loaded if it is not there.

        Args:
            graph: what is to be run.
            threads: of one run.
            number: of images that it is to be run on.

        Raises:
            BundleError: it cannot be loaded.
        """
        key = self._key(graph, threads)
        return self.pool.lease(key, lambda: graph.open(int(key.rpartition("/")[2])), number, graph.place)

    def features(self, model: Served, backbone: Session, pixels_NHWC: Pixels) -> NDArray[np.float32]:
        """What a version's backbone says, [N, D].

        Raises:
            BundleError: it does not run, and no version has passed on it: its file is at fault.
        """
        try:
            return backbone.run(pixels_NHWC)[backbone.output_names.index("features")]
        except failures() as error:
            if self.trials.trusted(backbone):
                # There may be no memory for it at this moment.
                raise
            self.unload(model.backbone.sha256)
            raise BundleError(f"expected a backbone that runs here; found {error}") from error

    def head(
        self, model: Served, backbone: Session, features_ND: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Probabilities [N, C], and the features [N, D] that the head saw; from graphs that have passed their trial.

        Raises:
            NotReady: they have not, or cannot be loaded.
        """
        try:
            with self.lease(model.head) as head:
                self._try(model, backbone, head)
                if model.alignment is not None:
                    with self.lease(model.alignment) as session:
                        features_ND = session.run(features_ND)[0]
                return head.run(features_ND)[head.output_names.index("probabilities")], features_ND
        except BundleError as error:
            model.read_anew(backbone=False)
            raise self.trials.failed(model, str(error)) from error

    def load(self, model: Served) -> None:
        """Brings a version's graphs into memory, for batches and for an image alone; runs them, and tries them.

        Raises:
            NotReady: they cannot be loaded, or do not say of the sample what is stored.
        """
        with self._loading:
            self._load(model)

    def _load(self, model: Served) -> None:
        shape = model.spec.preprocess
        try:
            for threads in {1, self._num_threads}:
                with self.lease(model.backbone, threads) as backbone:
                    for number in providers.sizes(model.backbone.device):
                        blank_NHWC = np.zeros((number, shape.height, shape.width, 3), np.uint8)
                        features_ND = self.features(model, backbone, blank_NHWC)
                    self.head(model, backbone, features_ND)
        except BundleError as error:
            model.read_anew(backbone=True)
            raise self.trials.failed(model, str(error)) from error

    def unload(self, sha256: str) -> None:
        """Takes a graph out of memory, at the end of the runs that it is in."""
        for threads in {1, self._num_threads}:
            self.pool.discard(f"{sha256}/{threads}")

    def _try(self, model: Served, backbone: Session, head: Session) -> None:
        """Sessions of which nothing good is known are given up: their files may be restored, and are read anew then."""
        try:
            self.trials.check(model, backbone, head)
        except NotReady:
            self.unload(model.head.sha256)
            # Others have passed on a backbone that is not at fault.
            is_suspect = not self.trials.trusted(backbone)
            if is_suspect:
                self.unload(model.backbone.sha256)
            model.read_anew(backbone=is_suspect)
            raise

    def _key(self, graph: Graph, threads: int) -> str:
        """Under which the pool holds a session. A GPU has one session for all: cores are the processor's."""
        return f"{graph.sha256}/{threads if graph.device == providers.CPU else 1}"
