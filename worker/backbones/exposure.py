"""Which of the wanted classes the backbone may have learned from images of. No torch.

A class that is called unseen may be seen in the pretraining, and its accuracy is then no zero-shot accuracy (arXiv
1703.04394). The only witness is the pretraining's class names, and names are not meanings: what is not listed may still
lie under a broader or a narrower name.

Shape legend: C wanted classes, K classes of the pretraining, M lemmas of these.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app import backbones
from app.backbones import OPEN_CLIP
from worker.backbones import text, umbrellas
from worker.backbones.text import TextEncoder

IMAGENET, CAPTIONS = "ImageNet-1k", "captioned images"

# Above this cosine two names say the same thing to the encoder.
SAME = 0.9
# English plurals, longest ending first; "ss" is no plural.
PLURALS = (("ies", "y"), ("ches", "ch"), ("shes", "sh"), ("sses", "ss"), ("xes", "x"), ("ss", "ss"), ("s", ""))

# "n02099601_golden_retriever", "001.Black_footed_Albatross".
NUMBERED = re.compile(r"^n?\d+[\W_]+(?=\S)")
# A shorter part of a name is no word that says what a thing is.
MIN_PART = 3
# The table of umbrella words numbers the classes of this label set.
NUM_IMAGENET = 1000

# Which classes have a word, and how a match was found with them.
Words = dict[str, list[int]]
Match = tuple[str, list[int]]


class Known:
    """The names of a pretraining's classes, in the ways that they are looked up.

    A word of a class's definition is none of its names: a menu is no meal, though its definition has the word.

    Args:
        names: of the classes, in the label set's order; synonyms with commas between them.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        spelled: Words = {}
        called: Words = {}
        last: Words = {}
        for number, lemma in text.lemmas(names):
            spelled.setdefault(plain(lemma), []).append(number)
            called.setdefault(key(lemma), []).append(number)
            words = lemma.split()
            if len(words) > 1:
                last.setdefault(key(words[-1]), []).append(number)
        included: Words = {}
        if len(names) == NUM_IMAGENET:
            included = {key(word): list(umbrellas.numbers(word)) for word in umbrellas.RANGES}
        self.spelled, self.called, self.included, self.last = spelled, called, included, last

    def sure(self, name: str) -> Match:
        """The classes of the very name, or of its singular or plural."""
        if same := self.spelled.get(plain(name)):
            return "name", same
        return "plural", self.called.get(key(name), [])

    def guessed(self, name: str) -> Match:
        """The kinds of what a name says, or classes that share a whole word with it.

        An English name's last word says what a thing is: a Border terrier is a terrier. A folder's name may be a path
        in a tree of classes ("animal_mammal"), whose last words say most.
        """
        if kinds := self.included.get(key(name)):
            return "includes", kinds
        parts = [part for part in map(key, reversed(name.split("_"))) if len(part) >= MIN_PART] if "_" in name else []
        tried = [(self.last, key(name))]
        tried += [(table, part) for part in parts for table in (self.called, self.included, self.last)]
        return "part", next((table[word] for table, word in tried if word in table), [])


def exposure(names: Sequence[str], encoder: TextEncoder) -> list[dict[str, Any]]:
    """Classes that the pretraining had images of, or may have had.

    `by` says how that is known: `name`, a pretraining class has the very name, however it is written; `plural`, but for
    the singular or plural; `text`, the encoder takes two names for the same; `includes`, pretraining classes are kinds
    of it, as robins are of "bird"; `part`, a whole word of two names is the same. Only the first is no guess.
    `pretraining_class` is the likest of them to the encoder, `num_pretraining_classes` how many there are at least.
    """
    labels = encoder.labels
    known = Known(labels.names)
    named_CE = encoder.encode([text.spoken(name) for name in names])
    by_lemma_KC = np.full((len(labels.names), len(names)), -1.0)
    np.maximum.at(by_lemma_KC, [number for number, _ in labels.lemmas], labels.lemmas_ME @ named_CE.T)
    by_class_KC = labels.vectors_KE @ named_CE.T
    found = []
    for row, name in enumerate(names):
        alike_K: NDArray[np.floating] = by_lemma_KC[:, row]
        by, numbers = known.sure(name)
        if not numbers:
            by, numbers = "text", np.flatnonzero(alike_K >= SAME).tolist()
        if not numbers:
            by, numbers = known.guessed(name)
            alike_K = by_class_KC[:, row]
        if numbers:
            best = max(numbers, key=lambda number: alike_K[number])
            found.append({**_row(name, known, by, numbers, best), "cosine": float(alike_K[best])})
    return found


def named(names: Sequence[str], known: Known) -> list[dict[str, Any]]:
    """As `exposure`, by names alone: no encoder is opened, which every report can afford.

    A synonym is missed here that the encoder would see; `pretraining_class` is the first of several.
    """
    found = []
    for name in names:
        by, numbers = known.sure(name)
        if not numbers:
            by, numbers = known.guessed(name)
        if numbers:
            found.append(_row(name, known, by, numbers, numbers[0]))
    return found


def _row(name: str, known: Known, by: str, numbers: Sequence[int], best: int) -> dict[str, Any]:
    return {
        "name": name,
        "pretraining_class": known.names[best],
        "by": by,
        "num_pretraining_classes": len(set(numbers)),
    }


def pretraining(name: str) -> str | None:
    """What a backbone of the catalogue learned from: ImageNet's classes, captions, or None where that is not recorded.

    timm writes it into a tag of the weights. Weights that learned from more classes than ImageNet's 1000 count where
    these were taught last, or are among what was taught.
    """
    backbone = backbones.find(name)
    if backbone is None:
        return None
    if backbone.provider == OPEN_CLIP:
        return CAPTIONS
    if backbone.provider == "torchvision" or backbone.weights.kind == "starter":
        return IMAGENET
    tag = backbone.weights.location.rpartition(".")[2]
    return IMAGENET if re.search(r"in1k|in12k|in22k|in21k", tag) else None


def key(name: str) -> str:
    """A name as names are compared: in small letters and the singular, without what stands between its words.

    So "T-shirt", "t_shirt" and "T-Shirts" are one, "jack_o_lantern" is "jack-o'-lantern", and the number that folders
    of ImageNet or CUB begin with is no part of the name.
    """
    return re.sub(r"[\W_]+", "", singular(_said(name)))


def plain(name: str) -> str:
    """As `key`, but singular and plural are two."""
    return re.sub(r"[\W_]+", "", _said(name))


def _said(name: str) -> str:
    return NUMBERED.sub("", text.spoken(name).casefold())


def singular(name: str) -> str:
    """A name with its last word in the singular: "sports cars" -> "sports car"."""
    if not name.endswith("s"):
        return name
    first, gap, last = name.rpartition(" ")
    for plural, ending in PLURALS:
        if last.endswith(plural) and len(last) > len(plural) + 1:
            return f"{first}{gap}{last.removesuffix(plural)}{ending}"
    return name
