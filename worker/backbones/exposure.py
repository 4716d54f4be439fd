"""Which of the wanted classes the backbone has learned from images of. No torch.

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
from worker.backbones import text
from worker.backbones.text import TextEncoder

IMAGENET, CAPTIONS = "ImageNet-1k", "captioned images"

# Above this cosine two names say the same thing to the encoder.
SAME = 0.9
# English plurals, longest ending first; "ss" is no plural.
PLURALS = (("ies", "y"), ("ches", "ch"), ("shes", "sh"), ("sses", "ss"), ("xes", "x"), ("ss", "ss"), ("s", ""))

# Where the part of a WordNet definition ends whose last word says what a thing is: "a cat with a grey coat".
PARTICULARS = re.compile(
    r"[;(]|\b(?:with|that|which|who|whose|where|when|than|larger|smaller|used|using|for|having|resembling|made|in|on|from|"
    r"to|by|at|as|and|or|native|is|are|consisting|covered|usually|like)\b"
)


# "n02099601_golden_retriever", "001.Black_footed_Albatross".
NUMBERED = re.compile(r"^n?\d+[\W_]+(?=\S)")
# A shorter part of a name is no word that says what a thing is.
MIN_PART = 3


def exposure(names: Sequence[str], encoder: TextEncoder) -> list[dict[str, Any]]:
    """Classes that the pretraining had images of.

    `by` says how that is known: `name`, a pretraining class is called so, in the singular or the plural; `text`, the
    encoder takes two names for the same; `includes`, pretraining classes are kinds of it by WordNet's definition of
    them, as a hammer is a "hand tool" and "hot dog" no dog. `pretraining_class` is the likest of them to the encoder,
    `num_pretraining_classes` how many there are.
    """
    labels = encoder.labels
    words = [(number, key(lemma)) for number, lemma in labels.lemmas]
    kinds_K = [kinds(definition) for definition in labels.descriptions]
    named_CE = encoder.encode([text.spoken(name) for name in names])
    by_lemma_KC = np.full((len(labels.names), len(names)), -1.0)
    np.maximum.at(by_lemma_KC, [number for number, _ in words], labels.lemmas_ME @ named_CE.T)
    by_class_KC = labels.vectors_KE @ named_CE.T
    found = []
    for row, name in enumerate(names):
        wanted = key(name)
        witnesses: dict[str, tuple[list[int], NDArray[np.floating]]] = {
            "name": ([number for number, word in words if word == wanted], by_lemma_KC[:, row]),
            "text": (np.flatnonzero(by_lemma_KC[:, row] >= SAME).tolist(), by_lemma_KC[:, row]),
            "includes": ([number for number, said in enumerate(kinds_K) if wanted in said], by_class_KC[:, row]),
        }
        for by, (numbers, alike_K) in witnesses.items():
            if numbers:
                best = max(numbers, key=lambda number: alike_K[number])
                found.append(
                    {
                        "name": name,
                        "pretraining_class": labels.names[best],
                        "by": by,
                        "cosine": float(alike_K[best]),
                        "num_pretraining_classes": len(set(numbers)),
                    }
                )
                break
    return found


def named(names: Sequence[str], known: Sequence[str], definitions: Sequence[str]) -> list[dict[str, Any]]:
    """As `exposure`, by names and definitions alone: no encoder is opened, which every report can afford.

    A synonym is missed here that the encoder would see; `pretraining_class` is the first of several. A folder's name
    may be a path in a tree of classes ("animal_mammal"): where its whole is neither a name nor a kind, one of the words
    between its underscores may be, and `by` is `part`.

    Args:
        names: of the wanted classes.
        known: names of the pretraining's classes.
        definitions: of these.
    """
    called: dict[str, list[int]] = {}
    for number, lemma in text.lemmas(known):
        called.setdefault(key(lemma), []).append(number)
    included: dict[str, list[int]] = {}
    for number, definition in enumerate(definitions):
        for kind in kinds(definition):
            included.setdefault(kind, []).append(number)
    found = []
    for name in names:
        whole = key(name)
        parts = [part for part in map(key, name.split("_")) if len(part) >= MIN_PART] if "_" in name else []
        tried = [("name", called, whole), ("includes", included, whole)]
        tried += [("part", known_by, part) for part in parts for known_by in (called, included)]
        by, numbers = next(((by, known_by[word]) for by, known_by, word in tried if word in known_by), ("", []))
        if numbers:
            found.append(
                {
                    "name": name,
                    "pretraining_class": known[numbers[0]],
                    "by": by,
                    "num_pretraining_classes": len(set(numbers)),
                }
            )
    return found


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


def kinds(definition: str) -> set[str]:
    """What a definition calls its subject: "a wheeled, motorised vehicle used for camping" -> "vehicle".

    Nothing where it is cut at "and" or "or": most of the 101 such definitions of ImageNet's classes have a colour, a
    place or another adjective there ("small dark green or yellow ribbed squash").
    """
    said = definition.casefold()
    cut = PARTICULARS.search(said)
    if cut is not None and cut[0] in ("and", "or"):
        return set()
    head = said[: cut.start()] if cut else said
    return {singular(part.split()[-1]) for part in (head, head.partition(",")[0]) if part.split()}


def key(name: str) -> str:
    """A name as names are compared: in small letters and the singular, without what stands between its words.

    So "T-shirt", "t_shirt" and "T-Shirts" are one, "jack_o_lantern" is "jack-o'-lantern", and the number that folders
    of ImageNet or CUB begin with is no part of the name.
    """
    said = NUMBERED.sub("", text.spoken(name).casefold())
    return re.sub(r"[\W_]+", "", singular(said))


def singular(name: str) -> str:
    """A name with its last word in the singular: "sports cars" -> "sports car"."""
    if not name.endswith("s"):
        return name
    first, gap, last = name.rpartition(" ")
    for plural, ending in PLURALS:
        if last.endswith(plural) and len(last) > len(plural) + 1:
            return f"{first}{gap}{last.removesuffix(plural)}{ending}"
    return name
