"""What classes gained that grew: whatever else is to grow borrows their experience. Torch-free.

What one class gains cannot be seen in itself: a recall stands on its own few images, a class of a handful among many
others is hardly ever named and loses nothing when half of it is taken away, and a class that gets more images than the
others takes from them. So classes are cut down and grow again, and two things are kept of each: what it names since, as
a share of the room that it had, which hardly differs between easy and hard classes, and what the others lost. A class
is foretold by that share of its own room.

Shape legend: N items, C classes, K times that a class grew, L of these that had room, B draws.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worker.forecasting.stand_in import StandIn
from worker.solvers.even import even_order, whole

Double = NDArray[np.float64]
Rows = NDArray[np.int64]
IsOver = Callable[[], bool]

# Fewer do not show how different classes are, and more show little that is new.
MIN_GROWN, MAX_LENDERS = 3, 8
# Halves that are drawn, and the classes that grow in each.
HALVES, IN_HALF = 3, 3
# A class with less room has no share to lend: it would be the quotient of two chances.
_LEAST_ROOM = 0.05
# Pictures that the recall of other classes is worth, beside those of the class itself.
_LEAST_WORTH, _MOST_WORTH = 1.0, 20.0


def missed(recall_B: Double) -> Double:
    """Room of a class that is named seldom because it is rare: all that it misses."""
    return 1.0 - recall_B


def within_reach(recall_B: Double) -> Double:
    """Room of a class that is named seldom though it has images like the others: it is a hard one.

    On four sets of photos and digits, twice the images named 0.15, 0.24, 0.18, 0.12 and 0.045 more of the classes with
    a recall of 0.1, 0.3, 0.5, 0.7 and 0.9: about half of this at each.
    """
    return np.asarray(np.sqrt(recall_B) * (1.0 - recall_B))


@dataclass(frozen=True)
class Lent:
    """What classes gained that grew.

    Args:
        room: of a recall.
        recall_K: of classes like the one that borrows, as it is now.
        share_L: of the room that each had, what it names since.
        others_K: what the recalls of all other classes added up to since, less than nothing as a rule.
        num_classes: that balanced accuracy is the mean over.
    """

    room: Callable[[Double], Double]
    recall_K: Double
    share_L: Double
    others_K: Double
    num_classes: int

    def gain(self, num_right: int, num_seen: int, num_draws: int, chance: np.random.Generator) -> Double:
        """Points of balanced accuracy that one more class may gain.

        Args:
            num_right: pictures of it that are named right now.
            num_seen: pictures of it.
            num_draws: B.
            chance: of the draws.

        Shape:
            returns [B].
        """
        share_B = _drawn(self.share_L, float(self.share_L.std(ddof=1)), num_draws, chance)
        # What it takes from the others is hardly its own matter: all tell the same of it.
        others_B = _drawn(self.others_K, 0.0, num_draws, chance)
        mean = float(np.clip(self.recall_K.mean(), 0.02, 0.98))
        variance = max(float(self.recall_K.var(ddof=1)), 1e-6)
        worth = float(np.clip(mean * (1 - mean) / variance - 1.0, _LEAST_WORTH, _MOST_WORTH))
        right, wrong = worth * mean + num_right, worth * (1 - mean) + num_seen - num_right
        room_B = self.room(chance.beta(right, wrong, num_draws))
        return np.asarray(100 * (share_B * room_B + others_B) / self.num_classes)


@dataclass(frozen=True)
class _Grown:
    """Recalls of all classes before and after one of them grew.

    Shape:
        before_C, after_C: [C]
    """

    label: int
    before_C: Double
    after_C: Double

    @property
    def gained(self) -> float:
        return float(self.after_C[self.label] - self.before_C[self.label])

    @property
    def others(self) -> float:
        return float((self.after_C - self.before_C).sum()) - self.gained


def from_few(
    fitted: StandIn, few: int, many: int, chance: np.random.Generator, is_over: IsOver | None = None
) -> Lent | None:
    """For a class that is rare: others are cut down to `few` and grow to `many`; None where too few have so many.

    Args:
        fitted: the classifier in closed form.
        few: images that a class has before.
        many: images that it has after.
        chance: of which classes, and which images.
        is_over: whether there is no time to ask another one.
    """
    able = np.flatnonzero(np.bincount(fitted.labels_N, minlength=fitted.num_classes) >= many)
    found = []
    for label in chance.permutation(able)[:MAX_LENDERS].tolist():
        if is_over is not None and is_over():
            break
        order = _pictures(fitted, label, chance)
        before_C, after_C = (_recalls(fitted, _whole_groups(fitted, order, size)) for size in (few, many))
        found.append(_Grown(label, before_C, after_C))
    return _lent(fitted, found, missed, [float(one.before_C[one.label]) for one in found])


def from_half(
    fitted: StandIn, able: list[int], chance: np.random.Generator, is_over: IsOver | None = None
) -> Lent | None:
    """For a class like others: with half of all images, some classes get their other half; None where time is over.

    Args:
        fitted: the classifier in closed form.
        able: classes that may grow.
        chance: of the halves, and of which classes grow.
        is_over: whether there is no time for another half.
    """
    found: list[_Grown] = []
    for _ in range(HALVES):
        if is_over is not None and is_over():
            break
        found.extend(_in_half(fitted, chance.permutation(able)[:IN_HALF].tolist(), chance))
    now_C = _recalls(fitted, np.empty(0, np.int64))
    return _lent(fitted, found, within_reach, now_C[able].tolist())


def _in_half(fitted: StandIn, growing: list[int], chance: np.random.Generator) -> Iterator[_Grown]:
    order = even_order(fitted.labels_N, fitted.groups_N, chance)
    cut = whole(fitted.groups_N[order], len(order) // 2)
    other = order[cut:]
    # Copies of one picture may have several labels; they come and go together.
    grows = np.isin(fitted.groups_N[other], fitted.groups_N[other[np.isin(fitted.labels_N[other], growing)]])
    rows = np.concatenate([order[:cut], other[grows]])
    world, added = fitted.part(rows), np.arange(cut, len(rows))
    before_C = _recalls(world, added)
    for label in growing:
        own = world.groups_N[added[world.labels_N[added] == label]]
        yield _Grown(label, before_C, _recalls(world, added[~np.isin(world.groups_N[added], own)]))


def _lent(fitted: StandIn, found: list[_Grown], room: Callable[[Double], Double], recalls: list[float]) -> Lent | None:
    room_K = room(np.array([one.before_C[one.label] for one in found]))
    shares = [one.gained / had for one, had in zip(found, room_K.tolist(), strict=True) if had >= _LEAST_ROOM]
    if len(shares) < MIN_GROWN or len(recalls) < 2:
        return None
    others = np.array([one.others for one in found])
    return Lent(room, np.array(recalls), np.array(shares), others, len(np.unique(fitted.labels_N)))


def _drawn(seen_K: Double, spread: float, num_draws: int, chance: np.random.Generator) -> Double:
    """The mean, as sure as it is, of what differs by so much from one to the next."""
    error = np.sqrt(seen_K.var(ddof=1) / len(seen_K) + spread**2)
    return np.asarray(seen_K.mean() + error * chance.standard_t(len(seen_K) - 1, num_draws))


def _pictures(fitted: StandIn, label: int, chance: np.random.Generator) -> Rows:
    """Items of a class in random order, copies beside one another."""
    own = np.flatnonzero(fitted.labels_N == label)
    _, place_N = np.unique(fitted.groups_N[own], return_inverse=True)
    return own[np.argsort(chance.permutation(place_N.max() + 1)[place_N], kind="stable")]


def _whole_groups(fitted: StandIn, order: Rows, size: int) -> Rows:
    """What goes where so many of an order stay: whole groups, also of items with other labels."""
    gone = order[whole(fitted.groups_N[order], size) :]
    return np.flatnonzero(np.isin(fitted.groups_N, fitted.groups_N[gone]))


def _recalls(fitted: StandIn, removed_S: Rows) -> Double:
    right_N = fitted.right_without(removed_S) if len(removed_S) else fitted.right_N
    counts_C = np.bincount(fitted.labels_N, minlength=fitted.num_classes)
    return np.asarray(np.bincount(fitted.labels_N, right_N, fitted.num_classes) / np.maximum(counts_C, 1))
