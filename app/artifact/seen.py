"""seen.safetensors: which items a version was made from, one by one, so that it can be asked years later.

Datasets may be deleted and backbones travel; what was seen stays known by 50 bytes an item: the sample's id, the
sha256 of its bytes and its perceptual hash. One file holds the sets of every teacher, also of those that taught the
backbone under it.

Shape legend: N items.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

ID_BYTES, DIGEST_BYTES = 10, 32
# No perceptual hash: a plain area, or nobody computed one. It is near to nothing.
NO_LOOK = 0
What = Literal["dataset", "source", "unlabelled", "class_images"]
KINDS: tuple[What, ...] = get_args(What)
WITHOUT_LABELS: What = "unlabelled"
_ARRAYS = ("ids", "phash", "sha256")


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """The items of one teacher.

    Args:
        what: `dataset` (its labels were learned from), `source` (likewise, of an adaptation), `unlabelled` (fitted to
            without labels), `class_images` (a class was added from them; known by their bytes alone).
        id: of the dataset, or the label of the class.
        backbone: the own backbone that brought it along; empty where the version itself learned from it.
        ids: raw bytes of the samples' ids; zeros where they have none.
        sha256: of the images' bytes.
        phash: perceptual hashes; NO_LOOK where there is none.

    Shape:
        ids: [N, 10] uint8
        sha256: [N, 32] uint8
        phash: [N] uint64
    """

    what: What
    id: str
    backbone: str
    ids: NDArray[np.uint8]
    sha256: NDArray[np.uint8]
    phash: NDArray[np.uint64]

    @property
    def labelled(self) -> bool:
        """Whether labels were learned from, and not only looks."""
        return self.what != WITHOUT_LABELS

    def describe(self) -> dict[str, Any]:
        """What a document says of it."""
        return {"what": self.what, "id": self.id, "num_items": len(self.sha256)}


def of_class(label: str, digests: Sequence[bytes]) -> Seen:
    """The images of a class that was added: no samples of a dataset, and nobody hashed their looks.

    Args:
        label: of the class.
        digests: sha256 of each image's bytes.
    """
    num = len(digests)
    return Seen(
        "class_images",
        label,
        "",
        np.zeros((num, ID_BYTES), np.uint8),
        np.frombuffer(b"".join(digests), np.uint8).reshape(num, DIGEST_BYTES),
        np.full(num, NO_LOOK, np.uint64),
    )


def pack(teachers: Sequence[Seen]) -> dict[str, NDArray[Any]]:
    """Named arrays; hashes as signed numbers, which the format has."""
    found: dict[str, NDArray[Any]] = {}
    for place, one in enumerate(teachers):
        key = (place, one.what, one.id, one.backbone)
        arrays: tuple[NDArray[Any], ...] = (one.ids, one.phash.view(np.int64), one.sha256)
        found |= {json.dumps([*key, name]): array for name, array in zip(_ARRAYS, arrays, strict=True)}
    return found


def unpack(arrays: Mapping[str, NDArray[Any]]) -> tuple[Seen, ...]:
    """The inverse of `pack`."""
    parts: dict[tuple[int, What, str, str], dict[str, NDArray[Any]]] = {}
    for key, array in arrays.items():
        place, what, name, backbone, part = json.loads(key)
        parts.setdefault((place, what, name, backbone), {})[part] = array
    return tuple(
        Seen(what, name, backbone, found["ids"], found["sha256"], found["phash"].view(np.uint64))
        for (_, what, name, backbone), found in sorted(parts.items(), key=lambda row: row[0][0])
    )
