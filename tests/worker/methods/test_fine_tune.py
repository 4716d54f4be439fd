"""Fine-tuning on small networks with random weights, through a real store, a real split and real graphs."""

import io
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from app.errors import JobFailure
from app.recipes import FineTune
from tests import factories
from tests.worker import transfer_factories
from tests.worker.transfer_factories import Wire
from worker.attempt.progress import Yielded
from worker.backbones import features, networks
from worker.backbones.prepared import Prepared
from worker.contract.candidate import Candidate
from worker.contract.task import Task
from worker.fine_tuning import forward, scopes, tuning
from worker.fine_tuning.network import Network
from worker.fine_tuning.scopes import Material, Part
from worker.fine_tuning.start import start_head
from worker.fine_tuning.tuning import Tuned
from worker.fine_tuning.workbench import Workbench
from worker.methods import fine_tune
from worker.methods.reference import holdout
from worker.scores import calibration
from worker.training.checkpoint import Checkpoints

# Near each other, so that the probe leaves something to learn.
SHADES = {"rose": (190, 110, 120), "moss": (150, 150, 110), "mauve": (165, 120, 150)}


class Killed(BaseException):
    """The process is gone."""


class Fatal(Wire):
    """A supervisor's pipe at which the process dies when it tells its n-th metric."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.after = after

    def write(self, text: str) -> int:
        size = super().write(text)
        if len(self.events("metric")) == self.after:
            raise Killed
        return size


class Asking(Wire):
    """A supervisor that sends a request after the n-th metric, or at once."""

    def __init__(self, request: str, after: int) -> None:
        super().__init__()
        self.request, self.after, self.reporter = request, after, None

    def attach(self, task: Task) -> Task:
        self.reporter = task.context.reporter
        if self.after == 0:
            self.reporter._request = self.request
        return task

    def write(self, text: str) -> int:
        size = super().write(text)
        if self.reporter is not None and self.after and len(self.events("metric")) >= self.after:
            self.reporter._request = self.request
        return size


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("archive") / "shades.zip"
    path.write_bytes(factories.pack(factories.pictures(20, SHADES)))
    return path


@pytest.fixture
def attempt(tmp_path: Path, archive: Path) -> Callable[..., Task]:
    """Opens the job's n-th attempt: one store, a scratch folder of its own."""
    transfer_factories.store(transfer_factories.context(tmp_path, Wire(), "ingest"), archive)
    names = iter(f"attempt-{number}" for number in range(9))

    def make(wire: Wire | None = None, backbone: Prepared | None = None) -> Task:
        context = transfer_factories.context(tmp_path, wire or Wire(), next(names))
        return transfer_factories.task(context, backbone or transfer_factories.cnn())

    return make


def wire_of(task: Task) -> Any:
    return task.context.reporter._out


def part_of(task: Task, threads: ThreadPoolExecutor, flip: bool = True) -> Part:
    held = holdout(task)
    train = np.setdiff1d(task.pool, held)
    train_ND, held_ND = (forward.frozen(task, task.backbone, rows)[0] for rows in (train, held))
    return Part(train, held, train_ND, held_ND, flip, threads)


def tune(task: Task, part: Part, material: Material, epochs: int = 2, **changes: Any) -> tuple[Tuned, Network]:
    """The run itself, without the export."""
    labels, groups = task.labels_N[part.train], task.groups_N[part.train]
    probe = start_head(part.train_ND, labels, groups, task.num_classes, task.seed)[0]
    network = Network(material.trunk, probe)
    material = replace(material, optimisation=replace(material.optimisation, **changes))
    checkpoints = Checkpoints(task.context.storage, "checkpoints/default/job_1/x", task.context.scratch)
    bench = Workbench(
        task.context, network, material, checkpoints, epochs, 0, None, start_tensors={}, start_facts={}, snapshot=None
    )
    return tuning.run(bench), network


def same(first: Candidate, second: Candidate, rows: np.ndarray) -> bool:
    """Whether two candidates are the same bit for bit."""
    arrays = [
        (one.head.weight_CD, one.head.bias_C, one.selection.logits, one.judged.logits, one.reference(rows))
        for one in (first, second)
    ]
    return all(np.array_equal(left, right) for left, right in zip(*arrays, strict=True))


def test_the_last_stage_from_images_to_a_graph(attempt: Callable[..., Task]) -> None:
    task = attempt()
    found = fine_tune.run(FineTune(epochs=4), task)
    details, told = found.details, wire_of(task).events("metric")
    tries, metrics = ([one for one in told if ("epoch" in one["data"]) is epochs] for epochs in (False, True))
    # The hold-out is too small for its temperature to be called a calibration.
    assert len(found.selection.rows) < calibration.MIN_ITEMS
    assert (found.method, found.shared, found.calibrated) == ("fine_tune", False, False)
    assert found.head.temperature == 1.0
    # What it is held against: the probe of the same images, on the same others, as its first look at them had it.
    start, labels = found.start, task.labels_N[found.selection.rows]
    assert np.array_equal(start.rows, found.selection.rows)
    started = [message for message in wire_of(task).messages() if message.startswith("start: the probe's head")]
    accuracy = float((start.logits.argmax(1) == labels).mean())
    assert f"hold-out accuracy {accuracy:.3f}" in started[0]
    # Judged on the same images, each half by the epoch that the other half chose.
    assert np.array_equal(found.judged.rows, found.selection.rows)
    assert found.judged.optimism == fine_tune.JUDGED_OPTIMISM
    assert details["views"] == 4
    assert details["best_epoch"] > 0
    assert [pilot["rate"] for pilot in details["pilots"]][:3] == [3e-4, 1e-3, 3e-3]
    assert details["learning_rate"] == min(details["pilots"], key=lambda pilot: pilot["val_loss"])["rate"]
    assert 0 < details["feature_distortion"] < 2
    assert [one["data"]["rate"] for one in tries] == [pilot["rate"] for pilot in details["pilots"]]
    assert told == tries + metrics
    assert [one["epoch"] for one in details["curve"]] == [0, 1, 2, 3, 4]
    assert details["epochs"] == 4
    assert set(metrics[0]["data"]) >= {
        "step", "epoch", "train_loss", "val_accuracy", "val_loss", "images_per_second"
    }  # fmt: skip
    steps = [event["data"]["step"] for event in told]
    assert steps == sorted(steps)
    assert steps[-1] == details["steps"]
    # Served graph, torch and selection agree; the selection saw activations in half precision.
    rows = task.val[::-1]
    np.testing.assert_allclose(found.features(rows), found.reference(rows), atol=1e-4)
    held = found.head.logits(found.features(found.selection.rows))
    np.testing.assert_allclose(held, found.selection.logits, atol=0.05)
    assert set(found.selection.rows) == set(holdout(task))
    assert found.trained_params < task.backbone.num_params + found.head.weight_CD.size + 3
    json.dumps(details, allow_nan=False)


def test_only_the_last_stage_learns(attempt: Callable[..., Task]) -> None:
    task = attempt()
    with ThreadPoolExecutor(2) as threads:
        part = part_of(task, threads)
        material = scopes.last_stage(task, part, FineTune(), 2)
        before = {name: value.clone() for name, value in material.trunk.state_dict().items()}
        tune(task, part, material, rates=(3e-2,))
        images = scopes.on_images(task, part, FineTune(), task.backbone.preprocess)
        original = networks.state_of(networks.restore(task.backbone))
        tune(task, part, images, epochs=1, rates=(3e-2,))
    after = material.trunk.state_dict()
    learned = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert learned == {name for name, _ in material.trunk.named_parameters()}
    network = images.trunk.network.network  # type: ignore[union-attr]
    split = task.backbone.split
    for name, value in network.state_dict().items():  # type: ignore[operator,union-attr]
        in_suffix = not name.startswith(("conv_stem", "bn1")) and not any(
            name.startswith(f"blocks.{number}.") for number in range(int(split.partition(".")[2]))
        )
        is_parameter = "running" not in name and "num_batches" not in name
        assert torch.equal(value, original[name]) is not (in_suffix and is_parameter), name


@pytest.mark.parametrize("metrics", [1, 3])
def test_a_killed_run_resumes_bit_for_bit(attempt: Callable[..., Task], metrics: int) -> None:
    recipe = FineTune(epochs=5)
    undisturbed = attempt()
    wanted = fine_tune.run(recipe, undisturbed)
    undisturbed.context.storage.delete("checkpoints")
    killed = attempt(Fatal(metrics))
    with pytest.raises(Killed):
        fine_tune.run(recipe, killed)
    task = attempt()
    found = fine_tune.run(recipe, task)
    resumed = [event for event in wire_of(task).events("log") if event["message"].startswith("resumed from step")]
    assert len(resumed) == 1
    step = resumed[0]["data"]["step"]
    assert step > 0
    assert resumed[0]["message"] == f"resumed from step {step}"
    assert same(found, wanted, task.val)
    assert found.details["curve"] == wanted.details["curve"]
    assert found.details["steps"] == wanted.details["steps"]
    # Steps that were told twice stand once in the curve, and it says what was told last.
    told = [event["data"] for one in (killed, task) for event in wire_of(one).events("metric")]
    epochs = {one["epoch"]: one for one in told if "epoch" in one}
    assert [epochs[row["epoch"]]["val_loss"] for row in found.details["curve"][1:]] == [
        row["val_loss"] for row in found.details["curve"][1:]
    ]
    lost = wire_of(undisturbed).events("metric")[metrics - 1]["data"]["step"] - step
    assert wanted.details["steps"] + lost <= 1.3 * wanted.details["steps"]


def test_a_run_killed_after_its_end_only_exports_again(attempt: Callable[..., Task]) -> None:
    recipe = FineTune(epochs=2)
    first, second = attempt(), attempt()
    wanted, found = fine_tune.run(recipe, first), fine_tune.run(recipe, second)
    assert same(found, wanted, second.val)
    assert wire_of(second).events("metric") == []
    assert f"resumed from step {wanted.details['steps']}" in wire_of(second).messages()


def test_yield_leaves_a_checkpoint_and_stop_the_best(attempt: Callable[..., Task]) -> None:
    recipe = FineTune(epochs=6)
    yielding = Asking("yield", 2)
    with pytest.raises(Yielded):
        fine_tune.run(recipe, yielding.attach(attempt(yielding)))
    stopping = Asking("stop", 1)
    task = stopping.attach(attempt(stopping))
    found = fine_tune.run(recipe, task)
    resumed = [message for message in stopping.messages() if message.startswith("resumed from step")]
    assert resumed
    assert found.details["ended"] == "stopped"
    assert found.details["epochs"] < 6
    assert yielding.events("metric")[-1]["data"]["step"] <= int(resumed[0].rpartition(" ")[2])


def test_stop_before_the_first_step_serves_the_probe(attempt: Callable[..., Task]) -> None:
    stopping = Asking("stop", 0)
    task = stopping.attach(attempt(stopping))
    found = fine_tune.run(FineTune(epochs=3), task)
    assert (found.shared, found.graph) == (found.details["best_epoch"] == 0, task.backbone.graph)
    assert np.array_equal(found.features(task.val), found.reference(task.val))


def test_no_time_serves_the_probe_and_little_time_plans_fewer_epochs(attempt: Callable[..., Task]) -> None:
    found = fine_tune.run(FineTune(epochs=1000, max_minutes=1e-6), attempt())
    assert (found.details["ended"], found.details["views"], found.details["epochs"]) == ("no time left", 1, 0)
    assert found.shared
    task = attempt()
    task.context.storage.delete("checkpoints")
    found = fine_tune.run(FineTune(epochs=1000, max_minutes=0.03), task)
    assert found.details["planned_epochs"] < 1000
    assert any("of 1000 epochs fit the time" in message for message in wire_of(task).messages())


def test_divergence_is_a_failure_and_a_diverged_pilot_is_not(attempt: Callable[..., Task]) -> None:
    task = attempt()
    with ThreadPoolExecutor(2) as threads:
        part = part_of(task, threads)
        with pytest.raises(JobFailure) as failure:
            tune(task, part, scopes.last_stage(task, part, FineTune(), 1), rates=(1e30, 2e30), lower_rates=())
        assert failure.value.code == "diverged"
        task.context.storage.delete("checkpoints")
        tuned, _ = tune(task, part, scopes.last_stage(task, part, FineTune(), 1), rates=(1e30, 1e-3), lower_rates=())
    assert tuned.rate == 1e-3
    assert tuned.pilots[0]["val_loss"] is None


def test_the_head_alone_keeps_the_shared_graph(attempt: Callable[..., Task]) -> None:
    task = attempt()
    found = fine_tune.run(FineTune(scope="head", epochs=3), task)
    assert (found.shared, found.graph) == (True, task.backbone.graph)
    assert found.trained_params == found.head.weight_CD.size + found.head.bias_C.size
    frozen = features.pooled(task.context, task.index, task.val, task.backbone, ("features", 0.0, 1.0))[0]
    np.testing.assert_array_equal(found.features(task.val), frozen)


def test_the_whole_network_at_another_resolution(attempt: Callable[..., Task]) -> None:
    task = attempt()
    found = fine_tune.run(FineTune(scope="full", epochs=2, resolution=48), task)
    assert found.backbone.preprocess.height == found.details["resolution"] == 48
    assert not found.shared
    np.testing.assert_allclose(found.features(task.val), found.reference(task.val), atol=1e-4)


def test_a_transformer_by_its_last_blocks_and_as_a_whole(attempt: Callable[..., Task]) -> None:
    task = attempt(backbone=transfer_factories.transformer())
    found = fine_tune.run(FineTune(epochs=2), task)
    assert found.details["optimiser"] == "adamw"
    assert found.details["learning_rate"] == 1e-4
    assert found.details["split"] == task.backbone.split
    np.testing.assert_allclose(found.features(task.val), found.reference(task.val), atol=1e-4)
    whole = attempt(backbone=transfer_factories.transformer())
    with ThreadPoolExecutor(2) as threads:
        part = part_of(whole, threads)
        shape = scopes.inputs.at_resolution(whole.backbone.preprocess, 96)
        material = scopes.on_images(whole, part, FineTune(scope="full"), shape)
        rates = sorted(set(material.scales.values()))
        tuned, _ = tune(whole, part, material, epochs=1)
    assert tuned.num_steps > 0
    assert len(rates) == 1 + 6 + 1 + 1  # patches, blocks, norm, and what belongs to no stage


def test_mirroring_is_off_where_left_and_right_are_classes(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    files = {}
    for number in range(24):
        side = ("left", "right")[number % 2]
        pixels = generator.integers(0, 60, (40, 40, 3), dtype=np.uint8)
        half = slice(0, 20) if side == "left" else slice(20, 40)
        pixels[:, half] = generator.integers(150, 255, (40, 20, 3), dtype=np.uint8)
        files[f"{side}/{number}.png"] = encode(pixels)
    archive = tmp_path / "sides.zip"
    archive.write_bytes(factories.pack(files))
    context = transfer_factories.context(tmp_path, Wire())
    transfer_factories.store(context, archive)
    task = transfer_factories.task(context, transfer_factories.cnn())
    found = fine_tune.run(FineTune(epochs=1), task)
    assert found.details["mirrored"] is False
    assert any("augmentation mirror" in message and "it is not used" in message for message in wire_of(task).messages())


def encode(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()
