"""Label columns: what the samples are, as arrays, and how they are written down.

N is the number of samples, C of names.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from app.artifact import arrow

Kind = Literal["class", "classes", "number"]
MISSING = -1
# Of a matrix of sets of names, a byte each; a dataset has several copies of it while it is made.
MAX_CELLS = 2**28


class TooManyLabels(Exception):
    """A column would take more memory than it may; said before there is any of it.

    Args:
        found: how large it would be.
    """

    def __init__(self, found: str) -> None:
        self.limit, self.found = f"{MAX_CELLS} pairs of an image and a class", found
        super().__init__(f"expected at most {self.limit}; found {found}")


@dataclass(frozen=True, slots=True)
class Column:
    """One label of every sample.

    Args:
        name: of the column; `label` unless a manifest says otherwise.
        kind: one of the names (class), any number of them (classes), or a number.
        names: byte for byte as uploaded; empty for numbers and for unlabelled data.
        values: class: indices int64 [N], MISSING for none. classes: bool [N, C]. number: float64 [N], NaN for none.
    """

    name: str
    kind: Kind
    names: tuple[str, ...]
    values: NDArray[Any]

    def take(self, rows: NDArray[Any]) -> "Column":
        """The column of some samples; names stay."""
        return replace(self, values=self.values[rows])

    @property
    def is_missing(self) -> NDArray[np.bool_]:
        """Samples without this label. An empty set of classes is a label."""
        match self.kind:
            case "class":
                return np.asarray(self.values == MISSING)
            case "number":
                return np.asarray(np.isnan(self.values))
            case "classes":
                return np.zeros(len(self.values), dtype=bool)

    @property
    def count(self) -> NDArray[np.int64]:
        """Samples of each name."""
        if self.kind == "classes":
            return np.asarray(self.values.sum(axis=0), dtype=np.int64)
        return np.bincount(self.values[self.values != MISSING], minlength=len(self.names)).astype(np.int64)

    def text(self, row: int) -> str:
        """A sample's label in words."""
        match self.kind:
            case "class":
                return "" if self.values[row] == MISSING else self.names[self.values[row]]
            case "classes":
                return "|".join(self.names[index] for index in np.flatnonzero(self.values[row]))
            case "number":
                return "" if np.isnan(self.values[row]) else repr(float(self.values[row]))

    def without_empty(self) -> "Column":
        """Drops names that no sample has."""
        if self.kind == "number":
            return self
        kept = np.flatnonzero(self.count)
        names = tuple(self.names[index] for index in kept)
        if self.kind == "classes":
            return replace(self, names=names, values=self.values[:, kept])
        return replace(
            self, names=names, values=_renumber(self.values, np.searchsorted(kept, np.arange(len(self.names))))
        )


def of_names(name: str, labels: Sequence[str | None], names: Sequence[str] | None = None) -> Column:
    """Column of one name per sample; names are sorted unless given."""
    names = tuple(sorted({label for label in labels if label is not None})) if names is None else tuple(names)
    index = {label: number for number, label in enumerate(names)}
    values = np.fromiter(
        (MISSING if label is None else index[label] for label in labels), dtype=np.int64, count=len(labels)
    )
    return Column(name, "class", names, values)


def of_name_sets(name: str, labels: Sequence[Sequence[str]], names: Sequence[str] | None = None) -> Column:
    """Column of several names per sample; names are sorted unless given.

    Raises:
        TooManyLabels: samples times names are too many.
    """
    names = tuple(sorted({label for several in labels for label in several})) if names is None else tuple(names)
    values = _no_names(len(labels), len(names))
    index = {label: number for number, label in enumerate(names)}
    for row, several in enumerate(labels):
        values[row, [index[label] for label in several]] = True
    return Column(name, "classes", names, values)


def unlabelled(num: int) -> Column:
    """The column of a dataset without labels."""
    return Column("label", "class", (), np.full(num, MISSING, dtype=np.int64))


def join(first: Column, second: Column) -> Column:
    """Samples of `first`, then of `second`; names of the second that are new come behind.

    Raises:
        ValueError: the columns differ in name or kind.
        TooManyLabels: samples times names are too many.
    """
    if (first.name, first.kind) != (second.name, second.kind):
        raise ValueError(f"expected the column {first.name} ({first.kind}); found {second.name} ({second.kind})")
    if first.kind == "number":
        return replace(first, values=np.concatenate([first.values, second.values]))
    index = {name: number for number, name in enumerate(first.names)}
    place = np.array([index.setdefault(name, len(index)) for name in second.names], dtype=np.int64)
    names = tuple(index)
    if first.kind == "class":
        return replace(first, names=names, values=np.concatenate([first.values, _renumber(second.values, place)]))
    values = _no_names(len(first.values) + len(second.values), len(names))
    values[: len(first.values), : len(first.names)] = first.values
    values[len(first.values) :, place] = second.values
    return replace(first, names=names, values=values)


def _no_names(num_rows: int, num_names: int) -> NDArray[np.bool_]:
    """The matrix of samples without any name."""
    if num_rows * num_names > MAX_CELLS:
        raise TooManyLabels(f"{num_rows} images x {num_names} classes")
    return np.zeros((num_rows, num_names), dtype=bool)


def _renumber(values: NDArray[np.int64], place: NDArray[np.int64]) -> NDArray[np.int64]:
    moved = np.full(len(values), MISSING, dtype=np.int64)
    labelled = values != MISSING
    moved[labelled] = place[values[labelled]]
    return moved


# In Arrow, and in the metadata with which Hugging Face `datasets` names the classes


def arrow_type(column: Column) -> pa.DataType:
    """Type of the stored column."""
    return {"class": pa.int64(), "classes": pa.list_(pa.int64()), "number": pa.float64()}[column.kind]


def to_arrow(column: Column) -> pa.Array:
    """Values as stored: null for a missing label."""
    if column.kind == "classes":
        rows, indices = np.nonzero(column.values)
        return arrow.lists(np.searchsorted(rows, np.arange(len(column.values) + 1)), indices.astype(np.int64))
    return arrow.numbers(column.values, column.is_missing)


def from_arrow(name: str, kind: Kind, names: Sequence[str], values: pa.Array) -> Column:
    """The stored column again."""
    match kind:
        case "class":
            return Column(name, kind, tuple(names), arrow.plain(values, MISSING))
        case "number":
            return Column(name, kind, (), arrow.plain(values, np.nan))
        case "classes":
            matrix = np.zeros((len(values), len(names)), dtype=bool)
            rows = arrow.plain(values.value_parent_indices())
            matrix[rows, arrow.plain(values.flatten())] = True
            return Column(name, kind, tuple(names), matrix)


def huggingface_feature(column: Column) -> dict[str, Any]:
    """The feature as `datasets` writes it into a schema's metadata."""
    label = {"names": list(column.names), "_type": "ClassLabel"}
    if column.kind == "number":
        return {"dtype": "float64", "_type": "Value"}
    if not column.names:
        return {"dtype": "int64", "_type": "Value"}
    return label if column.kind == "class" else {"feature": label, "_type": "List"}


def huggingface_metadata(features: dict[str, dict[str, Any]]) -> dict[bytes, bytes]:
    """Metadata of an Arrow schema under the key that `datasets` reads."""
    return {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
