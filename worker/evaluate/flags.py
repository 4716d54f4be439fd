"""What a reader must know before any figure: flags, as codes and sentences. Torch-free.

Flags say what is wrong with a transfer or with its test; they choose nothing. docs/report.md explains each code.

Shape legend: N items.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from worker.scores import intervals

# An accuracy from fewer images has an interval as wide as the question.
FEW_IMAGES = 30
# Share of the test images that have a sure copy in what was learned from; of what a backbone had learned before, one
# is enough: nobody expects it there.
SEEN_SHARE = 0.05
MORE_TIME = "give it more time (max_minutes)"


class Flag(TypedDict):
    """A code for programs, a sentence for people."""

    code: str
    message: str


def beats_largest_class(correct_N: NDArray[np.bool_], labels_N: NDArray[np.int64]) -> bool:
    """Whether a model is shown to be better than always naming the class that most of the items have.

    That class is looked up among the very items, so no constant answer does better on them. With few items a true gain
    may hide in the interval: there a model passes that is better in what was counted.

    Shape:
        correct_N, labels_N: [N]
    """
    change = intervals.paired_difference(correct_N, _largest(labels_N)[1])
    return change.value > 0 and (change.low > 0 or len(labels_N) < FEW_IMAGES)


def _largest(labels_N: NDArray[np.int64]) -> tuple[int, NDArray[np.bool_]]:
    label = int(np.bincount(labels_N).argmax())
    return label, labels_N == label


def no_better(
    correct_N: NDArray[np.bool_], labels_N: NDArray[np.int64], names: Sequence[str], what: str
) -> Flag | None:
    """A flag where a model is not shown to be better than always naming the class that most of the items have.

    Args:
        correct_N: which items the model names right.
        labels_N: their classes.
        names: of the classes.
        what: which items they are, for people.
    """
    if beats_largest_class(correct_N, labels_N):
        return None
    largest, constant_N = _largest(labels_N)
    change = intervals.paired_difference(correct_N, constant_N)
    return Flag(
        code="not_better_than_largest_class",
        message=(
            f"the model is not shown to be better than always naming the largest class: on {len(labels_N)} images "
            f"({what}) {correct_N.mean():.3f} against {constant_N.mean():.3f} for always {names[largest]!r}, "
            f"difference {change.value:+.3f} [{change.low:.3f}, {change.high:.3f}]; check that labels "
            "belong to their images"
        ),
    )


def negative(evidence: Mapping[str, Mapping[str, Any] | None], returned: str | None = None) -> list[Flag]:
    """One flag for each baseline that the transfer is worse than, by the interval of its verdict.

    Args:
        evidence: of each verdict.
        returned: the baseline that is served instead; None where that is the transfer.
    """
    told, found = [], []
    for name, row in evidence.items():
        # An adaptation has the same evidence under two names.
        if row is None or row["verdict"] != "negative" or row in told:
            continue
        told.append(row)
        found.append(
            Flag(
                code="negative_transfer",
                message=(
                    f"negative transfer {name.replace('vs_', 'against ').replace('_', ' ')}: accuracy changes by "
                    f"{row['difference']:+.3f} [{row['low']:.3f}, {row['high']:.3f}] on {row['num_samples']} images "
                    f"({row['what']}); "
                    + ("it is served instead" if name == f"vs_{returned}" else "use the baseline instead")
                ),
            )
        )
    return found


def of_test(leakage: Mapping[str, Any] | None) -> list[Flag]:
    """Flags of a test split: too few images, or images that were learned from.

    Args:
        leakage: the report's, None where nothing was scored.
    """
    if not leakage or not leakage["num_test"]:
        return []
    num_test, found = leakage["num_test"], []
    if num_test < FEW_IMAGES:
        found.append(
            Flag(
                code="few_test_images",
                message=(
                    f"{num_test} image{'s' * (num_test > 1)} were scored, expected at least {FEW_IMAGES}: read the "
                    "intervals, not the values; add images"
                ),
            )
        )
    # What only looks alike is counted in the report, and is no fact.
    count, chained = leakage["num_copies"], leakage["num_through_backbone"]
    if chained or (count and count >= SEEN_SHARE * num_test):
        without = leakage["accuracy_without_copies"]
        told = "no image is without one" if without is None else f"without them it is {without:.3f}"
        through = f", {chained} of them before this job, by its backbone" if chained else ""
        todo = "test on other images, or start from another backbone" if chained else "remove the copies and ask again"
        found.append(
            Flag(
                code="test_images_seen",
                message=(
                    f"{count} of {num_test} scored images are among the images that were learned from{through}: "
                    f"accuracy is {leakage['accuracy_with']:.3f}, {told}; {todo}"
                ),
            )
        )
    return found


def of_time(details: Mapping[str, Any], hurried: str | None) -> list[Flag]:
    """Flags of a transfer or of its baseline that had too little time.

    Args:
        details: what the method tells of itself; of a training its `epochs`, and `images_left_out`.
        hurried: that the network from scratch that the verdict stands on had too little.
    """
    found = []
    if details.get("epochs") == 0:
        found.append(
            Flag(
                code="nothing_trained",
                message=(
                    f"no epoch of the training ran ({details.get('ended')}): what is served is the probe on the frozen "
                    f"backbone; {details.get('to_train', MORE_TIME)}, or use linear_probe, which needs less"
                ),
            )
        )
    found += of_images(details)
    if hurried:
        found.append(Flag(code="scratch_cut_short", message=hurried))
    return found


def of_images(details: Mapping[str, Any]) -> list[Flag]:
    """The flag of a job that has looked at an excerpt of its images.

    Args:
        details: what the method tells of itself, `images_left_out` where it had to leave some out.
    """
    if not (left_out := details.get("images_left_out")):
        return []
    some = {side: f"{left_out[side]} of {number}" for side, number in left_out["of"].items()}
    if "test" in some:
        what = f"of the images, drawn by class: {some['learn']} were not learned from and {some['test']} of the test "
        what += "split not scored"
    else:
        # An adaptation: what it is fitted to is no split of anything.
        told = [f"{some[side]} of {name}" for side, name in (("source", "the source"), ("learn", "the dataset"))
                if left_out.get(side)]  # fmt: skip
        what = f"of the images: {' and '.join(told)} were not looked at"
    return [Flag(code="images_left_out", message=f"{left_out['why']} an excerpt {what}; {MORE_TIME}")]


def some_of(*groups: Sequence[Flag]) -> list[Flag]:
    """All groups, in order."""
    return [flag for group in groups for flag in group]


def first(*found: Flag | None) -> list[Flag]:
    """The first that is there."""
    return [flag for flag in found if flag is not None][:1]
