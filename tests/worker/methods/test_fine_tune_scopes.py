"""Scopes norm, ssf and lora from images to a graph: a CNN, a MobileNet and a vision transformer."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from app.artifact import tensors
from app.errors import JobFailure
from app.recipes import FineTune
from tests import factories
from tests.worker import transfer_factories
from tests.worker.methods.test_fine_tune import SHADES, Asking, Fatal, Killed, same, wire_of
from tests.worker.transfer_factories import Wire
from worker.attempt.progress import Yielded
from worker.backbones.prepared import Prepared
from worker.contract.candidate import Candidate
from worker.contract.task import Task
from worker.methods import fine_tune

# Hardly apart, so that even the transformer's probe leaves something to learn.
HARD = {"rose": (150, 120, 130), "moss": (144, 125, 127), "mauve": (147, 121, 135)}
BACKBONES: dict[str, Callable[[], Prepared]] = {
    "cnn": transfer_factories.cnn,
    "mobilenet": lambda: transfer_factories.prepared_backbone("timm/mobilenetv3_small_050", 64),
    "transformer": transfer_factories.transformer,
}
CASES = [
    (scope, kind) for kind in BACKBONES for scope in ("norm", "ssf", "lora") if scope != "lora" or kind == "transformer"
]
CHANGED = {"norm": "trained", "ssf": "folded", "lora": "folded"}


@pytest.fixture
def attempt(tmp_path: Path) -> Callable[..., Task]:
    """Opens the job's n-th attempt: one store, a scratch folder of its own."""
    names = iter(f"attempt-{number}" for number in range(9))

    def make(wire: Wire | None = None, kind: str = "cnn") -> Task:
        archive = tmp_path / "shades.zip"
        if not archive.exists():
            num, shades = (16, HARD) if kind == "transformer" else (20, SHADES)
            archive.write_bytes(factories.pack(factories.pictures(num, shades)))
            transfer_factories.store(transfer_factories.context(tmp_path, Wire(), "ingest"), archive)
        context = transfer_factories.context(tmp_path, wire or Wire(), next(names))
        return transfer_factories.task(context, BACKBONES[kind]())

    return make


def operators(graph: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(graph).graph.node)


def arrays(graph: Path) -> list[np.ndarray]:
    return [onnx.numpy_helper.to_array(one) for one in onnx.load(graph).graph.initializer]


@pytest.mark.parametrize(("scope", "kind"), CASES)
def test_it_learns_freezes_and_exports_the_frozen_graphs_operators(
    attempt: Callable[..., Task], scope: str, kind: str
) -> None:
    task = attempt(kind=kind)
    epochs, augment = (10, "none") if kind == "transformer" else (6, "default")
    found = fine_tune.run(FineTune(scope=scope, epochs=epochs, augment=augment, soup=False), task)
    details: dict[str, Any] = found.details
    losses = [epoch["train_loss"] for epoch in details["curve"][1:]]
    assert losses[-1] < losses[0]
    assert details["best_epoch"] > 0
    assert not found.shared
    assert operators(found.graph) == operators(task.backbone.graph)
    np.testing.assert_allclose(found.features(task.val), found.reference(task.val), atol=1e-4)
    # Every tensor has its row; only what the scope names differs from the backbone's.
    rows = {row.name: row for row in found.moved}
    source = tensors.load(task.backbone.weights)
    assert rows.keys() >= source.keys()
    counts = Counter(row.what for row in found.moved)
    assert counts[CHANGED[scope]] > 0
    assert set(counts) <= {"frozen", "new", CHANGED[scope]}
    kept = {array.tobytes() for array in arrays(found.graph)}
    before = {array.tobytes() for array in arrays(task.backbone.graph)}
    assert kept != before
    assert found.trained_params < 0.5 * task.backbone.num_params
    json.dumps(details, allow_nan=False)
    if scope == "ssf":
        spread = next(iter(details["factors"].values()))
        assert spread["alpha"]["quantiles"]["0"] <= spread["alpha"]["quantiles"]["0.5"]
        ends = [stage["alpha"]["quantiles"]["1"] for stage in details["factors"].values()]
        assert max(ends) > 1
    else:
        assert details["factors"] is None


@pytest.mark.parametrize(("scope", "kind"), [("ssf", "cnn"), ("lora", "transformer")])
def test_a_killed_run_resumes_bit_for_bit_and_the_seed_decides(
    attempt: Callable[..., Task], scope: str, kind: str
) -> None:
    recipe = FineTune(scope=scope, epochs=4, wise=True, mixup=0.2)
    undisturbed = attempt(kind=kind)
    wanted = fine_tune.run(recipe, undisturbed)
    undisturbed.context.storage.delete("checkpoints")
    with pytest.raises(Killed):
        fine_tune.run(recipe, attempt(Fatal(3), kind))
    resumed = attempt(kind=kind)
    found = fine_tune.run(recipe, resumed)
    assert any(message.startswith("resumed from step") for message in wire_of(resumed).messages())
    assert same(found, wanted, resumed.val)
    for name in ("curve", "soup", "wise_share", "best_epoch"):
        assert found.details[name] == wanted.details[name], name


def test_checkpoints_hold_what_is_trained_and_no_more(attempt: Callable[..., Task]) -> None:
    task = attempt()
    fine_tune.run(FineTune(scope="ssf", epochs=3), task)
    storage = task.context.storage
    (key,) = [key for key in storage.list("checkpoints") if key.endswith(".safetensors")]
    names = tensors.shapes(storage.fetch(key))
    trained = [name for name in names if name.startswith("now/")]
    assert all("alpha_C" in name or "beta_C" in name or name.startswith("now/head.") for name in trained)
    assert len([name for name in names if name.startswith("runner-")]) <= 2 * len(trained)


def test_yield_and_stop_leave_the_best(attempt: Callable[..., Task]) -> None:
    recipe = FineTune(scope="norm", epochs=6)
    yielding = Asking("yield", 2)
    with pytest.raises(Yielded):
        fine_tune.run(recipe, yielding.attach(attempt(yielding)))
    stopping = Asking("stop", 1)
    found = fine_tune.run(recipe, stopping.attach(attempt(stopping)))
    assert found.details["ended"] == "stopped"
    assert found.details["epochs"] < 6


def test_another_resolution_and_every_option(attempt: Callable[..., Task]) -> None:
    recipe = FineTune(
        scope="ssf", epochs=2, resolution=48, l2_sp=0.1, layer_decay=0.8, mixup=0.1, augment="trivial", wise=True
    )
    found: Candidate = fine_tune.run(recipe, attempt())
    assert found.backbone.preprocess.height == 48
    assert set(found.details["augmentation"]["invariance"]) == {"mirror", "geometric", "colour"}
    for check in found.details["augmentation"]["invariance"].values():
        assert 0 <= check["changed"] <= 1


def test_lora_needs_attention(attempt: Callable[..., Task]) -> None:
    with pytest.raises(JobFailure) as failure:
        fine_tune.run(FineTune(scope="lora"), attempt())
    assert failure.value.code == "unsupported_scope"
    assert "test_efficientnet" in failure.value.message


def test_colours_are_off_where_they_are_the_classes(tmp_path: Path) -> None:
    archive = tmp_path / "colours.zip"
    archive.write_bytes(factories.pack(factories.pictures(24, {"red": (200, 90, 90), "green": (90, 200, 90)})))
    context = transfer_factories.context(tmp_path, Wire())
    transfer_factories.store(context, archive)
    found = fine_tune.run(
        FineTune(scope="norm", epochs=1, augment="trivial"),
        transfer_factories.task(context, transfer_factories.cnn()),
    )
    assert "colour" not in found.details["augmentation"]["groups"]
    assert found.details["augmentation"]["invariance"]["colour"]["allowed"] is False
