"""The contract of all recipes, on a CNN, a MobileNet and a vision transformer of random weights, through the real job.

Each learns something from tiny data, leaves what it calls frozen as it was, publishes a graph that says what training
said, gives the same from the same seed, goes on after a kill where it was, and publishes nothing when it must yield.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from app.artifact import bundle, tensors
from app.artifact.spec import Spec
from app.recipes import RECIPES
from app.serving.runtime import Runtime, Session
from app.settings import Settings
from app.storage import FolderStorage
from tests import factories
from tests.worker import transfer_factories
from tests.worker.transfer_factories import Wire
from worker import features, transfer
from worker.context import RunContext
from worker.data.ingest import IngestRequest, ingest
from worker.document import DatasetDocument, JobDocument
from worker.ingestion import StoredDataset
from worker.prepared import Prepared
from worker.progress import Reporter, Yielded

# Hardly apart, so that there is something left to learn; the target's are the same, in another light.
SHADES = {"mauve": (147, 121, 135), "moss": (144, 125, 127), "rose": (150, 120, 130)}
DARKER = {name: tuple(part - 25 for part in shade) for name, shade in SHADES.items()}
NUM_IMAGES = 16
BACKBONES: dict[str, Callable[[], Prepared]] = {
    "cnn": transfer_factories.cnn,
    "mobilenet": lambda: transfer_factories.prepared_backbone("timm/mobilenetv3_small_050", 64),
    "transformer": transfer_factories.transformer,
}
# What each recipe is asked for here: small, and of zero-shot the approach that needs no ImageNet classifier.
ASKED: dict[str, dict[str, Any]] = {
    "auto": {"max_minutes": 0.5},
    "linear_probe": {},
    "few_shot": {},
    "fine_tune": {"scope": "last_stage", "epochs": 3, "augment": "none"},
    "adapt": {"source": "ds_source", "candidates": ["coral"]},
    "zero_shot": {
        "approach": "eszsl",
        "classes": [
            {"name": name, "attributes": [part / 255 for part in shade]}
            for name, shade in [*SHADES.items(), ("ash", (140, 140, 140))]
        ],
    },
}
CASES = [(method, kind) for method in RECIPES for kind in BACKBONES]


class Killed(BaseException):
    """The process is gone."""


class Fatal(Wire):
    """A supervisor's pipe at which the process dies while it tells something that contains a word."""

    def __init__(self, word: str) -> None:
        super().__init__()
        self.word = word

    def write(self, text: str) -> int:
        size = super().write(text)
        if self.word in text:
            raise Killed
        return size


@dataclass(frozen=True)
class Bench:
    """Two stored datasets and the attempts at jobs on them."""

    home: Path
    backbone: Prepared
    recipe: dict[str, Any]

    def attempt(self, job: str, wire: Wire | None = None, number: int = 1, seed: int = 0) -> RunContext:
        """One attempt at a job."""
        scratch = self.home / f"{job}-{number}"
        scratch.mkdir()
        document = JobDocument(
            id=job, project="default", attempt=number, kind="transfer", recipe=self.recipe, seed=seed,
            report_mode="fast", model_name="m", backbone=self.backbone.name, user_backbones=[],
            dataset=self.dataset("ds_target" if self.recipe["method"] == "adapt" else "ds_source"), inputs={},
            datasets={"source": self.dataset("ds_source")} if self.recipe["method"] == "adapt" else {},
        )  # fmt: skip
        settings = Settings(home=self.home, prepared=self.backbone.folder.parent, compute_threads=2)
        storage = FolderStorage(self.home / "storage")
        return RunContext(settings, storage, Reporter(wire or Wire()), document, scratch, "cpu")

    def dataset(self, name: str) -> DatasetDocument:
        """A stored dataset."""
        return DatasetDocument(
            id=name, prefix=f"datasets/default/{name}", task="classification", digest="d" * 64, seed=0, classes=[],
            splits={},
        )  # fmt: skip

    def runtime(self, context: RunContext, done: dict[str, Any]) -> Runtime:
        """The published graphs."""
        entry = done["spec"]["files"][bundle.BACKBONE]
        graph = context.storage.fetch(entry["key"] or f"{done['prefix']}/{bundle.BACKBONE}")
        return Runtime(Session(graph, 2), Session(context.storage.fetch(f"{done['prefix']}/{bundle.HEAD}"), 1))


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both datasets, ingested once for all cases; features of one backbone serve every recipe on it."""
    home = tmp_path_factory.mktemp("home")
    store = FolderStorage(home / "storage")
    for name, shades in (("ds_source", SHADES), ("ds_target", DARKER)):
        archive = home / f"{name}.zip"
        archive.write_bytes(factories.pack(factories.pictures(NUM_IMAGES, shades)))
        scratch = home / f"ingest-{name}"
        scratch.mkdir()
        request = IngestRequest(archive=archive, filename=archive.name, dataset_id=name, scratch=scratch, seed=0)
        result = ingest(request, StoredDataset(store, f"datasets/default/{name}"), lambda *_: None)
        assert result.state == "ready", result.problems
    return home


@pytest.fixture
def bench(homes: Path, request: pytest.FixtureRequest) -> Bench:
    method, kind = request.param
    return Bench(homes, BACKBONES[kind](), {"method": method, **ASKED[method]})


def job_name(request: pytest.FixtureRequest) -> str:
    return "job_" + "".join(letter if letter.isalnum() else "_" for letter in request.node.name)


def head_of(context: RunContext, done: dict[str, Any]) -> bytes:
    return context.storage.fetch(f"{done['prefix']}/{bundle.HEAD}").read_bytes()


def prefix_of(graph: Path) -> dict[str, bytes]:
    """The constants of the part before the last stage."""
    stored = onnx.load(graph).graph.initializer
    return {one.name: one.SerializeToString() for one in stored if one.name.startswith("prefix/")}


def without_time(metrics: dict[str, Any]) -> str:
    return json.dumps(metrics, sort_keys=True)


def test_every_recipe_is_held_to_it() -> None:
    assert ASKED.keys() == RECIPES.keys()


@pytest.mark.parametrize("bench", CASES, indirect=True, ids="-".join)
def test_it_learns_freezes_and_publishes_what_training_said(bench: Bench, request: pytest.FixtureRequest) -> None:
    context = bench.attempt(job_name(request))
    done = transfer.run(context)
    assert Spec.model_validate(done["spec"]).parity.ok
    names = {key.rpartition("/")[2] for key in context.storage.list(done["prefix"])}
    assert {bundle.SPEC, bundle.HEAD, bundle.WEIGHTS, bundle.REPORT, bundle.README} <= names
    # The published graphs name the images that were learned from better than chance does: a loss below ln(classes).
    learned = transfer.load(bench.attempt(job_name(request), number=2), bench.dataset("ds_source"))
    rows = np.flatnonzero(learned.split == 0)
    decoded = features.decoded(context, learned, rows, bench.backbone.preprocess)
    order, batches = zip(*decoded, strict=True)
    place = [done["spec"]["labels"].index(learned.classes[label]) for label in learned.label[np.concatenate(order)]]
    said = bench.runtime(context, done).run(np.concatenate(batches)).probabilities
    loss = -np.log(said[np.arange(len(place)), place]).mean()
    assert loss < np.log(len(done["spec"]["labels"]))
    # What is frozen is what the backbone had, to the bit: the whole graph, or all before the stage that is trained.
    entry, rows_of = done["spec"]["files"][bundle.BACKBONE], done["report"]["mapping"]["tensors"]
    published = context.storage.fetch(entry["key"] or f"{done['prefix']}/{bundle.BACKBONE}")
    if entry["key"]:
        assert published.read_bytes() == bench.backbone.graph.read_bytes()
        assert {row["what"] for row in rows_of} == {"frozen", "new"}
    else:
        assert {row["what"] for row in rows_of} == {"frozen", "trained", "new"}
        before, after = prefix_of(bench.backbone.graph), prefix_of(published)
        assert before
        assert before == after
    assert {row["name"] for row in rows_of if row["what"] == "frozen"} <= tensors.shapes(bench.backbone.weights).keys()


@pytest.mark.parametrize("bench", CASES, indirect=True, ids="-".join)
def test_the_same_seed_gives_the_same_and_a_killed_job_goes_on(bench: Bench, request: pytest.FixtureRequest) -> None:
    job = job_name(request)
    whole = bench.attempt(f"{job}_whole")
    wanted = transfer.run(whole)
    with pytest.raises(Killed):
        transfer.run(bench.attempt(job, Fatal("published graph agrees")))
    assert not list(FolderStorage(bench.home / "storage").list(f"bundles/default/{job}/1"))
    wire = Wire()
    again = bench.attempt(job, wire, number=2)
    found = transfer.run(again)
    assert any("resumed from step" in text or " cached, 0 extracted" in text for text in wire.messages())
    assert head_of(again, found) == head_of(whole, wanted)
    assert without_time(found["metrics"]) == without_time(wanted["metrics"])


@pytest.mark.parametrize("bench", CASES, indirect=True, ids="-".join)
def test_a_job_that_must_yield_publishes_nothing(bench: Bench, request: pytest.FixtureRequest) -> None:
    context = bench.attempt(job_name(request))
    context.reporter._request = "yield"
    with pytest.raises(Yielded):
        transfer.run(context)
    assert not list(context.storage.list(context.document.bundle_prefix))
