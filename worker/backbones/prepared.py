"""Reads prepared backbones: exported graphs and weights in a folder per digest. No torch, so any job may use it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from app.artifact.preprocess import Preprocess
from worker.backbones import weights

RECORD = "record.json"
GRAPH, PREFIX, WEIGHTS, CLASSIFIER = "backbone.onnx", "prefix.onnx", "weights.safetensors", "classifier.safetensors"
DRAFT = ".preparing-"


@dataclass(frozen=True, slots=True)
class Prepared:
    """One prepared backbone, as its record says.

    Args:
        name: of the catalogue.
        architecture: what the provider's library builds.
        digest: sha256 over weights, architecture, preprocessing and layer: the key of graphs and features.
        folder: where the files are.
        feature_dim: width of `features`.
        split: name of the first layer of the last stage; empty where the network has no proven split.
        activation_shape: of `prefix.onnx`'s output, without the batch; None without a split.
        num_params: without the classifier.
        licence: of the weights.
        preprocess: what `images` must look like.
        record: the whole record, with parity, library versions and the files' digests.
        new: tensors that the given weights had no value for, which are as random as they were made.
        num_new: parameters among them.
    """

    name: str
    architecture: str
    digest: str
    folder: Path
    feature_dim: int
    split: str
    activation_shape: tuple[int, ...] | None
    num_params: int
    licence: str
    preprocess: Preprocess
    record: dict[str, Any]
    new: tuple[str, ...] = ()
    num_new: int = 0

    @property
    def provider(self) -> str:
        """First part of the name: timm, torchvision, user."""
        return self.name.partition("/")[0]

    @property
    def graph(self) -> Path:
        """`images` uint8 [N, H, W, 3] -> `features` [N, D]."""
        return self.folder / GRAPH

    @property
    def prefix(self) -> Path | None:
        """`images` -> `activations` [N, *activation_shape]; None without a split."""
        return self.folder / PREFIX if self.activation_shape is not None else None

    @property
    def weights(self) -> Path:
        """State dict of the network without its classifier."""
        return self.folder / WEIGHTS

    @property
    def classifier(self) -> Path | None:
        """`weight` [C, D] and `bias` [C] of the classifier that the weights came with; None where it is not plain."""
        path = self.folder / CLASSIFIER
        return path if CLASSIFIER in self.record["files"] else None


def read(folder: Path) -> Prepared:
    """The prepared backbone of a folder."""
    record: dict[str, Any] = json.loads((folder / RECORD).read_text())
    shape = dict(record["preprocess"])
    shape["mean"], shape["std"] = tuple(shape["mean"]), tuple(shape["std"])
    activation = record["activation_shape"]
    return Prepared(
        name=record["name"],
        architecture=record["architecture"],
        digest=record["digest"],
        folder=folder,
        feature_dim=record["feature_dim"],
        split=record["split"],
        activation_shape=None if activation is None else tuple(activation),
        num_params=record["num_params"],
        licence=record["licence"],
        preprocess=Preprocess(**shape),
        record=record,
    )


def pointer(name: str, root: Path) -> Path:
    """File that says which digest a name has under `root`."""
    return root / "names" / f"{name}.json"


def find(name: str, roots: Sequence[Path]) -> Prepared | None:
    """The prepared backbone of that name in the first root that has it, or None."""
    folder = find_folder(name, roots)
    # Two names may hold equal weights: one folder, whose record has the first name.
    return None if folder is None else replace(read(folder), name=name)


def find_folder(name: str, roots: Sequence[Path]) -> Path | None:
    """The folder of what is prepared under a name, in the first root that has it, or None."""
    for root in roots:
        place = pointer(name, root)
        if place.is_file():
            folder: Path = root / json.loads(place.read_text())["digest"]
            if (folder / RECORD).is_file():
                return folder
    return None


def intact(folder: Path) -> bool:
    """Whether a prepared folder is there, and every file has the content that its record names."""
    record = folder / RECORD
    if not record.is_file():
        return False
    files: dict[str, str] = json.loads(record.read_text())["files"]
    return all((folder / name).is_file() and weights.sha256_file(folder / name) == sha for name, sha in files.items())


def move(folder: Path, place: Path) -> None:
    """Puts a finished folder in its place, unless another process was first; a damaged one gives way."""
    if place.exists():
        if intact(place):
            return
        place.rename(folder.parent / "damaged")
    folder.rename(place)


def point(name: str, digest: str, root: Path) -> None:
    """Says which digest a name has under `root`."""
    place = pointer(name, root)
    place.parent.mkdir(parents=True, exist_ok=True)
    draft = place.with_name(f".{place.name}.{digest[:8]}")
    draft.write_text(json.dumps({"name": name, "digest": digest}))
    draft.replace(place)
