"""Ways to bring a labelled source to a target without labels, on cached features.

Each gives a head for raw target features. All but the source alone move the source's features to the target and train
a head there. That way round what is fitted to the target never touches an image at serving time: nothing is added to
the served graph, and a map that follows its sample too closely cannot spoil new images. Figures are in
docs/decisions/0010-adaptation-towards-the-target.md.

Shape legend: N source items, M target items, D features, C classes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from worker.alignments import unpaired
from worker.alignments.affine import Affine
from worker.contract.candidate import Head
from worker.contract.network_head import NetworkHead
from worker.contract.task import Float
from worker.training import probing

if TYPE_CHECKING:
    from worker.domains.training import Objective

SOURCE_ONLY = "source_only"


@dataclass(frozen=True)
class Data:
    """Two domains as features.

    Shape:
        source_ND: [N, D]
        labels_N: [N]
        groups_N: [N], copies of one picture share a number
        target_MD: [M, D]
    """

    source_ND: Float
    labels_N: NDArray[np.int64]
    groups_N: NDArray[np.int64]
    target_MD: Float
    num_classes: int
    seed: int

    def part(self, source_N: NDArray[np.bool_], target_M: NDArray[np.bool_]) -> "Data":
        """Some items of each domain.

        Shape:
            source_N: [N]
            target_M: [M]
        """
        return Data(
            self.source_ND[source_N],
            self.labels_N[source_N],
            self.groups_N[source_N],
            self.target_MD[target_M],
            self.num_classes,
            self.seed,
        )


@dataclass(frozen=True)
class Fitted:
    """A head for the target's features, and what moved the source's features to them (None: nothing)."""

    head: Head
    move: Affine | None
    accuracy: float | None = None

    def moved(self, source_ND: Float) -> Float:
        """Source features as the head knows them.

        Shape:
            source_ND: [N, D]
        """
        return source_ND if self.move is None else np.asarray(self.move.apply(source_ND), np.float32)


OnStep = Callable[[int], None]


def source_only(data: Data) -> Fitted:
    """The probe of the source as it is: what every other way must beat."""
    return _probe(data, None)


def z_score(data: Data) -> Fitted:
    """A probe on source features with the target's mean and deviation per feature (as AdaBN, arXiv 1603.04779, eq. 1).

    The diagonal of CORAL.
    """
    return _probe(data, unpaired.z_score(data.source_ND, data.target_MD))


def coral(data: Data) -> Fitted:
    """A probe on source features with the target's mean and covariance (arXiv 1511.05547, algorithm 1)."""
    return _probe(data, unpaired.coral(data.source_ND, data.target_MD))


def trained(objective: "Objective", data: Data, on_step: OnStep, known: NetworkHead | None = None) -> Fitted:
    """A small network on z-scored features and an objective between the domains; torch is imported here alone.

    Args:
        objective: between the domains.
        data: both.
        on_step: called while it trains.
        known: the head that this very training gave before.
    """
    move = unpaired.z_score(data.source_ND, data.target_MD)
    if known is not None:
        return Fitted(known, move)
    from worker.domains import training

    moved_ND = np.asarray(move.apply(data.source_ND), np.float32)
    head = training.train(
        objective,
        moved_ND,
        data.labels_N,
        data.target_MD,
        data.num_classes,
        data.seed,
        on_step,
        steps=training.STEPS,
    )
    return Fitted(head, move)


def _probe(data: Data, move: Affine | None) -> Fitted:
    rows = np.arange(len(data.labels_N))
    moved_ND = data.source_ND if move is None else np.asarray(move.apply(data.source_ND), np.float32)
    head, _, folds, _ = probing.fit(moved_ND, data.labels_N, data.groups_N, rows, data.num_classes, data.seed)
    return Fitted(head, move, float(np.mean(folds)))


# Closed forms in the order in which they are tried; the source alone comes first.
CLOSED: dict[str, Callable[[Data], Fitted]] = {SOURCE_ONLY: source_only, "z_score": z_score, "coral": coral}
TRAINED: tuple["Objective", ...] = ("mcc", "dann", "dann_mcc", "mdd")
