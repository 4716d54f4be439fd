"""Findings: what was found about which images, and what may be done. The shape of `result` is built here.

A finding names images by their rows; what is stored describes each image once, by its id. It lists no more than LISTED
findings of a kind, NAMED images of theirs and SHOWN images of a finding, with the numbers of all.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.advice import KINDS, LISTED, NAMED, Action, Kind
from worker.data.samples import Index
from worker.data.splits import SPLITS

SHOWN = 50

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Finding:
    """One finding.

    Args:
        kind: of the catalogue.
        message: what was found, for people.
        rows: images that it is about, the telling ones first.
        label: class that it is about.
        action: what is suggested.
        change: rows that the suggestion removes or relabels.
        new_label: of a relabelling, or the other class of a pair.
        confidence: 0 to 1; None where there is nothing to be sure of.
        data: numbers behind it.
        against: images of the other dataset that it is about, the telling ones first.
    """

    kind: Kind
    message: str
    rows: tuple[int, ...] = ()
    label: str | None = None
    action: Action = "look"
    change: tuple[int, ...] = ()
    new_label: str | None = None
    confidence: float | None = None
    data: dict[str, Any] = field(default_factory=dict)
    against: tuple[int, ...] = ()


@dataclass(frozen=True)
class Found:
    """What a search for one kind of finding gave: findings, the most telling first, or why there was no search."""

    findings: tuple[Finding, ...] = ()
    reason: str | None = None


def listed(found: dict[Kind, Found]) -> list[Finding]:
    """Findings in the order of the kinds, cut to what is stored."""
    kept: list[Finding] = []
    for kind in KINDS:
        named = 0
        for one in found.get(kind, Found()).findings[:LISTED]:
            named += len({*one.rows[:SHOWN], *one.change})
            if named > NAMED:
                break
            kept.append(one)
    return kept


def document(index: Index, found: dict[Kind, Found], other: Index | None = None) -> dict[str, Any]:
    """The parts of `result` that are made of findings: counts by kind, the findings, the images that they name.

    Args:
        index: of the dataset.
        found: by kind.
        other: of the dataset that it was compared with.
    """
    kept = listed(found)
    numbers = dict.fromkeys(KINDS, 0)
    documents: list[dict[str, Any]] = []
    named: set[int] = set()
    against: set[int] = set()
    for one in kept:
        numbers[one.kind] += 1
        documents.append(_document(index, other, one, f"{one.kind}-{numbers[one.kind]}"))
        named.update(one.rows[:SHOWN], one.change)
        against.update(one.against)
    counts = {kind: len(one.findings) if one.reason is None else None for kind, one in found.items()}
    return {
        "counts": counts,
        "not_listed": {
            kind: count - numbers[kind] for kind, count in counts.items() if count and count > numbers[kind]
        },
        "not_searched": {kind: one.reason for kind, one in found.items() if one.reason is not None},
        "findings": documents,
        "samples": _samples(index, named),
        "samples_against": _samples(other, against) if other is not None else {},
    }


def _samples(index: Index, rows: set[int]) -> dict[str, dict[str, Any]]:
    return {_id(index, row): sample(index, row) for row in sorted(rows)}


def sample(index: Index, row: int) -> dict[str, Any]:
    """One image, for people."""
    label = index.columns[0].text(row) if index.columns[0].kind == "class" else ""
    return {"path": index.paths[row].as_py(), "label": label or None, "split": SPLITS[index.split[row]]}


def rows(values: Sequence[int] | Ints) -> tuple[int, ...]:
    """Rows as plain numbers."""
    return tuple(int(value) for value in values)


def _document(index: Index, other: Index | None, one: Finding, name: str) -> dict[str, Any]:
    return {
        "id": name,
        "kind": one.kind,
        "samples": [_id(index, row) for row in one.rows[:SHOWN]],
        "num_samples": len(one.rows),
        "samples_against": [_id(other, row) for row in one.against] if other is not None else [],
        "label": one.label,
        "suggestion": {
            "action": one.action,
            "label": one.new_label,
            "samples": [_id(index, row) for row in one.change],
        },
        "confidence": None if one.confidence is None else round(one.confidence, 4),
        "message": one.message,
        "data": one.data,
    }


def _id(index: Index, row: int) -> str:
    return str(index.ids[row].decode())
