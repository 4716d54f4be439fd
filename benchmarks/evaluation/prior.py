"""What a backbone's ImageNet accuracy is worth in pictures: the figures of docs/decisions/0012.

    python -m benchmarks.evaluation.prior [--data ../shared/data] [--draws 10]

For every pair of the starter backbones on every set: how far its difference is from that on ImageNet, and the
variance of one picture's paired difference. Then how much accuracy is lost by the first choice from a few images,
by what the prior counts for. Prints one JSON document.
"""

import argparse
import json
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app import backbones
from app.artifact import preprocess
from app.serving.runtime import Session
from app.settings import Settings
from benchmarks.evaluation import sets
from worker.backbones import prepared
from worker.ranking import evidence, order

ROOT = Path(__file__).parents[2]
SETS = ("stamps_photos", "emoji_google", "emoji_twitter", "digits", "mnist", "letters_sans")
BACKBONES = ("timm/tf_efficientnet_lite0", "timm/tf_efficientnet_lite1", "timm/tf_efficientnet_lite2",
             "torchvision/mobilenet_v2")  # fmt: skip
SIZES, WORTHS = (20, 50, 100, 200), (0, 10, 30, 100, 1000)
MAX_IMAGES = 1800

Floats = NDArray[np.float32]


def features(files: list[sets.File], backbone: str) -> Floats:
    """Pooled features of all pictures."""
    found = prepared.find(backbone, [Settings().prepared])
    assert found is not None
    session, shape = Session(found.graph), found.preprocess
    with ThreadPoolExecutor(2) as threads:
        parts = [
            session.run(np.stack(list(threads.map(lambda file: preprocess.load(file[1], shape), files[start:][:16]))))[
                0
            ]
            for start in range(0, len(files), 16)
        ]
    return np.concatenate(parts)


def decisive(feats_ND: Floats, labels_N: NDArray[np.int64]) -> evidence.Evidence:
    """What the features say, every picture alone in its group."""
    _, labels_N = np.unique(labels_N, return_inverse=True)
    return evidence.look(feats_ND, labels_N, np.arange(len(labels_N)), int(labels_N.max()) + 1, 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--fonts", type=Path, default=Path("/usr/share/fonts"))
    parser.add_argument("--draws", type=int, default=10)
    given = parser.parse_args()
    top1 = [float(one.rank or 0) for one in map(backbones.find, BACKBONES) if one]
    apart, variance, missing = {}, {}, []
    lost: dict[int, dict[int, list[float]]] = {size: {worth: [] for worth in WORTHS} for size in SIZES}
    rng = np.random.default_rng(0)
    for name in SETS:
        try:
            files = sets.files(name, given.data, given.fonts)
        except sets.NotFound as error:
            missing.append(str(error))
            continue
        files = files[:: -(-len(files) // MAX_IMAGES)]
        labels_N = np.unique([file.split("/")[0] for file, _ in files], return_inverse=True)[1]
        feats = [features(files, backbone) for backbone in BACKBONES]
        full = [decisive(one, labels_N) for one in feats]
        pairs = list(combinations(range(len(BACKBONES)), 2))
        differences = [full[a].decisive_N - full[b].decisive_N for a, b in pairs]
        known = [(top1[a] - top1[b]) / 100 for a, b in pairs]
        apart[name] = [float(one.mean()) - other for one, other in zip(differences, known, strict=True)]
        variance[name] = [float(one.var()) for one in differences]
        truth = [one.folds_RN.mean() for one in full]
        for size in (one for one in SIZES if one < len(files)):
            for _ in range(given.draws):
                rows = rng.permutation(len(files))[:size]
                accuracy = np.array([decisive(one[rows], labels_N[rows]).decisive_N.mean() for one in feats])
                expected = order.prior(top1, accuracy)
                for worth in WORTHS:
                    weight = worth / (size + worth)
                    first = int(((1 - weight) * accuracy + weight * expected).argmax())
                    lost[size][worth].append(float(max(truth) - truth[first]))
    print(json.dumps(_document(apart, variance, lost, missing), indent=1))


def _document(
    apart: dict[str, list[float]],
    variance: dict[str, list[float]],
    lost: dict[int, dict[int, list[float]]],
    missing: list[str],
) -> dict[str, Any]:
    def worth(names: list[str]) -> float:
        squared = np.mean([np.square(apart[name]) for name in names])
        return round(float(np.mean([variance[name] for name in names]) / squared), 1)

    every = list(apart)
    return {
        "pictures": worth(every),
        "root_mean_square": round(float(np.sqrt(np.mean([np.square(apart[name]) for name in every]))), 4),
        "item_variance": round(float(np.mean([variance[name] for name in every])), 4),
        "by_set": {name: worth([name]) for name in every},
        "points_lost": {
            size: {count: round(100 * float(np.mean(values)), 2) for count, values in row.items() if values}
            for size, row in lost.items()
        },
        "missing": missing,
    }


if __name__ == "__main__":
    main()
