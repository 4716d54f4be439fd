"""The prepared text encoder: class names and descriptions to vectors. Run by onnxruntime, so a job needs no torch.

How a class becomes a vector is fixed here, for the user's classes and for the pretraining's alike:

- its name as it stands, underscores read as spaces;
- where it has a description, the mean of the vectors of `name` and of `name: description`, brought to length 1.

Shape legend: N texts, L tokens, E width of the embedding.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.artifact.scores import unit
from app.errors import JobFailure
from worker.backbones import prepared

NAME = "text/all-minilm-l6-v2"
GRAPH, TOKENIZER, LABELS, VECTORS = "encoder.onnx", "tokenizer.json", "labels.json", "labels.safetensors"
TOKENS, MASK = "tokens", "mask"
# What the encoder was trained with; a longer text is cut there.
MAX_TOKENS = 256
BATCH_TEXTS = 64
# Cosine above which two classes are one to the encoder: equal texts differ by rounding alone, about 1e-7.
ALIKE = 1 - 1e-5

Float = NDArray[np.float32]


@dataclass(frozen=True)
class Labels:
    """The classes that ImageNet classifiers know, in their order, and their vectors.

    Shape:
        vectors_KE: [K, E]
        lemmas_ME: [M, E], of every single name
    """

    names: tuple[str, ...]
    descriptions: tuple[str, ...]
    vectors_KE: Float
    lemmas_ME: Float

    @property
    def lemmas(self) -> list[tuple[int, str]]:
        """Every name of every class, with the class's number; in the order of `lemmas_ME`."""
        return lemmas(self.names)


@dataclass(frozen=True)
class TextEncoder:
    """A prepared text encoder: a folder with its graph, its tokenizer and the pretraining's classes."""

    folder: Path
    record: dict[str, Any]

    @property
    def digest(self) -> str:
        """Over weights, tokenizer and the limit of tokens."""
        return str(self.record["digest"])

    def document(self) -> dict[str, Any]:
        """For reports: which encoder it was, under which licence."""
        return {name: self.record[name] for name in ("name", "digest", "licence", "dim")}

    @cached_property
    def words(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Names and descriptions of the pretraining's classes; a report wants no more, and reads no vectors."""
        found = json.loads((self.folder / LABELS).read_text())
        return tuple(found["names"]), tuple(found["descriptions"])

    @cached_property
    def labels(self) -> Labels:
        """The pretraining's classes; their vectors were computed at preparation."""
        from safetensors.numpy import load_file

        arrays = load_file(self.folder / VECTORS)
        return Labels(*self.words, arrays["vectors"], arrays["lemmas"])

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
        parts = [self._batch(texts[start : start + BATCH_TEXTS]) for start in range(0, len(texts), BATCH_TEXTS)]
        return np.concatenate(parts)

    def classes(self, names: Sequence[str], descriptions: Sequence[str]) -> Float:
        """Vectors of classes, by the rule of this module; an empty description is none.

        Shape:
            result: [N, E]
        """
        plain = [spoken(name) for name in names]
        vectors_NE = self.encode(plain)
        described = [row for row, text in enumerate(descriptions) if text]
        if described:
            longer_NE = self.encode([f"{plain[row]}: {descriptions[row]}" for row in described])
            vectors_NE[described] = unit(vectors_NE[described] + longer_NE)
        return vectors_NE

    def _batch(self, texts: Sequence[str]) -> Float:
        tokens_NL, mask_NL = tokenise(self._tokenizer, texts)
        vectors: Float = self._session.run(None, {TOKENS: tokens_NL, MASK: mask_NL})[0]
        return vectors


def lemmas(names: Sequence[str]) -> list[tuple[int, str]]:
    """Every single name of classes that have several, with the class's number."""
    return [(number, lemma) for number, several in enumerate(names) for lemma in several.split(", ")]


def spoken(name: str) -> str:
    """A class's name as one would say it: folders write spaces as underscores."""
    return " ".join(name.replace("_", " ").split())


def check_apart(names: Sequence[str], vectors_CE: Float) -> None:
    """Refuses classes that are one to the encoder, as signs are that it has no words for.

    Shape:
        vectors_CE: [C, E], of length 1

    Raises:
        JobFailure: classes_alike.
    """
    alike_CC = np.triu(vectors_CE @ vectors_CE.T, 1) > ALIKE
    if alike_CC.any():
        pairs = [f"{names[row]!r} and {names[column]!r}" for row, column in np.argwhere(alike_CC)[:5]]
        raise JobFailure(
            "classes_alike",
            f"expected classes that the text encoder tells apart; found equal vectors of {', '.join(pairs)}; use other "
            "words, or describe each class",
        )


def find(roots: Sequence[Path]) -> TextEncoder:
    """The prepared text encoder of the first root that has it.

    Raises:
        JobFailure: weights_unavailable.
    """
    folder = prepared.find_folder(NAME, roots)
    if folder is None:
        raise JobFailure(
            "weights_unavailable",
            f"expected the text encoder {NAME}, prepared; found none in {', '.join(map(str, roots))}; run `make setup`",
        )
    return TextEncoder(folder, json.loads((folder / prepared.RECORD).read_text()))


def open_graph(path: Path) -> Any:
    """An encoder's graph in onnxruntime, on the processor: texts are few."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def open_tokenizer(path: Path) -> Any:
    """The tokenizer without the padding to 128 and the cut that its file asks for: both are set here."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.enable_truncation(MAX_TOKENS)
    tokenizer.enable_padding(pad_id=0)
    return tokenizer


def tokenise(tokenizer: Any, texts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Token numbers and mask, padded to the longest of these texts.

    Shape:
        result: [N, L], [N, L]
    """
    found = tokenizer.encode_batch(list(texts))
    return np.array([one.ids for one in found], np.int64), np.array([one.attention_mask for one in found], np.int64)
