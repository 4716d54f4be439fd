"""`zero_shot` by a model's own text tower: from a recipe to a bundle that answers as open_clip does."""

from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch

from app.artifact import bundle
from app.errors import JobFailure
from app.serving.runtime import Runtime, Session
from app.settings import Settings
from app.storage import FolderStorage
from tests.conftest import COMPUTE_THREADS
from tests.worker import clip_factories
from tests.worker.clip_factories import model, tiny, weights_file
from tests.worker.transfer_factories import Wire, store
from worker import transfer
from worker.attempt.context import RunContext
from worker.attempt.document import DatasetDocument, JobDocument
from worker.attempt.progress import Reporter
from worker.backbones import clip_text, export, networks
from worker.prepare import image_tower, sources, text_tower
from worker.reports import unseen

DEMO = Path(__file__).parents[3] / "examples" / "data" / "emoji.zip"
NAME = "open_clip/graft-tiny-clip.random"
CLASSES = [{"name": "hand"}, {"name": "road_sign", "description": "beside a street"}, {"name": "face"}]


def silent(*_: object) -> None:
    """Nobody watches."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home where the tiny CLIP was prepared, image tower and text tower, and the demo's images are stored."""
    clip_factories.register()
    folder = tmp_path_factory.mktemp("home")
    network = networks.build(tiny(), weights_file())
    content, rules = text_tower.tokenizer_of(clip_factories.CLIP["text_cfg"], lambda *_: Path())
    text_tower.write(network, tiny(), content, rules, folder / "backbones", silent)
    image_tower.write(network, tiny(), "", folder / "backbones", silent)
    store(attempt(folder, "ingest", {}, with_dataset=True), DEMO)
    return folder


def attempt(home, name, recipe, *, with_dataset=False, backbone=NAME, offline=False) -> RunContext:
    dataset = DatasetDocument(
        id="ds_1", prefix="datasets/default/ds_1", task="classification", digest="d" * 64, seed=0, classes=[],
        splits={"train": 224, "val": 32, "test": 64},
    )  # fmt: skip
    document = JobDocument(
        id=f"job_{name}", project="default", attempt=1, kind="transfer", recipe=recipe, seed=0, report_mode="fast",
        model_name="m", backbone=backbone, user_backbones=[], dataset=dataset if with_dataset else None, inputs={},
    )  # fmt: skip
    scratch = home / name
    scratch.mkdir()
    settings = Settings(home=home, compute_threads=COMPUTE_THREADS, offline=offline)
    return RunContext(settings, FolderStorage(home / "storage"), Reporter(Wire()), document, scratch, "cpu")


@pytest.mark.parametrize("approach", ["clip", "auto"])
def test_the_published_model_answers_as_open_clip_does(home: Path, approach: str) -> None:
    context = attempt(home, f"answers-{approach}", {"method": "zero_shot", "approach": approach, "classes": CLASSES})
    done = transfer.run(context)
    images = export.probe_images(tiny().preprocess)
    head = context.storage.fetch(f"{done['prefix']}/{bundle.HEAD}").read_bytes()
    runtime = Runtime(Session(sources.open_backbone(context, NAME).graph, 2), Session(head, 1))
    got = runtime.run(images).probabilities
    theirs = model()
    tokenizer = open_clip.get_tokenizer("graft-tiny-clip")
    with torch.no_grad():
        texts = []
        for one in CLASSES:
            prompts = clip_text.prompts(one["name"], one.get("description", ""))
            mean = theirs.encode_text(tokenizer(prompts), normalize=True).mean(0)
            texts.append(mean / mean.norm())
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
        shape = tiny().preprocess
        pixels = (pixels - torch.tensor(shape.mean)[:, None, None]) / torch.tensor(shape.std)[:, None, None]
        image = theirs.encode_image(pixels, normalize=True)
        wanted = (theirs.logit_scale.exp() * image @ torch.stack(texts).T).softmax(-1).numpy()
    np.testing.assert_allclose(got, wanted, atol=1e-4)
    assert np.ptp(wanted, axis=0).max() > 0.01  # images do differ
    details = done["report"]["details"]
    assert details["approach"] == "clip"
    assert details["text_encoder"]["name"] == f"text/{NAME}"
    assert details["text_encoder"]["licence"] == "MIT"
    assert details["templates"] == list(clip_text.TEMPLATES)
    assert done["report"]["backbone_exposure"]["note"] == unseen.NOTE_CAPTIONS
    assert done["metrics"] == {}
    assert done["spec"]["head"] == "cosine"
    assert done["spec"]["dataset"] is None


def test_a_dataset_is_only_scored_on(home: Path) -> None:
    classes = [{"name": "hand"}, {"name": "face"}, {"name": "sorrow"}]
    context = attempt(home, "scored", {"method": "zero_shot", "classes": classes}, with_dataset=True)
    done = transfer.run(context)
    assert done["report"]["details"]["approach"] == "clip"
    assert done["metrics"]["num_test_seen"] > 0
    bare = transfer.run(attempt(home, "bare", {"method": "zero_shot", "classes": classes}))
    heads = [context.storage.fetch(f"{one['prefix']}/{bundle.HEAD}").read_bytes() for one in (done, bare)]
    assert heads[0] == heads[1]


def test_attributes_still_learn_from_images(home: Path) -> None:
    told = {"hand": [1, 0, 0], "face": [0, 1, 0], "heart": [0, 0, 1], "sorrow": [0, 1, 1]}
    classes = [{"name": name, "attributes": list(map(float, values))} for name, values in told.items()]
    context = attempt(home, "attributes", {"method": "zero_shot", "classes": classes}, with_dataset=True)
    assert transfer.run(context)["report"]["details"]["approach"] in ("eszsl", "devise")


@pytest.mark.parametrize("method", ["linear_probe", "few_shot"])
def test_its_image_embeddings_are_features_like_any_other(home: Path, method: str) -> None:
    done = transfer.run(attempt(home, method, {"method": method}, with_dataset=True))
    assert done["spec"]["backbone"]["name"] == NAME
    assert done["spec"]["backbone"]["feature_dim"] == clip_factories.WIDTH
    assert done["spec"]["parity"]["num_samples"] > 0
    assert done["metrics"]["test_accuracy"] > 0.15  # ten classes, random weights


def test_without_weights_nothing_starts(tmp_path: Path) -> None:
    recipe = {"method": "zero_shot", "classes": CLASSES}
    context = attempt(tmp_path, "lacking", recipe, backbone="open_clip/ViT-B-32.openai", offline=True)
    with pytest.raises(JobFailure, match="timm/tf_efficientnet_lite0") as caught:
        transfer.run(context)
    assert caught.value.code == "weights_unavailable"
    assert not (tmp_path / "backbones").exists()
