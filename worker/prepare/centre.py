"""The mean feature of a prepared backbone over pictures that are neither the user's nor a test's. No torch.

Rows made from text are met by the centred feature (worker/methods/zero_shot.py), and a job without a dataset has no
images to take a mean from. So one is shipped with the backbone: that of the drawings in examples/data/emoji.zip, the
only pictures that come with Graft. They are drawings on white: right for cut-outs and drawings, less so for photos of
whole scenes, which is why a dataset's own mean goes before it wherever there is one. Record and report name it.
"""

import json
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.artifact import preprocess
from app.artifact.tensors import dump
from app.errors import JobFailure
from app.serving.runtime import Session
from worker.backbones import prepared, weights
from worker.backbones.prepared import RECORD, Prepared

CENTRE = "centre.safetensors"
PICTURES = Path(__file__).parents[2] / "examples" / "data" / "emoji.zip"
WHAT = "drawings of Noto Emoji, examples/data/emoji.zip"
MAX_PIXELS = 2**20


@dataclass(frozen=True)
class Centre:
    """What is subtracted from a feature before it meets rows made from text.

    Shape:
        mean_D: [D]
    """

    mean_D: NDArray[np.float32]
    what: str
    num_images: int


def read(backbone: Prepared) -> Centre:
    """The mean that was shipped with a backbone.

    Raises:
        JobFailure: weights_unavailable, it was prepared by a Graft that did not ship one.
    """
    from safetensors.numpy import load_file

    if "centre" not in backbone.record:
        raise JobFailure(
            "weights_unavailable",
            f"expected {backbone.name} prepared with a mean feature; found one without; prepare it again: "
            f"`python -m worker.prepare {backbone.name}`, or give a dataset whose images the mean is taken from",
        )
    found: dict[str, Any] = backbone.record["centre"]
    return Centre(load_file(backbone.folder / CENTRE)["mean"], found["what"], found["num_images"])


def add(backbone: Prepared, pictures: Path = PICTURES) -> Prepared:
    """Computes the mean and writes it into the prepared folder; the record is replaced last and whole."""
    if "centre" in backbone.record:
        return backbone
    features_ND = features(backbone, pictures)
    (backbone.folder / CENTRE).write_bytes(dump({"mean": features_ND.mean(0, dtype=np.float64).astype(np.float32)}))
    record = dict(backbone.record)
    record["files"] = {**record["files"], CENTRE: weights.sha256_file(backbone.folder / CENTRE)}
    record["centre"] = {"what": WHAT, "num_images": len(features_ND), "sha256": weights.sha256_file(pictures)}
    draft = backbone.folder / f".{RECORD}.{os.getpid()}"
    draft.write_text(json.dumps(record, indent=1, sort_keys=True))
    draft.replace(backbone.folder / RECORD)
    return prepared.read(backbone.folder)


def features(backbone: Prepared, pictures: Path) -> NDArray[np.float32]:
    """Features of every picture of a zip.

    Shape:
        result: [N, D]
    """
    session = Session(backbone.graph)
    with zipfile.ZipFile(pictures) as archive:
        names = [name for name in sorted(archive.namelist()) if not name.endswith("/")]
        images = [preprocess.load(archive.read(name), backbone.preprocess, MAX_PIXELS) for name in names]
    return session.run(np.stack(images))[0]
