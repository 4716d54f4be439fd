"""Control of the verdict: weights that were spoilt on purpose are called harmful, good ones helpful, noise neither.

Whole jobs on a starter backbone. The differences are large, so that no seed and no busy machine turns them round: a
network from scratch gets the transfer's own wall time, which grows as the machine gets slower.
"""

import hashlib
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from app.settings import Settings
from app.storage import FolderStorage
from benchmarks.evaluation import sets
from tests import factories
from tests.conftest import COMPUTE_THREADS
from tests.worker import transfer_factories
from tests.worker.transfer_factories import Wire
from worker import transfer
from worker.attempt.context import RunContext
from worker.attempt.document import DatasetDocument, JobDocument
from worker.attempt.progress import Reporter
from worker.backbones import prepared
from worker.backbones.prepared import Prepared
from worker.data.ingest import IngestRequest, ingest
from worker.evaluate import robustness
from worker.ingestion import StoredDataset
from worker.prepare import sources

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "data"
PHOTOS = ROOT.parent / "shared" / "data" / "stamps_photos.zip"
# The photos are not ours to commit: where they are beside the checkout, they are one more case.
GOOD = ["emoji", *(["photos"] if PHOTOS.is_file() else [])]
# Drawings in one style are few, and the interval may end on either side of 0. In two styles the probe is 0.3 to 0.5
# ahead: what one style teaches a network from scratch does not hold in the other.
STYLES, EMOJI_PER_STYLE, DIGITS_PER_CLASS = ("emoji", "emoji_twitter"), 24, 50
NOISE = 3.0


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """Where all jobs of this file run."""
    return tmp_path_factory.mktemp("home")


def drawings(style: str) -> list[sets.File]:
    """The committed pictures of a style as class/style-file."""
    with zipfile.ZipFile(EXAMPLES / f"{style}.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".png"))
        return [("{}/{}-{}".format(name.split("/")[-2], style, Path(name).name), archive.read(name)) for name in names]


def good() -> Prepared:
    """The starter backbone."""
    found = prepared.find(factories.BACKBONE, [Settings().prepared])
    assert found is not None
    return found


@pytest.fixture(scope="module")
def spoilt(home) -> Prepared:
    """The same, every tensor drowned in noise of three times its own deviation: activations saturate.

    In the exported graph, which is what features come from: exporting takes longer than all else here. Shuffling within
    tensors would not do: random features of digits are as good as pretrained ones (cross-validated 0.89 against 0.88).
    """
    plain, chance = good(), np.random.default_rng(0)
    model = onnx.load(plain.graph)
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32:
            noise = chance.standard_normal(values.shape) * NOISE * values.std()
            tensor.CopyFrom(numpy_helper.from_array((values + noise).astype(np.float32), tensor.name))
    folder = home / "spoilt"
    shutil.copytree(plain.folder, folder)
    (folder / prepared.GRAPH).write_bytes(model.SerializeToString())
    digest = hashlib.sha256((folder / prepared.GRAPH).read_bytes()).hexdigest()
    return replace(plain, folder=folder, digest=digest)


def judged(home, name, archive, backbone, monkeypatch):
    """The report of a probe with its baselines."""
    storage, prefix = FolderStorage(home / "storage"), f"datasets/default/{name}"
    scratch = home / name
    scratch.mkdir()
    request = IngestRequest(archive=archive, filename=archive.name, dataset_id=name, scratch=scratch, seed=0)
    assert ingest(request, StoredDataset(storage, prefix), lambda *_: None).state == "ready"
    dataset = DatasetDocument(
        id=name, prefix=prefix, task="classification", digest="d" * 64, seed=0, classes=[], splits={}
    )
    document = JobDocument(
        id=f"job_{name}", project="default", attempt=1, kind="transfer", recipe={"method": "linear_probe"}, seed=0,
        report_mode="full", model_name="m", backbone=backbone.name, user_backbones=[], dataset=dataset, inputs={},
    )  # fmt: skip
    monkeypatch.setattr(sources, "open_backbones", lambda context: (backbone,))
    # A whole report is asked for its network from scratch; corrupted images take no part in the verdict.
    monkeypatch.setattr(robustness, "MAX_IMAGES", 5)
    context = RunContext(
        Settings(home=home, compute_threads=COMPUTE_THREADS), storage, Reporter(Wire()), document, scratch, "cpu"
    )
    return transfer_factories.whole(context, transfer.run(context))


def test_spoilt_weights_are_called_harmful(home, spoilt, tmp_path, monkeypatch):
    pictures = sets.per_class(list(sets.DRAWN["digits"]()), DIGITS_PER_CLASS, 0)
    report = judged(home, "ds_digits", sets.pack(tmp_path / "digits.zip", pictures), spoilt, monkeypatch)
    evidence = report["verdict_evidence"]["vs_scratch"]
    assert report["verdict"] == "negative", evidence
    assert evidence["difference"] < -0.15


@pytest.mark.parametrize("name", GOOD)
def test_good_weights_are_called_helpful(home, name, tmp_path, monkeypatch):
    archive = PHOTOS
    if name == "emoji":
        few = [one for style in STYLES for one in sets.per_class(drawings(style), EMOJI_PER_STYLE, 0)]
        archive = sets.pack(tmp_path / "emoji.zip", few)
    report = judged(home, f"ds_{name}", archive, good(), monkeypatch)
    evidence = report["verdict_evidence"]["vs_scratch"]
    assert report["verdict"] == "positive", evidence
    assert evidence["difference"] > 0.1


def test_names_drawn_at_random_are_learned_no_better_than_chance(home, tmp_path, monkeypatch):
    pictures = sets.per_class(drawings(STYLES[0]), 16, 0)
    drawn = np.random.default_rng(0).permutation([name.split("/")[0] for name, _ in pictures])
    renamed = [(f"{drawn[place]}/{place}.png", data) for place, (_, data) in enumerate(pictures)]
    report = judged(home, "ds_random", sets.pack(tmp_path / "random.zip", renamed), good(), monkeypatch)
    # Ten classes: a tenth by chance, with a deviation of 0.03 on 128 items.
    assert report["metrics"]["selection_accuracy"] < 0.2
    assert report["metrics"]["test_accuracy_low"] < 0.1
    assert report["verdict"] != "positive"
