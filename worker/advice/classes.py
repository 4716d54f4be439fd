"""What can be said of classes as wholes: too few images, too uneven, taken for each other. No torch.

Shape legend: N labelled items, C classes.
"""

import numpy as np
from numpy.typing import NDArray

from worker.advice.findings import Finding, Found, rows

Ints = NDArray[np.int64]

# From here on five folds leave 16 images of a class to learn from and 4 to be asked about, and training of the last
# stage is worth trying (docs/auto.md).
ENOUGH = 20
# Between the largest class and the smallest.
MAX_RATIO = 10.0
# Share of two classes' images that are taken for the other one: confused where even its lower bound is above this.
MIN_CONFUSED, MIN_CONFUSIONS = 0.1, 5
_Z = 1.959964  # two-sided 95 %


def small(labels_N: Ints, classes: tuple[str, ...], rows_N: Ints) -> Found:
    """Classes with fewer images than ENOUGH, smallest first, with the images that they have.

    Shape:
        labels_N: [N]
        rows_N: [N], of the items, in the dataset
    """
    counts_C = np.bincount(labels_N, minlength=len(classes))
    order = [place for place in np.argsort(counts_C, kind="stable").tolist() if 0 < counts_C[place] < ENOUGH]
    return Found(tuple(_small(classes[place], rows_N[labels_N == place]) for place in order))


def imbalanced(counts_C: Ints, classes: tuple[str, ...]) -> Found:
    """One finding where the largest class is more than MAX_RATIO times the smallest."""
    present = np.flatnonzero(counts_C)
    large, little = (int(present[pick(counts_C[present])]) for pick in (np.argmax, np.argmin))
    ratio = float(counts_C[large] / counts_C[little])
    if ratio <= MAX_RATIO:
        return Found()
    message = (
        f"{classes[large]!r} has {counts_C[large]} images, {ratio:.0f} times as many as {classes[little]!r} with "
        f"{counts_C[little]}: accuracy hardly shows what becomes of the small ones; look at macro-F1 and at the "
        "recall of each class, and add images to the small ones"
    )
    data = {"ratio": round(ratio, 2), "largest": classes[large], "smallest": classes[little]}
    return Found((Finding("imbalanced", message, label=classes[little], confidence=1.0, data=data),))


def confused(predicted_N: Ints, labels_N: Ints, classes: tuple[str, ...], rows_N: Ints) -> Found:
    """Pairs of classes that are taken for each other surely more often than MIN_CONFUSED, the worst first.

    The bound is Wilson's (1927), lower end of the 95 % interval of the share.

    Shape:
        predicted_N: [N], by a model that has not learned the item
        labels_N: [N]
        rows_N: [N], of the items, in the dataset
    """
    num_classes = len(classes)
    counts_CC = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(counts_CC, (labels_N, predicted_N), 1)
    size_C = counts_CC.sum(1)
    both_CC = np.triu(counts_CC + counts_CC.T, 1)
    one_P, other_P = np.nonzero(both_CC >= MIN_CONFUSIONS)
    low_P = lower_bound(both_CC[one_P, other_P], size_C[one_P] + size_C[other_P])
    order = [place for place in np.argsort(-low_P, kind="stable").tolist() if low_P[place] > MIN_CONFUSED]
    found = []
    for place in order:
        one, other = int(one_P[place]), int(other_P[place])
        wrong_N = ((labels_N == one) & (predicted_N == other)) | ((labels_N == other) & (predicted_N == one))
        found.append(_confused(counts_CC, classes, one, other, float(low_P[place]), rows_N[wrong_N]))
    return Found(tuple(found))


def lower_bound(hits: Ints, trials: Ints) -> NDArray[np.float64]:
    """Lower end of Wilson's 95 % interval of a share."""
    share = hits / trials
    middle = share + _Z**2 / (2 * trials)
    half = _Z * np.sqrt(share * (1 - share) / trials + _Z**2 / (4 * trials**2))
    return np.asarray((middle - half) / (1 + _Z**2 / trials), np.float64)


def _small(name: str, own: Ints) -> Finding:
    count = len(own)
    message = (
        f"{name!r} has {count} images; {ENOUGH - count} more would make {ENOUGH}, from where folds show what is "
        "learned of it and training the last stage is worth trying"
    )
    data = {"count": count, "missing": ENOUGH - count}
    return Finding("small_class", message, rows(own), name, confidence=1.0, data=data)


def _confused(counts_CC: Ints, classes: tuple[str, ...], one: int, other: int, low: float, wrong_rows: Ints) -> Finding:
    there, back = int(counts_CC[one, other]), int(counts_CC[other, one])
    sizes = int(counts_CC[one].sum()), int(counts_CC[other].sum())
    share = (there + back) / sum(sizes)
    message = (
        f"{share:.0%} of {classes[one]!r} and {classes[other]!r} are taken for the other ({there} of {sizes[0]} and "
        f"{back} of {sizes[1]}): merge the two if the difference does not matter, else add images that show it, or "
        "sharpen what is labelled which"
    )
    data = {"share": round(share, 4), "low": round(low, 4), "counts": [there, back], "sizes": list(sizes)}
    return Finding(
        "confused_classes",
        message,
        rows(wrong_rows),
        classes[one],
        new_label=classes[other],
        confidence=low,
        data=data,
    )
