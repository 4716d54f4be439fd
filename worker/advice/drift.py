"""Whether another dataset looks like this one: its images, its shares of classes, and which classes moved. No torch.

Everything is measured on different pictures of both (one of each group of copies), at most SAMPLES of each, drawn by
the seed. All splits take part: nothing is trained here that is served.

Shape legend: M items of the dataset, N of the other one, D features, R components, K classes of either.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.advice import label_shift, two_samples
from worker.advice.drawing import some
from worker.advice.findings import Finding, Found, rows
from worker.advice.label_shift import Shift
from worker.advice.two_samples import Tested
from worker.data.labels import MISSING
from worker.data.samples import Index

Ints = NDArray[np.int64]
Float = NDArray[np.float32]
Double = NDArray[np.float64]

SAMPLES = 1000
# Different pictures of each side; of one class, on each side.
MIN_ITEMS, MIN_CLASS = 20, 8
# Of a wrong "there is drift", over all tests of images together.
ALPHA = 0.05
NUM_MOVED = 10
# Images of a finding, of either dataset: those that are least like the other one.
SHOWN = 6
# Holm's correction over many classes needs small p-values to be possible at all.
CLASS_PERMUTATIONS = 1999


@dataclass(frozen=True)
class Side:
    """One of the two datasets: different pictures that were drawn, and how often classes are among all of them."""

    index: Index
    rows: Ints
    counts: dict[str, int]

    @property
    def names(self) -> list[str]:
        """Labels of the drawn pictures; empty for none."""
        column = self.index.columns[0]
        return [column.text(row) if column.kind == "class" else "" for row in self.rows.tolist()]


@dataclass(frozen=True)
class Apart:
    """One side, and how far each of its pictures lies from the other side.

    The farthest are what this dataset has and the other one has not.
    """

    side: Side
    far_M: Double

    def shown(self, name: str | None = None) -> tuple[int, ...]:
        """Rows of the SHOWN farthest pictures; of one class where it is named."""
        order = np.argsort(-self.far_M, kind="stable")
        if name is not None:
            order = order[(np.array(self.side.names) == name)[order]]
        return rows(self.side.rows[order[:SHOWN]])


def draw(index: Index, seed: int) -> Side:
    """One of each picture, at most SAMPLES of them."""
    different = np.sort(np.unique(index.group, return_index=True)[1]).astype(np.int64)
    column, counts = index.columns[0], {}
    if column.kind == "class" and column.names:
        labels_N = column.values[different]
        number_C = np.bincount(labels_N[labels_N != MISSING], minlength=len(column.names))
        counts = {name: int(number) for name, number in zip(column.names, number_C, strict=True)}
    return Side(index, some(different, SAMPLES, seed), counts)


def reason(here: Side, there: Side) -> str | None:
    """Why the two cannot be compared; None where they can be."""
    number = min(len(here.rows), len(there.rows))
    if number >= MIN_ITEMS:
        return None
    return f"expected at least {MIN_ITEMS} different pictures in both datasets; found {number} in one; add images"


def compare(here: Side, there: Side, here_MD: Float, there_ND: Float, seed: int) -> tuple[Found, dict[str, Any]]:
    """All tests; findings where one says that the datasets differ, and the numbers of all.

    Shape:
        here_MD: [M, D], of the drawn pictures
        there_ND: [N, D]
    """
    both_BD, parts_BR = two_samples.prepare(here_MD, there_ND)
    num = len(here_MD)
    null_PB = two_samples.divisions(num, len(there_ND), two_samples.PERMUTATIONS, np.random.default_rng(seed))
    proxy, error = two_samples.classifier(here_MD, there_ND, two_samples.PERMUTATIONS, seed)
    tests = {
        "mmd": two_samples.mmd(both_BD, num, null_PB, seed),
        "proxy_a": proxy,
        "coral": two_samples.coral(parts_BR, num, null_PB),
        "frechet": two_samples.frechet(parts_BR, num, null_PB),
    }
    adjusted = two_samples.holm(np.array([one.p for one in tests.values()]))
    smallest = float(adjusted.min())
    names = tuple(sorted({*here.counts, *there.counts}))
    shift, why_not = _shift(here, there, names)
    moved = _moved(here, there, parts_BR, seed)
    document: dict[str, Any] = {
        "images_differ": smallest < ALPHA,
        "p": smallest,
        "alpha": ALPHA,
        "tests": {
            name: {**asdict(one), "p_adjusted": float(adjusted[place])}
            for place, (name, one) in enumerate(tests.items())
        },
        "domain_error": error,
        "num_components": parts_BR.shape[1],
        "num_compared": [num, len(there_ND)],
        "num_same_images": len(np.intersect1d(here.index.sha256, there.index.sha256)),
        "labels": None if shift is None else {**asdict(shift), "differ": shift.p < ALPHA},
        "labels_reason": why_not,
        "only_here": [name for name in names if here.counts.get(name) and not there.counts.get(name)],
        "only_there": [name for name in names if there.counts.get(name) and not here.counts.get(name)],
        "classes": moved,
    }
    document["message"] = _verdict(document, tests)
    return Found(tuple(_findings(document, *_apart(here, there, parts_BR)))), document


def _apart(here: Side, there: Side, parts_BR: Double) -> tuple[Apart, Apart]:
    """Both sides of the line between both means, that of a nearest-mean classifier."""
    here_MR, there_NR = parts_BR[: len(here.rows)], parts_BR[len(here.rows) :]
    line_R = here_MR.mean(0) - there_NR.mean(0)
    return Apart(here, here_MR @ line_R), Apart(there, there_NR @ -line_R)


def _verdict(document: dict[str, Any], tests: dict[str, Tested]) -> str:
    num_here, num_there = document["num_compared"]
    if document["images_differ"]:
        return (
            f"the images differ: a linear classifier tells the datasets apart with an error of "
            f"{document['domain_error']:.0%} (50% would be chance), MMD is {tests['mmd'].value:.4f} where one random "
            f"division in twenty exceeds {tests['mmd'].null_95:.4f} (p {document['p']:.3g} over all four tests)"
        )
    return (
        f"no drift was found in {num_here} and {num_there} different pictures: none of the four distances is larger "
        f"than random divisions of the same images allow (p {document['p']:.2g}); a difference too small for so many "
        "images may be there"
    )


def _shift(here: Side, there: Side, names: tuple[str, ...]) -> tuple[Shift | None, str | None]:
    if not here.counts or not there.counts:
        return None, "expected labels in both datasets; found one without"
    counts = [np.array([side.counts.get(name, 0) for name in names], np.int64) for side in (here, there)]
    shift = label_shift.homogeneity(counts[0], counts[1], names)
    why_not = None if shift else "expected two classes with five images to be expected in both datasets; found fewer"
    return shift, why_not


def _moved(here: Side, there: Side, parts_BR: Double, seed: int) -> list[dict[str, Any]]:
    """Classes of both, by how far their means are apart in deviations of what random divisions give; farthest first."""
    labels = np.array([*here.names, *there.names])
    first_B = np.arange(len(labels)) < len(here.rows)
    found: list[dict[str, Any]] = []
    for name in sorted(set(here.names) & set(there.names) - {""}):
        rows = np.flatnonzero(labels == name)
        num_first = int(first_B[rows].sum())
        if min(num_first, len(rows) - num_first) < MIN_CLASS:
            continue
        null_PB = two_samples.divisions(
            num_first, len(rows) - num_first, CLASS_PERMUTATIONS, np.random.default_rng(seed)
        )
        tested, deviations = two_samples.means(parts_BR[rows], num_first, null_PB)
        found.append({"name": name, "distance": tested.value, "deviations": deviations, "p": tested.p})
    if found:
        adjusted = two_samples.holm(np.array([one["p"] for one in found]))
        for one, p_adjusted in zip(found, adjusted.tolist(), strict=True):
            one["p_adjusted"] = p_adjusted
    return sorted(found, key=lambda one: (-one["deviations"], one["name"]))[:NUM_MOVED]


def _findings(document: dict[str, Any], here: Apart, there: Apart) -> list[Finding]:
    found = []
    is_apart = not any(number and there.side.counts.get(name) for name, number in here.side.counts.items())
    unlike = "they have no class in common" if is_apart else "classes are not equally frequent"
    if document["images_differ"]:
        todo = (
            "; a model of this dataset may do worse there: evaluate it on that dataset, adapt it (`adapt`) or bind a "
            "domain with an alignment"
        )
        if document["labels"] is not None and document["labels"]["differ"]:
            todo = f"; part of it is that {unlike}" + todo
        data = {"test": "images", "p": document["p"]}
        found.append(
            Finding(
                "drift",
                document["message"] + todo,
                here.shown(),
                confidence=1 - document["p"],
                data=data,
                against=there.shown(),
            )
        )
    shift = document["labels"]
    if shift is not None and shift["differ"]:
        advice = "look at recall per class, since accuracy moves with the shares alone"
        if is_apart:
            advice = "rename classes where the same is meant; otherwise no model of one can be scored on the other"
        message = (
            f"{unlike} (chi-square {shift['statistic']:.1f} with {shift['degrees']} degrees of freedom, "
            f"p {shift['p']:.2g}, Cramer's V {shift['cramers_v']:.2f}){_shares(here.side, there.side)}; {advice}"
        )
        data = {"test": "labels", "p": shift["p"], "cramers_v": shift["cramers_v"]}
        found.append(Finding("drift", message, confidence=1 - shift["p"], data=data))
    for one in document["classes"]:
        if one["p_adjusted"] < ALPHA:
            message = (
                f"{one['name']!r} looks different there: its mean is {one['deviations']:.1f} deviations farther away "
                "than random divisions of its images would have it; look at its images in both datasets"
            )
            data = {"test": "class", "p": one["p_adjusted"], "deviations": round(one["deviations"], 2)}
            found.append(
                Finding(
                    "drift",
                    message,
                    here.shown(one["name"]),
                    one["name"],
                    confidence=1 - one["p_adjusted"],
                    data=data,
                    against=there.shown(one["name"]),
                )
            )
    return found


def _shares(here: Side, there: Side) -> str:
    """The class whose share changes most, in words."""
    totals = sum(here.counts.values()), sum(there.counts.values())
    shares = {
        name: (here.counts.get(name, 0) / totals[0], there.counts.get(name, 0) / totals[1])
        for name in {*here.counts, *there.counts}
    }
    name = max(sorted(shares), key=lambda one: abs(shares[one][0] - shares[one][1]))
    return f": most of all {name!r}, {shares[name][0]:.1%} here and {shares[name][1]:.1%} there"
