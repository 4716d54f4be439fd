"""The prepared text tower of a model that has one (CLIP, SigLIP): class names to vectors in the images' own space.

Run by onnxruntime, tokens by the tokenizer file that lies beside the graph, so a job needs neither torch nor open_clip.
How a class becomes a vector is fixed here: its name, underscores read as spaces, goes into each of TEMPLATES, with its
description after it where it has one; the vectors are averaged and brought to length 1 (arXiv 2103.00020, section
3.1.4, which has 80 templates for ImageNet; these are the first choice there and the seven that its authors found best
by search on ImageNet).

Shape legend: N texts, L tokens, E width of the embedding.
"""

import html
import json
import string
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.artifact.scores import unit
from worker.backbones import prepared
from worker.backbones.text import open_graph, spoken

GRAPH, TOKENIZER = "text.onnx", "tokenizer.json"
TOKENS, VECTORS = "tokens", "vectors"
BATCH_TEXTS = 64
TEMPLATES = (
    "a photo of a {}.",
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)

Float = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class TokenRules:
    """What is done around the tokenizer file, since models differ in it.

    Args:
        clean: of the text, before: `lower`, `canonicalize` (no punctuation either) or `whitespace`.
        length: of every sequence; a longer text is cut, a shorter one padded.
        start: put before the tokens; None where the file itself adds what belongs around them.
        end: put after them, and last where they were cut; None likewise.
        pad: fills up.
        pad_left: whether it fills up in front.
        dropped: token that the model never saw and that becomes 0; None where there is none.
    """

    clean: str
    length: int
    start: int | None
    end: int | None
    pad: int
    pad_left: bool = False
    dropped: int | None = None


@dataclass(frozen=True)
class ClipText:
    """A prepared text tower: a folder with its graph and its tokenizer."""

    folder: Path
    record: dict[str, Any]

    @property
    def digest(self) -> str:
        """Over weights, tokenizer and rules."""
        return str(self.record["digest"])

    @property
    def logit_scale(self) -> float:
        """What the model multiplies cosines by."""
        return float(self.record["logit_scale"])

    def document(self) -> dict[str, Any]:
        """For reports: which encoder it was, under which licence."""
        return {name: self.record[name] for name in ("name", "digest", "licence", "dim")}

    @cached_property
    def _session(self) -> Any:
        return open_graph(self.folder / GRAPH)

    @cached_property
    def _tokenizer(self) -> Any:
        return open_tokenizer(self.folder / TOKENIZER)

    def encode(self, texts: Sequence[str]) -> Float:
        """Vectors of length 1.

        Shape:
            result: [N, E]
        """
        tokens_NL = tokenise(self._tokenizer, TokenRules(**self.record["tokens"]), texts)
        parts = [
            self._session.run(None, {TOKENS: tokens_NL[start : start + BATCH_TEXTS]})[0]
            for start in range(0, len(texts), BATCH_TEXTS)
        ]
        return np.concatenate(parts)

    def classes(self, names: Sequence[str], descriptions: Sequence[str]) -> Float:
        """Vectors of classes, by the rule of this module; an empty description is none.

        Shape:
            result: [N, E]
        """
        texts = [text for name, told in zip(names, descriptions, strict=True) for text in prompts(name, told)]
        vectors_NTE = self.encode(texts).reshape(len(names), len(TEMPLATES), -1)
        return unit(vectors_NTE.mean(1)).astype(np.float32)


def prompts(name: str, description: str) -> list[str]:
    """The texts of one class."""
    plain = [template.format(spoken(name)) for template in TEMPLATES]
    return [f"{text.removesuffix('.')}: {description}" for text in plain] if description else plain


def find(name: str, roots: Sequence[Path]) -> ClipText | None:
    """The prepared text tower of the backbone of that name in the first root that has it, or None."""
    folder = prepared.find_folder(pointer_name(name), roots)
    if folder is None:
        return None
    record = json.loads((folder / prepared.RECORD).read_text())
    # Two tags may hold equal text towers: one folder, whose record has the first name.
    return ClipText(folder, {**record, "name": pointer_name(name)})


def pointer_name(name: str) -> str:
    """Under which name the text tower of a backbone is prepared."""
    return f"text/{name}"


def open_tokenizer(path: Path) -> Any:
    """The tokenizer without any padding or cut of its own: rules differ by model, and are kept beside it."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def tokenise(tokenizer: Any, rules: TokenRules, texts: Sequence[str]) -> NDArray[np.int64]:
    """Token numbers, every row as long as the model reads.

    Shape:
        result: [N, L]
    """
    cleaned = [CLEANERS[rules.clean](text) for text in texts]
    tokens_NL = np.full((len(texts), rules.length), rules.pad, np.int64)
    adds_ends = rules.end is None
    if adds_ends:
        # The file's own ends are kept when a text is cut: its truncation leaves room for them.
        tokenizer.enable_truncation(rules.length)
    for row, found in enumerate(tokenizer.encode_batch(cleaned, add_special_tokens=adds_ends)):
        ids = found.ids if adds_ends else [rules.start, *found.ids, rules.end]
        if len(ids) > rules.length:
            ids = [*ids[: rules.length - 1], rules.end]
        tokens_NL[row, rules.length - len(ids) if rules.pad_left else 0 :][: len(ids)] = ids
    if rules.dropped is not None:
        tokens_NL[tokens_NL == rules.dropped] = 0
    return tokens_NL


def basic_clean(text: str) -> str:
    """Mends broken encodings and HTML entities, as CLIP's tokenizer does."""
    import ftfy

    return html.unescape(html.unescape(ftfy.fix_text(text))).strip()


def _whitespace(text: str) -> str:
    return " ".join(basic_clean(text).split())


def _lower(text: str) -> str:
    # Twice, as CLIP's tokenizer does it.
    return _whitespace(_whitespace(text).lower()).lower()


def _canonicalize(text: str) -> str:
    plain = basic_clean(text).replace("_", " ").translate(str.maketrans("", "", string.punctuation))
    return " ".join(plain.lower().split())


CLEANERS = {"lower": _lower, "whitespace": _whitespace, "canonicalize": _canonicalize}
