"""The contract of all recipes, on a CNN, a MobileNet and a vision transformer of random weights, through the real job.

Each learns something from tiny data, leaves what it calls frozen as it was, says why what its report does not tell is
null, publishes a graph that says what training said and that another Graft would import, gives the same from the same
seed, goes on after a kill where it was, and publishes nothing when it must yield.
"""

import shutil
import tempfile
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
from app.serving import admission
from app.serving.admission import Checks
from app.serving.runtime import Runtime, Session
from app.settings import Settings
from app.storage import FolderStorage
from tests import factories
from tests.conftest import COMPUTE_THREADS
from tests.worker import nulls, transfer_factories
from tests.worker.transfer_factories import Wire
from worker import transfer
from worker.attempt import machine
from worker.attempt.context import RunContext
from worker.attempt.document import DatasetDocument, JobDocument
from worker.attempt.progress import Reporter, Yielded
from worker.backbones import features, prepared, text
from worker.backbones.prepared import Prepared
from worker.data.ingest import IngestRequest, ingest
from worker.data.splits import SPLITS
from worker.domains import training
from worker.ingestion import StoredDataset

# Hardly apart, so that there is something left to learn; the target's are the same, in another light.
SHADES = {"mauve": (147, 121, 135), "moss": (144, 125, 127), "rose": (150, 120, 130)}
DARKER = {name: tuple(part - 25 for part in shade) for name, shade in SHADES.items()}
NUM_IMAGES = 16
BACKBONES: dict[str, Callable[[], Prepared]] = {
    "cnn": transfer_factories.cnn,
    "mobilenet": lambda: transfer_factories.prepared_backbone("timm/mobilenetv3_small_050", 64),
    "transformer": transfer_factories.transformer,
    "imagenet": lambda: _known(factories.BACKBONE),
}
# What each recipe is asked for here: small, and of zero-shot the approach that needs no ImageNet classifier.
ASKED: dict[str, dict[str, Any]] = {
    "auto": {"max_minutes": 0.1},
    "linear_probe": {},
    "few_shot": {},
    "fine_tune": {"scope": "last_stage", "epochs": 3, "augment": "none"},
    "adapt": {"source": "ds_source", "candidates": ["coral"]},
    "zero_shot": {
        "approach": "eszsl",
        "classes": [
            *({"name": name, "attributes": row} for name, row in zip(SHADES, np.eye(3).tolist(), strict=True)),
            {"name": "ash", "attributes": [0.3, 0.3, 0.3]},
        ],
    },
}
# At another size than its own a network is written whether or not training gained anything.
AT_96 = {"epochs": 1, "resolution": 96}
# Other ways of the same recipes, each on a network that it is for: recipe, network, what is asked otherwise, and what
# becomes of the backbone's tensors.
VARIANTS: dict[str, tuple[str, str, dict[str, Any], set[str]]] = {
    "norm": ("fine_tune", "cnn", {"scope": "norm", **AT_96}, {"frozen", "trained", "new"}),
    "ssf": ("fine_tune", "cnn", {"scope": "ssf", **AT_96}, {"frozen", "folded", "new"}),
    "lora": ("fine_tune", "transformer", {"scope": "lora", "epochs": 1}, {"frozen", "folded", "new"}),
    "batch_norm": ("adapt", "cnn", {"candidates": ["batch_norm"]}, {"frozen", "new"}),
    "mcc": ("adapt", "cnn", {"candidates": ["mcc"]}, {"frozen", "new"}),
    "head_map": (
        "zero_shot", "imagenet", {"approach": "head_map", "classes": [{"name": name} for name in (*SHADES, "ash")]},
        {"frozen", "new"},
    ),
}  # fmt: skip
CASES = [f"{method}-{kind}" for method in RECIPES for kind in BACKBONES if kind != "imagenet"]
# A killed job is tried where a second run takes no export of a whole network. What fine_tune stores hangs on the kind
# of network, so it is killed on each; the others store heads and features, the same way on all.
RESUMED = [
    "fine_tune-cnn", "fine_tune-mobilenet", "fine_tune-transformer", "auto-cnn", "linear_probe-mobilenet",
    "few_shot-transformer", "adapt-mobilenet", "zero_shot-transformer", "mcc", "head_map",
]  # fmt: skip


def _known(name: str) -> Prepared:
    found = prepared.find(name, [Settings().prepared])
    assert found is not None
    return found


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

    def attempt(self, number: int = 1, wire: Wire | None = None) -> RunContext:
        """One attempt at the one job."""
        scratch = Path(tempfile.mkdtemp(dir=self.home))
        document = JobDocument(
            id="job_1", project="default", attempt=number, kind="transfer", recipe=self.recipe, seed=0,
            report_mode="fast", model_name="m", backbone=self.backbone.name, user_backbones=[],
            dataset=self.dataset("ds_target" if self.recipe["method"] == "adapt" else "ds_source"), inputs={},
            datasets={"source": self.dataset("ds_source")} if self.recipe["method"] == "adapt" else {},
        )  # fmt: skip
        settings = Settings(home=self.home, prepared=self.backbone.folder.parent, compute_threads=COMPUTE_THREADS)
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

    def admitted(self, context: RunContext, done: dict[str, Any]) -> Checks:
        """What another Graft finds when it looks at the bundle."""
        spec = Spec.model_validate(done["spec"])
        folder = Path(tempfile.mkdtemp(dir=self.home))
        for name, entry in spec.files.items():
            (folder / name).symlink_to(context.storage.fetch(entry.key or f"{done['prefix']}/{name}"))
        return admission.judge(folder, spec)


@pytest.fixture(autouse=True)
def _equal_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """`auto` takes as many images, and tries as much, as its time holds: it has the same time in all attempts."""
    monkeypatch.setattr(Reporter, "elapsed_seconds", property(lambda self: 0.0))
    monkeypatch.setattr(machine, "slowness", lambda: 1.0)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with both datasets, ingested once for all cases, and without any feature."""
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
    # The text encoder is the one of the environment; random weights have no words.
    encoder = text.find([Settings().prepared]).folder
    (home / "backbones").mkdir()
    (home / "backbones" / encoder.name).symlink_to(encoder)
    prepared.point(text.NAME, encoder.name, home / "backbones")
    return home


@pytest.fixture
def bench(
    stored: Path, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Bench]:
    """Opens homes of their own, equal but for their names; between domains a tenth of the steps is enough to learn."""
    monkeypatch.setattr(training, "STEPS", 150)
    method, kind, changes, _ = VARIANTS.get(request.param) or (*request.param.split("-"), {}, set())

    def opened(name: str) -> Bench:
        shutil.copytree(stored, tmp_path / name, symlinks=True)
        return Bench(tmp_path / name, BACKBONES[kind](), {"method": method, **ASKED[method], **changes})

    return opened


def head_of(context: RunContext, done: dict[str, Any]) -> bytes:
    return context.storage.fetch(f"{done['prefix']}/{bundle.HEAD}").read_bytes()


def prefix_of(graph: Path) -> dict[str, bytes]:
    """The constants of the part before the last stage."""
    stored = onnx.load(graph).graph.initializer
    return {one.name: one.SerializeToString() for one in stored if one.name.startswith("prefix/")}


def test_every_recipe_is_held_to_it() -> None:
    assert ASKED.keys() == RECIPES.keys() == {case.partition("-")[0] for case in RESUMED if case not in VARIANTS}


@pytest.mark.parametrize("bench", [*CASES, *VARIANTS], indirect=True)
def test_it_learns_freezes_and_publishes_what_training_said(
    bench: Callable[[str], Bench], request: pytest.FixtureRequest
) -> None:
    variant = request.node.callspec.params["bench"]
    here = bench("home")
    context = here.attempt()
    done = transfer.run(context)
    assert Spec.model_validate(done["spec"]).parity.ok
    names = {key.rpartition("/")[2] for key in context.storage.list(done["prefix"])}
    assert {bundle.SPEC, bundle.HEAD, bundle.WEIGHTS, bundle.REPORT, bundle.README} <= names
    assert here.admitted(context, done).num_images > 0
    assert nulls.unexplained(done["report"]) == []
    # The published graphs name what was learned from better than chance does: a loss below ln(classes).
    learned = transfer.load(here.attempt(2), here.dataset("ds_source"))
    rows = np.flatnonzero(learned.split == SPLITS.index("train"))
    order, batches = zip(
        *features.decoded(context, learned, rows, Spec.model_validate(done["spec"]).preprocess), strict=True
    )
    labels = done["spec"]["labels"]
    places = [labels.index(learned.classes[label]) for label in learned.label[np.concatenate(order)]]
    said = here.runtime(context, done).run(np.concatenate(batches)).probabilities
    loss = -np.log(said[np.arange(len(places)), places]).mean()
    # The name of a shade says nothing of these pictures, and a head made of names has learned from nothing else.
    assert loss < np.log(len(labels)) or variant == "head_map"
    # What is frozen is what the backbone had, to the bit: the whole graph, or all before the stage that is trained.
    entry, tensors_of = done["spec"]["files"][bundle.BACKBONE], done["report"]["mapping"]["tensors"]
    published = context.storage.fetch(entry["key"] or f"{done['prefix']}/{bundle.BACKBONE}")
    # What a head holds beside its parameters is neither moved nor learned.
    beside = [row["name"] for row in tensors_of if row["what"] == "measured"]
    assert all(name.startswith("head.") for name in beside)
    whats = {row["what"] for row in tensors_of} - {"measured"}
    if variant in VARIANTS:
        assert whats == (VARIANTS[variant][3] if entry["key"] is None else {"frozen", "new"})
    if entry["key"]:
        assert published.read_bytes() == here.backbone.graph.read_bytes()
        assert whats == {"frozen", "new"}
    elif variant not in VARIANTS:
        assert whats == {"frozen", "trained", "new"}
        before, after = prefix_of(here.backbone.graph), prefix_of(published)
        assert before
        assert before == after
    assert {row["name"] for row in tensors_of if row["what"] == "frozen"} <= tensors.shapes(
        here.backbone.weights
    ).keys()


@pytest.mark.parametrize("bench", RESUMED, indirect=True)
def test_a_killed_job_goes_on_and_gives_what_an_undisturbed_one_gives(bench: Callable[[str], Bench]) -> None:
    here, elsewhere = bench("killed"), bench("undisturbed")
    with pytest.raises(Killed):
        transfer.run(here.attempt(1, Fatal("published graph agrees")))
    first = here.attempt(1).document.bundle_prefix
    assert not list(FolderStorage(here.home / "storage").list(first))
    wire = Wire()
    again = here.attempt(2, wire)
    found = transfer.run(again)
    whole = elsewhere.attempt()
    wanted = transfer.run(whole)
    trained = here.recipe["method"] == "fine_tune"
    assert any("resumed from step" in message for message in wire.messages()) or not trained
    assert found["report"]["cost"]["images_extracted"] in ({0, None} if trained else {0})
    assert wanted["report"]["cost"]["images_extracted"] > 0
    assert head_of(again, found) == head_of(whole, wanted)
    assert found["metrics"] == wanted["metrics"]


@pytest.mark.parametrize("bench", [*CASES, *VARIANTS], indirect=True)
def test_a_job_that_must_yield_publishes_nothing(bench: Callable[[str], Bench]) -> None:
    context = bench("home").attempt()
    context.reporter._request = "yield"
    with pytest.raises(Yielded):
        transfer.run(context)
    assert not list(context.storage.list(context.document.bundle_prefix))


@pytest.mark.parametrize("bench", ["norm"], indirect=True)
def test_a_network_tuned_at_another_resolution_is_published_for_that_one(bench: Callable[[str], Bench]) -> None:
    here = bench("home")
    context = here.attempt()
    done = transfer.run(context)
    spec = Spec.model_validate(done["spec"])
    assert here.backbone.preprocess.height == 64
    assert (spec.preprocess.height, spec.preprocess.width) == (96, 96)
    assert spec.parity.ok
    assert spec.parity.num_samples > 0
    images = np.zeros((2, 96, 96, 3), np.uint8)
    assert here.runtime(context, done).run(images).probabilities.shape == (2, len(SHADES))
    # Held against the probe that it began with, on the images that both did not learn from.
    evidence = done["report"]["verdict_evidence"]["vs_frozen"]
    assert evidence["what"].endswith("the probe that it started from, on the same images")
    assert "each half at the epoch that the other half chose" in evidence["what"]
