"""Class-mean accuracy of zero-shot transfer on all images of some sets, of which no image has a say in anything.

    python benchmarks/zero_shot.py [--data ../shared/data]

stamps_photos (Debian package tuxpaint-stamps-default), emoji_google and emoji_twitter (npm packages
emoji-datasource-google, -twitter). Features are centred by a mean from elsewhere: the one that is shipped with the
backbone (of Google's drawings), and on emoji_google itself that of emoji_twitter. Beside it stands what the mean of
quite other images gives (photos of stamps, on emoji), and what the set's own mean gives, as a job with an unlabelled
dataset has it. How ConSE is centred was settled on emoji_twitter; the others had no say. Prints one JSON document; sets
that are not found are named.
"""

import argparse
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from app.recipes import ZeroShot
from app.settings import Settings
from worker import centre, prepared, text
from worker.centre import Centre
from worker.evaluate import intervals
from worker.methods import zero_shot

BACKBONE = "timm/tf_efficientnet_lite0"
GOALS = {"stamps_photos": 0.60, "emoji_google": 0.22, "emoji_twitter": 0.22}
ELSEWHERE = {"stamps_photos": None, "emoji_google": "emoji_twitter", "emoji_twitter": None}


def labels_of(archive: Path) -> list[str]:
    with zipfile.ZipFile(archive) as opened:
        return [Path(name).parent.name for name in sorted(opened.namelist()) if not name.endswith("/")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    given = parser.parse_args()
    prepared_root = Settings().prepared
    backbone = prepared.find(BACKBONE, [prepared_root])
    assert backbone is not None
    encoder, known = text.find([prepared_root]), zero_shot.read_classifier(backbone)
    assert known is not None
    archives = {name: given.data / f"{name}.zip" for name in GOALS}
    features = {name: centre.features(backbone, path) for name, path in archives.items() if path.is_file()}
    document: dict[str, Any] = {"not_found": sorted(GOALS.keys() - features.keys()), "backbone": BACKBONE}
    for name, feats_ND in features.items():
        labels = labels_of(archives[name])
        classes = sorted(set(labels))
        truth = np.array([classes.index(label) for label in labels])
        recipe = ZeroShot.model_validate({"classes": [{"name": one} for one in classes]})
        vectors_CE = zero_shot.wanted_vectors(recipe, encoder)
        other = ELSEWHERE[name]
        if other is None:
            middle = centre.read(backbone)
        elif other in features:
            middle = Centre(features[other].mean(0), f"images of {other}", len(features[other]))
        else:
            document["not_found"].append(f"{other}, whose mean {name} needs")
            continue
        means = {"": middle, "_own_mean": Centre(feats_ND.mean(0), "the set's own", len(feats_ND))}
        if "emoji" in name and "stamps_photos" in features:
            stamps = features["stamps_photos"]
            means["_stamps_mean"] = Centre(stamps.mean(0), "images of stamps_photos", len(stamps))
        rows: dict[str, Any] = {"mean": middle.what, "num_images": len(truth), "chance": round(1 / len(classes), 3)}
        for approach in zero_shot.FROM_TEXT:
            for suffix, one in means.items():
                head, _ = zero_shot.from_text(approach, known, encoder, vectors_CE, one)
                predicted = head.probabilities(feats_ND).argmax(1)
                bound = intervals.bootstrap(truth, predicted, len(classes), 0)["balanced_accuracy"]
                rows[approach + suffix] = {
                    "class_mean": round(bound.value, 4),
                    "low": round(bound.low, 4),
                    "high": round(bound.high, 4),
                    "accuracy": round(float((predicted == truth).mean()), 4),
                }
        rows |= {"goal": GOALS[name], "meets_goal": rows["combined"]["class_mean"] >= GOALS[name]}
        document[name] = rows
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
