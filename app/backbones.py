"""Source models that Graft knows: the generated catalogue, read without torch.

`app/data/backbones.json` is written by `make catalogue` (worker.prepare.catalogue) from the installed timm, torchvision
and open_clip.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from app.artifact.preprocess import Preprocess
from app.bodies import BODY, FROM_LIST
from app.errors import BadRequest, Unprocessable

CATALOGUE = Path(__file__).parent / "data" / "backbones.json"
OPEN_CLIP = "open_clip"
# The provider of what a project has added itself.
OWN = "user"
# What a file of weights may take: of the network's parameters in single precision so many times, since a training in
# double precision leaves them twice as large, with Adam's two moments and a moving average of the same size each.
CHECKPOINT_COPIES = 8
# Beside that a classifier, which `num_params` leaves out: of 21,841 classes on 768 features, as often. And the text
# tower of a model that has two, some 300 million parameters whatever the size of the other.
CLASSIFIER_BYTES = 512 * 2**20
TEXT_TOWER_BYTES = 4 * 2**30


@dataclass(frozen=True, slots=True)
class Weights:
    """Where a backbone's weights come from.

    Args:
        kind: `starter` (a file inside an installed package), `hub` (a file of a hub repository), `url` (an address that
            torchvision names), `user` (uploaded).
        location: package name, hub repository, address, or storage key.
        file: path inside the package or repository; empty otherwise.
        sha256: hex digest, or the prefix that the publisher states; empty where none is published.
        size_bytes: None where it is not published.
        classifier: whether the classifier of the pretraining comes with them.
    """

    kind: str
    location: str
    file: str = ""
    sha256: str = ""
    size_bytes: int | None = None
    classifier: bool = True


@dataclass(frozen=True, slots=True)
class Backbone:
    """One source model: architecture, weights, input, licence.

    Args:
        name: `provider/architecture`, unique.
        provider: timm, torchvision, open_clip, or user.
        architecture: name that the provider's library builds.
        num_params: without the classifier.
        feature_dim: width of the pooled features.
        preprocess: what its input looks like.
        licence: SPDX id where known, else the publisher's words.
        paper: arXiv id or title; empty where unknown.
        recommended: first choice for `auto`.
        rank: expected transfer quality, higher is better (ImageNet top-1, per cent); None where unknown.
        weights: where the weights come from.
        attention: whether it has attention with linear layers, which is what LoRA adapts.
    """

    name: str
    provider: str
    architecture: str
    num_params: int
    feature_dim: int
    preprocess: Preprocess
    licence: str
    paper: str
    recommended: bool
    rank: float | None
    weights: Weights
    attention: bool = False

    @property
    def text_tower(self) -> bool:
        """Whether a text encoder was trained with it, so that words are compared with its features directly."""
        return self.provider == OPEN_CLIP

    @property
    def tag(self) -> str:
        """Which of the architecture's weights: what follows it in the name; empty for the default ones."""
        return self.name.removeprefix(f"{self.provider}/{self.architecture}").removeprefix(".")


Share = Annotated[float, Field(ge=0, le=1)]
Side = Annotated[int, Field(ge=16, le=1024)]
Scale = Annotated[float, Field(gt=0, le=1)]


class InputChanges(BaseModel):
    """What differs in the input of own weights from that of their architecture; None is as the architecture has it."""

    model_config = BODY

    height: Side | None = Field(None, description="Pixels.")
    width: Side | None = Field(None, description="Pixels.")
    resize: Annotated[int, Field(ge=16, le=2048)] | None = Field(
        None, description="Shorter side before the centre crop; by default in proportion to height and width."
    )
    interpolation: Literal["bilinear", "bicubic"] | None = None
    mean: Annotated[tuple[Share, Share, Share], FROM_LIST] | None = Field(
        None, description="Of each channel, on a scale of 0 to 1."
    )
    std: Annotated[tuple[Scale, Scale, Scale], FROM_LIST] | None = Field(
        None, description="Of each channel, on a scale of 0 to 1."
    )

    def applied(self, shape: Preprocess) -> Preprocess:
        """An architecture's input with these changes.

        Raises:
            Unprocessable: the picture would be smaller than the crop.
        """
        given = self.model_dump(exclude_none=True)
        if "resize" not in given:
            longer = max(given.get("height", shape.height), given.get("width", shape.width))
            given["resize"] = round(longer * shape.resize / max(shape.height, shape.width))
        changed = replace(shape, **given)
        crop = max(changed.height, changed.width)
        if changed.resize < crop:
            at = {"pointer": "/input/resize", "detail": f"Input should be at least {crop}"}
            raise Unprocessable(
                f"expected input.resize of at least {crop}, which is cropped from it; found {changed.resize}; "
                "leave it out, or make it larger",
                errors=[at],
            )
        return changed


def check_checkpoint_size(backbone: Backbone, size_bytes: int) -> None:
    """Refuses a file of weights that cannot be one of that architecture: to open it takes memory by its size.

    Raises:
        BadRequest: code weights_too_large.
    """
    beside = CLASSIFIER_BYTES + (TEXT_TOWER_BYTES if backbone.text_tower else 0)
    most = CHECKPOINT_COPIES * 4 * backbone.num_params + beside
    if size_bytes > most:
        raise BadRequest(
            f"expected a checkpoint of at most {most} bytes, {CHECKPOINT_COPIES} times the weights in single precision "
            f"and {beside} bytes beside; found {size_bytes} bytes for {backbone.name}; save the model's state_dict() "
            "alone, or name the architecture that it was trained as",
            code="weights_too_large",
        )


def from_document(document: dict[str, Any]) -> Backbone:
    """The catalogue's JSON row -> Backbone; the inverse of `dataclasses.asdict`."""
    fields = dict(document)
    shape = preprocess_from(fields.pop("preprocess"))
    return Backbone(preprocess=shape, weights=Weights(**fields.pop("weights")), **fields)


def preprocess_from(document: dict[str, Any]) -> Preprocess:
    """JSON -> Preprocess; the inverse of `dataclasses.asdict`."""
    return Preprocess(**{**document, "mean": tuple(document["mean"]), "std": tuple(document["std"])})


@cache
def _known() -> dict[str, Backbone]:
    """By name, read once: some 2,100 documents take 20 ms."""
    rows: list[dict[str, Any]] = json.loads(CATALOGUE.read_text())["backbones"]
    return {row["name"]: from_document(row) for row in rows}


def find(name: str) -> Backbone | None:
    """The catalogue's backbone of that name, or None."""
    return _known().get(name)


def catalogue() -> Iterator[Backbone]:
    """Every backbone of the catalogue, in its order (recommended first, then by name)."""
    return iter(_known().values())
