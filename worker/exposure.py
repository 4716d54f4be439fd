"""Which of the wanted classes the backbone has learned from images of. No torch.

A class that is called unseen may be seen in the pretraining, and its accuracy is then no zero-shot accuracy (arXiv
1703.04394). The only witness is the pretraining's class names, and names are not meanings: what is not listed may still
lie under a broader or a narrower name.

Shape legend: C wanted classes, M lemmas of the pretraining's classes.
"""

from collections.abc import Sequence
from typing import Any

from worker import text
from worker.text import TextEncoder

# Above this cosine two names say the same thing to the encoder.
SAME = 0.9
# English plurals, longest ending first; "ss" is no plural.
PLURALS = (("ies", "y"), ("ches", "ch"), ("shes", "sh"), ("sses", "ss"), ("xes", "x"), ("ss", "ss"), ("s", ""))


def exposure(names: Sequence[str], encoder: TextEncoder) -> list[dict[str, Any]]:
    """Classes that the pretraining had images of.

    `by` says how that is known: `name`, a pretraining class is called so, in the singular or the plural; `text`, the
    encoder takes two names for the same; `includes`, pretraining classes are kinds of it by their last word, as "tabby
    cat" is of "cats". `pretraining_class` is the likest, `num_pretraining_classes` how many there are.
    """
    labels = encoder.labels
    numbers, lemmas = zip(*labels.lemmas, strict=True)
    words = [singular(lemma.casefold()) for lemma in lemmas]
    plain = [text.spoken(name) for name in names]
    alike_CM = encoder.encode(plain) @ labels.lemmas_ME.T
    found = []
    for row, name in enumerate(plain):
        wanted = singular(name.casefold())
        same = [place for place, word in enumerate(words) if word == wanted]
        kinds = [place for place, word in enumerate(words) if word.rpartition(" ")[2] == wanted]
        likest = int(alike_CM[row].argmax())
        near = [likest] if alike_CM[row, likest] >= SAME else []
        for by, places in (("name", same), ("text", near), ("includes", kinds)):
            if places:
                best = max(places, key=lambda place: alike_CM[row, place])
                found.append(
                    {
                        "name": names[row],
                        "pretraining_class": labels.names[numbers[best]],
                        "by": by,
                        "cosine": float(alike_CM[row, best]),
                        "num_pretraining_classes": len({numbers[place] for place in places}),
                    }
                )
                break
    return found


def singular(name: str) -> str:
    """A name with its last word in the singular: "sports cars" -> "sports car"."""
    first, gap, last = name.rpartition(" ")
    for plural, ending in PLURALS:
        if last.endswith(plural) and len(last) > len(plural) + 1:
            return f"{first}{gap}{last.removesuffix(plural)}{ending}"
    return name
