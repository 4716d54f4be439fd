"""Labelled source, unlabelled target: what the chosen adaptation gains over the source's own probe.

Emoji: the same names are hidden from source and target, and both models are scored on the hidden target pictures.
Elsewhere all target pictures are scored, since their labels are never used.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from benchmarks.evaluation import sets
from benchmarks.evaluation.intervals import over_seeds
from benchmarks.evaluation.lab import Lab
from benchmarks.evaluation.sets import File

PAIRS = (
    ("emoji_google", "emoji_twitter"),
    ("emoji_twitter", "emoji_google"),
    ("digits", "mnist"),
    ("letters_sans", "letters_serif"),
    ("letters_serif", "letters_comic"),
)
HIDDEN = {"emoji_google", "emoji_twitter"}
HIDDEN_SHARE = 0.3
# Enough for every candidate on any machine: a figure must not depend on how busy this one was.
MINUTES = 120
# Of the digits: as many of each class as are quickly read by torch, for batch norm, in every run.
SMALL = {"digits": 100, "mnist": 100}


def run(lab: Lab) -> Iterator[dict[str, Any]]:
    """Accuracy on the target of the source's probe and of the chosen adaptation; pair by pair, since it takes long.

    Pairs that were measured with as many seeds stand.
    """
    known = lab.known.get("adaptation", {}).get("rows", [])
    rows: list[dict[str, Any]] = [one for one in known if len(one["chosen"]) == len(lab.seeds)]
    stand = {(one["source"], one["target"]) for one in rows}
    missing = []
    for source, target in PAIRS:
        if (source, target) in stand:
            continue
        try:
            ours, theirs = (_few(lab, name) for name in (source, target))
        except sets.NotFound as error:
            missing.append(str(error))
            continue
        found: dict[str, list[float]] = {"source_only": [], "adapt": []}
        chosen = []
        for seed in lab.seeds:
            seen, scored = _hide(theirs, seed) if target in HIDDEN else (theirs, theirs)
            names = {name for name, _ in seen}
            kept = [one for one in ours if one[0] in names] if target in HIDDEN else ours
            source_set = lab.store(f"{source}-to-{target}", kept, seed)
            target_set = lab.store(f"{target}-from-{source}", seen, seed)
            plain = lab.run({"method": "linear_probe"}, source_set, seed=seed)
            recipe = {"method": "adapt", "source": source_set.id, "max_minutes": MINUTES}
            adapted = lab.run(recipe, target_set, seed=seed, source=source_set)
            found["source_only"].append(lab.accuracy(plain, scored))
            found["adapt"].append(lab.accuracy(adapted, scored))
            chosen.append(adapted["report"]["served"]["what"])
        gains = np.subtract(found["adapt"], found["source_only"]).tolist()
        rows.append(
            {
                "source": source,
                "target": target,
                "scored": "pictures hidden from both"
                if target in HIDDEN
                else "all of the target, fitted to without labels",
                **{name: over_seeds(values) for name, values in found.items()},
                "gain": over_seeds(gains),
                "chosen": chosen,
            }
        )
        yield {"rows": rows, "not_found": missing}


def _few(lab: Lab, name: str) -> list[File]:
    pictures = lab.files(name)
    return sets.per_class(pictures, SMALL[name], 0) if name in SMALL else pictures


def _hide(pictures: Sequence[File], seed: int) -> tuple[list[File], list[File]]:
    """Pictures that may be seen, and those that are hidden."""
    hidden = np.zeros(len(pictures), bool)
    chance = np.random.default_rng(seed)
    hidden[chance.permutation(len(pictures))[: int(HIDDEN_SHARE * len(pictures))]] = True
    return (
        [one for one, away in zip(pictures, hidden, strict=True) if not away],
        [one for one, away in zip(pictures, hidden, strict=True) if away],
    )
