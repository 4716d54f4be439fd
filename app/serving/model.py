"""What can be called: the graphs of a version, and how images are prepared for them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Self

from app.artifact.precisions import FLOAT, Precision
from app.artifact.preprocess import Preprocess
from app.artifact.sample import Sample
from app.artifact.spec import Spec, image_input
from app.serving.providers import CPU, Device
from app.serving.runtime import Session


@dataclass(frozen=True, slots=True)
class Graph:
    """A graph that can be loaded.

    Args:
        sha256: of its file; what is loaded once for all that have the same graph.
        open: loads it, to be run by so many threads.
        device: where it is run.
        place: of its file in storage, of which the same graph can have several; empty for one that comes from none.
    """

    sha256: str
    open: Callable[[int], Session]
    device: Device = CPU
    place: str = ""

    @property
    def file(self) -> str:
        """Which file it is: of two with the same content each can be damaged, or gone, by itself."""
        return f"{self.sha256}/{self.place}" if self.place else self.sha256


@dataclass(frozen=True, slots=True)
class Served:
    """A version that can be called. Ten of them on one backbone share its graph, by its digest.

    Args:
        spec: labels, preprocessing, what was published.
        backbone: images -> features.
        head: features -> probabilities.
        alignment: features -> features, for inputs of a domain; None elsewhere.
        sample: reads the pictures that the version is tried on; None where it has none.
        precision: of the backbone's graph.
        forget: drops local copies of files at these places in storage, and of the sample; None where there are none.
    """

    spec: Spec
    backbone: Graph
    head: Graph
    alignment: Graph | None = None
    sample: Callable[[], Sample | None] | None = None
    precision: Precision = FLOAT
    forget: Callable[[Iterable[str]], None] | None = None

    def read_anew(self, *, backbone: bool) -> None:
        """From now on its files are read from storage itself: they may be damaged here, or restored there.

        Args:
            backbone: whether its graph, which others may share, may be at fault too.
        """
        if self.forget is not None:
            self.forget(graph.place for graph in self.graphs if backbone or graph is not self.backbone)

    @property
    def key(self) -> tuple[str, ...]:
        """What is ready together, or is not: the files of all that a call runs, beside which the version's sample lies.

        Not their digests: a version whose files are damaged says nothing about another one with the same graphs.
        """
        return tuple(graph.file for graph in self.graphs)

    @property
    def graphs(self) -> tuple[Graph, ...]:
        """All that a call runs."""
        return tuple(graph for graph in (self.backbone, self.alignment, self.head) if graph is not None)

    def through(self, alignment: Graph, moving: tuple[Graph, Preprocess] | None = None) -> Self:
        """The version with an alignment before its head; and under the images' own backbone, where it has one.

        Args:
            alignment: ends at this version's features.
            moving: the network that the images meet instead of the version's, and how they are prepared for it.
        """
        if moving is None:
            return replace(self, alignment=alignment)
        backbone, preprocess = moving
        spec = self.spec.model_copy(update={"inputs": (image_input(preprocess),)})
        # Its sample says what the version's own backbone makes of pictures.
        return replace(self, spec=spec, backbone=backbone, alignment=alignment, sample=None)
