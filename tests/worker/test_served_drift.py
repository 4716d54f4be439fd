"""Drift of real pictures under a starter: the same drawings are no drift, another vendor's and blurred ones are."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from app.artifact import preprocess, reference
from app.serving import drift
from app.serving.moments import Moments
from app.serving.runtime import Session
from app.settings import Settings
from worker.backbones import prepared

DATA = Path(__file__).parents[2] / "examples" / "data"
LITE0 = "timm/tf_efficientnet_lite0"
NUM_ITEMS = NUM_IMAGES = 100


@pytest.fixture(scope="module")
def features():
    """Of the drawings, of the same blurred, and of another vendor's."""
    starter = prepared.find(LITE0, [Settings().prepared])
    assert starter is not None, "expected the starters; run `make setup`"
    session = Session(starter.graph, 1)

    def of(pictures):
        pixels = np.stack([preprocess.load(data, starter.preprocess) for data in pictures])
        return session.run(pixels)[session.output_names.index("features")]

    drawn, names = read("emoji.zip")
    other, _ = read("emoji_twitter.zip")
    return {"same": of(drawn), "blurred": of(map(blurred, drawn[::3])), "other": of(other[::3])}, np.array(names)


def read(archive):
    with zipfile.ZipFile(DATA / archive) as opened:
        names = sorted(info.filename for info in opened.infolist() if not info.is_dir())
        return [opened.read(name) for name in names], [Path(name).parent.name for name in names]


def blurred(data):
    picture = Image.open(io.BytesIO(data)).convert("RGBA")
    flat = Image.new("RGBA", picture.size, "white")
    flat.alpha_composite(picture)
    buffer = io.BytesIO()
    flat.convert("RGB").filter(ImageFilter.GaussianBlur(2)).save(buffer, "PNG")
    return buffer.getvalue()


def nearest_mean(features, names, labels):
    """A classifier: the nearest of the classes' means."""
    means = np.stack([features[names == label].mean(0) for label in labels])

    def probabilities(asked):
        logits = (asked @ means.T - np.square(means).sum(1) / 2) / 10
        odds = np.exp(logits - logits.max(1, keepdims=True))
        return odds / odds.sum(1, keepdims=True)

    return probabilities


def test_real_pictures_that_are_alike_are_stable_and_others_are_not(features):
    known, names = features
    labels, rng = sorted(set(names)), np.random.default_rng(0)
    drifts = dict.fromkeys(known, 0)
    for _ in range(40):
        order = rng.permutation(len(names))
        learned, held_out, rest = np.split(order, [len(order) - NUM_ITEMS - NUM_IMAGES, len(order) - NUM_IMAGES])
        head = nearest_mean(known["same"][learned], names[learned], labels)
        looks = reference.make(known["same"][held_out], head(known["same"][held_out]))
        for what, asked in {**known, "same": known["same"][rest]}.items():
            drifts[what] += drift.compare(looks, Moments.of(asked, head(asked)), labels).verdict == "drift"
    assert drifts["same"] <= 2
    assert drifts["blurred"] >= 39
    assert drifts["other"] >= 30
