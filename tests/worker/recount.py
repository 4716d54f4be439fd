"""Verdicts counted again from a bundle's `selection.parquet` alone, as whoever downloads it can."""

from pathlib import Path
from typing import Any

import numpy as np

from app.artifact import selection
from worker.scores import intervals


def evidence(path: Path) -> dict[str, dict[str, Any]]:
    """Of each baseline there: items that both have named, the difference of accuracy and its interval."""
    said = selection.read(path)
    labels_N = np.array(said.labels)
    ours_N = np.array(said.named["transfer"]) == labels_N
    told = {}
    for name, named in said.named.items():
        if name == "transfer":
            continue
        both_N = np.array([one is not None for one in named])
        theirs_N = np.array(named, object) == labels_N
        change = intervals.paired_difference(ours_N[both_N], theirs_N[both_N])
        told[f"vs_{name}"] = {
            "num_samples": int(both_N.sum()), "difference": change.value, "low": change.low, "high": change.high,
        }  # fmt: skip
    return told


def check(report: dict[str, Any], path: Path) -> None:
    """Each verdict of the report is what the file says, and there is no other."""
    told = {name: row for name, row in report["verdict_evidence"].items() if row}
    counted = evidence(path)
    assert counted.keys() == told.keys()
    for name, row in counted.items():
        assert {key: told[name][key] for key in row} == row
