"""What the tables of a bundle from outside must say: rows as Graft writes them, of classes that the model has."""

from pathlib import Path

from app.artifact import bundle, predicted, selection
from app.artifact.predicted import Predictions
from app.artifact.spec import Spec
from app.errors import BadRequest

# Characters of a label that a refusal quotes.
MAX_LABEL = 100


def unlike(words: str) -> BadRequest:
    """The refusal of a bundle that is not what it should be."""
    return BadRequest(f"expected {words}; publish the model again", code="bundle_invalid")


def predictions(folder: Path, spec: Spec) -> Predictions:
    """What predictions.parquet says, in the order of the spec's labels.

    Raises:
        BadRequest: bundle_invalid.
    """
    import pyarrow as pa

    try:
        said = predicted.read(folder / bundle.PREDICTIONS)
        ordered = predicted.read_labels(folder / bundle.PREDICTIONS)
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise unlike(f"{bundle.PREDICTIONS} as Graft writes it; {error!r}") from error
    columns = (said.ids, said.sha256, said.predicted, said.splits)
    texts = all(isinstance(value, str) for column in (*columns, ordered) for value in column)
    if said.probabilities.shape != (len(said.ids), len(spec.labels)) or not texts:
        raise unlike(f"{bundle.PREDICTIONS} with one probability for each of {len(spec.labels)} labels")
    _check_labels(ordered, said, spec)
    return said


def check_selection(folder: Path, spec: Spec) -> None:
    """Looks at selection.parquet: nothing here reads that of an imported version, but whoever downloads it will.

    Raises:
        BadRequest: bundle_invalid.
    """
    import pyarrow as pa

    try:
        said = selection.read(folder / bundle.SELECTION)
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise unlike(f"{bundle.SELECTION} as Graft writes it; {error!r}") from error
    classes = {*said.labels, *(label for named in said.named.values() for label in named)} - {None}
    if not classes <= set(spec.labels) or not all(isinstance(value, str) for value in (*said.ids, *said.splits)):
        raise unlike(f"{bundle.SELECTION} with items that are named as one of {len(spec.labels)} labels")


def _check_labels(ordered: list[str], said: Predictions, spec: Spec) -> None:
    """The head's outputs have no names: that the spec's are in their order is told by what it once said alone.

    Args:
        ordered: labels in the order of the probabilities, as predictions.parquet has them.
        said: its rows, each of which names the likeliest class as well.
        spec: whose labels are in question.
    """
    labels = list(spec.labels)
    if ordered != labels:
        raise unlike(
            f"the labels of {bundle.SPEC} in the order of {bundle.PREDICTIONS}; {_first_difference(labels, ordered)}"
        )
    place = {label: index for index, label in enumerate(labels)}
    for row, (label, scores_C) in enumerate(zip(said.predicted, said.probabilities, strict=True)):
        if label not in place or not scores_C[place[label]] >= scores_C.max():
            raise unlike(
                f"the labels of {bundle.SPEC} in the order of the head's outputs; row {row} of {bundle.PREDICTIONS} "
                f"names {label[:MAX_LABEL]!r}, and its highest probability is that of "
                f"{labels[int(scores_C.argmax())][:MAX_LABEL]!r}"
            )


def _first_difference(labels: list[str], ordered: list[str]) -> str:
    """Where lists of labels of the same length differ, in words."""
    pairs = enumerate(zip(labels, ordered, strict=True))
    place, (one, other) = next(found for found in pairs if found[1][0] != found[1][1])
    return f"label {place} is {one[:MAX_LABEL]!r} in one and {str(other)[:MAX_LABEL]!r} in the other"
