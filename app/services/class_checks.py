"""What is asked of a class that is added to a served model, and what is said of it: refusals and warnings."""

import unicodedata
from dataclasses import dataclass

from app.artifact.spec import Spec
from app.errors import BadRequest, Conflict

# A fall of the old classes' accuracy by more than this is warned of. Most classes that were tried cost less; on few
# stored items one more that is missed can be as much. The version is served all the same: the newest is what `predict`
# takes where no alias `production` points elsewhere, whoever made it, and an alias that was set here unasked would hold
# back every later version as well.
MAX_FALL = 0.05
NOT_STORED = (
    "the base version holds no features of labelled test items: it was made without any, as zero_shot is without a "
    "dataset and adapt without labels of the target"
)


@dataclass(frozen=True, slots=True)
class OldClasses:
    """How the classes that were there before fare, on stored features of test items; None where there are none."""

    num_samples: int
    accuracy_before: float | None
    accuracy_after: float | None

    @property
    def reason(self) -> str | None:
        """Why there is no accuracy."""
        return None if self.num_samples else NOT_STORED


def check(spec: Spec, label: str) -> None:
    """Refuses what no image could change.

    Raises:
        BadRequest: code unsupported_task.
        Conflict: code label_exists.
    """
    if spec.task != "classification":
        raise BadRequest(
            f"expected a model of task classification; found {spec.task}; add the class to its data and train again",
            code="unsupported_task",
        )
    alike = next((name for name in spec.labels if _folded(name) == _folded(label)), None)
    if alike is not None:
        found = (
            repr(label) if alike == label else f"{label!r}, but for case, blanks or Unicode form the same as {alike!r},"
        )
        raise Conflict(
            f"expected a class that the model does not have; found {found} among its {len(spec.labels)}; choose "
            "another name, or add the images to the dataset and train again",
            code="label_exists",
        )


def warn(model: str, base_version: int, num_given: int, num_different: int, old: OldClasses) -> list[str]:
    """What whoever serves the new version should know.

    Args:
        model: its name.
        base_version: that the class was added to.
        num_given: images of the request.
        num_different: of these.
        old: how the classes fare that were there before.
    """
    found = []
    if num_different < num_given:
        found.append(
            f"{num_given} images were given, {num_different} different: the same bytes were counted once; give other "
            "images of the class"
        )
    if num_different == 1:
        found.append(
            "the class was made from one image, and will look like that image alone; give at least 5 different ones"
        )
    before, after = old.accuracy_before, old.accuracy_after
    # Rounded, for 1.0 - 0.95 is more than 0.05 in floats.
    if before is not None and after is not None and round(before - after, 9) > MAX_FALL:
        found.append(
            f"the accuracy of the classes that were there before fell from {before:.3f} to {after:.3f} on "
            f"{old.num_samples} stored test items, by more than {MAX_FALL}. "
            f"The version before is {base_version}, and has not changed; "
            f'`PUT /api/v1/models/{model}/aliases/production` with {{"version": {base_version}}} makes it what is '
            "served by default. Give more images, or add them to the dataset and train again"
        )
    return found


def _folded(name: str) -> str:
    """What names have in common that nobody tells apart by reading: the Unicode standard's D146, without end blanks."""
    folded = unicodedata.normalize("NFD", name)
    for _ in range(2):
        folded = unicodedata.normalize("NFKD", folded.casefold())
    return folded.strip()
