"""The align job on real small datasets and tiny graphs: two domains, pairs, two backbones, and what it refuses."""

import hashlib
import io
import json
from dataclasses import asdict

import numpy as np
import pytest
from PIL import Image

from app import alignments
from app.artifact import alignment as artifact
from app.artifact import tensors
from app.errors import JobFailure
from app.serving.runtime import Session
from app.settings import Settings
from app.storage import FolderStorage
from tests import factories
from tests.app import onnx_factories
from tests.conftest import COMPUTE_THREADS
from tests.worker.transfer_factories import Wire
from worker import align
from worker.attempt.context import RunContext
from worker.attempt.document import DatasetDocument, JobDocument
from worker.attempt.progress import Reporter
from worker.data.ingest import IngestRequest, ingest
from worker.ingestion import StoredDataset

OTHER = "torchvision/mobilenet_v2"
DARK = {"red": (130, 10, 60), "green": (20, 90, 60), "blue": (20, 20, 130)}
UNPAIRED = ["z_score", "moment_matching", "coral", "whitening", "optimal_transport"]


def document(dataset_id):
    return DatasetDocument(
        id=dataset_id, prefix=f"datasets/default/{dataset_id}", task="classification", digest="d" * 64, seed=0,
        classes=[], splits={},
    )  # fmt: skip


def store(folder, dataset_id, files, **fields):
    archive = folder / f"{dataset_id}.zip"
    archive.write_bytes(factories.pack(files))
    scratch = folder / f"ingest-{dataset_id}"
    scratch.mkdir()
    storage = FolderStorage(folder / "storage")
    request = IngestRequest(archive, archive.name, dataset_id, scratch, **{"seed": 0, **fields})
    made = ingest(request, StoredDataset(storage, f"datasets/default/{dataset_id}"), lambda *_: None)
    assert made.state == "ready", made.problems


def faint(data):
    """The same picture, of which nearly all contrast is gone."""
    pixels = np.asarray(Image.open(io.BytesIO(data)), np.float64)
    out = io.BytesIO()
    Image.fromarray(np.uint8(np.rint(128 + (pixels - 128) / 25))).save(out, "PNG")
    return out.getvalue()


def dice_picture(dice):
    """One colour, of no connection with anything."""
    out = io.BytesIO()
    Image.new("RGB", (16, 16), tuple(int(value) for value in dice.integers(0, 256, 3))).save(out, "PNG")
    return out.getvalue()


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Bright pictures, the same pictures darkened under the same names, and two prepared backbones of other widths."""
    folder = tmp_path_factory.mktemp("home")
    factories.prepared(folder / "backbones")
    wide = hashlib.sha256(b"wide").hexdigest()
    (folder / "backbones" / wide).mkdir()
    (folder / "backbones" / wide / "backbone.onnx").write_bytes(onnx_factories.backbone_bytes(9, side=4, seed=5))
    record = {
        "name": OTHER, "architecture": "mobilenet_v2", "digest": wide, "feature_dim": 9, "split": "",
        "activation_shape": None, "num_params": 36, "licence": "Apache-2.0",
        "preprocess": asdict(onnx_factories.preprocess(4)), "files": {},
    }  # fmt: skip
    (folder / "backbones" / wide / "record.json").write_text(json.dumps(record))
    pointer = folder / "backbones" / "names" / f"{OTHER}.json"
    pointer.parent.mkdir(parents=True)
    pointer.write_text(json.dumps({"name": OTHER, "digest": wide}))
    store(folder, "ds_bright", factories.pictures(30))
    store(folder, "ds_dark", {f"dark/{name}": data for name, data in factories.pictures(30, DARK).items()})
    store(folder, "ds_faint", {f"faint/{name}": faint(data) for name, data in factories.pictures(30).items()})
    dice = np.random.default_rng(0)
    store(folder, "ds_unrelated", {f"other/{name}": dice_picture(dice) for name in factories.pictures(30)})
    store(folder, "ds_few", factories.pictures(3, DARK, first=500))
    return folder


@pytest.fixture
def fit(home, tmp_path):
    """Runs one align job; (result, context)."""

    def run(**recipe):
        given = {"source": "ds_bright", "backbone": factories.BACKBONE, **recipe}
        wish = alignments.parse(given)
        scratch = tmp_path / f"scratch-{len(list(tmp_path.iterdir()))}"
        scratch.mkdir()
        target = {"target": document(wish.target)} if wish.target else {}
        job = JobDocument(
            id=f"job_{scratch.name}", project="default", attempt=1, kind="align", recipe=wish.model_dump(mode="json"),
            seed=0, report_mode="fast", model_name=None, backbone=wish.backbone, user_backbones=[],
            dataset=document(wish.source), inputs={}, datasets=target,
        )  # fmt: skip
        settings = Settings(home=home, compute_threads=COMPUTE_THREADS, prepared=home / "none")
        context = RunContext(settings, FolderStorage(home / "storage"), Reporter(Wire()), job, scratch, "cpu")
        return align.run(context), context

    return run


@pytest.mark.parametrize("method", UNPAIRED)
def test_unpaired_methods_bring_the_domains_together_on_held_out_items(fit, method):
    done, context = fit(method=method, target="ds_dark")
    result = done["result"]
    assert result["dims"] == {"taken": 6, "given": 6}
    distance = result["distance"]
    assert distance["after"]["mmd"] < distance["before"]["mmd"]
    assert distance["after"]["proxy_a"] <= distance["before"]["proxy_a"] <= 2.0
    assert distance["num_held_out"]["source"] > 0
    assert done["moving_backbone"] is None
    assert result["pairs"] is None
    json.dumps(result, allow_nan=False)
    check_files(done, context)


def check_files(done, context):
    """The stored graph and arrays say the same, and the row's digests are theirs."""
    graph = context.storage.fetch(f"{done['prefix']}/{artifact.GRAPH}")
    arrays = tensors.load(context.storage.fetch(f"{done['prefix']}/{artifact.ARRAYS}"))
    assert done["files"][artifact.GRAPH]["sha256"] == hashlib.sha256(graph.read_bytes()).hexdigest()
    rows = np.random.default_rng(0).normal(size=(5, len(arrays["alpha"]))).astype(np.float32)
    alpha = arrays["alpha"]
    expected = (rows * alpha if alpha.ndim == 1 else rows @ alpha) + arrays["offset"]
    np.testing.assert_allclose(Session(graph, 1).run(rows)[0], expected, rtol=1e-3, atol=1e-3)


def test_labels_and_test_splits_play_no_part(fit, home):
    """The same pictures without labels and with others in the test split's place give the same statistics."""
    done, context = fit(method="moment_matching", order=1, target="ds_dark")
    source = align.transfer.load(context_of(context), document("ds_bright"))
    learned = align.features.pooled(
        context, source, np.flatnonzero(source.split != 2), align.sources.open_backbone(context, factories.BACKBONE),
        ("x", 0, 1),
    )[0]  # fmt: skip
    target = align.transfer.load(context_of(context), document("ds_dark"))
    moved = align.features.pooled(
        context, target, np.flatnonzero(target.split != 2), align.sources.open_backbone(context, factories.BACKBONE),
        ("x", 0, 1),
    )[0]  # fmt: skip
    arrays = tensors.load(context.storage.fetch(f"{done['prefix']}/{artifact.ARRAYS}"))
    np.testing.assert_allclose(arrays["offset"], learned.mean(0) - moved.mean(0), atol=1e-5)
    assert done["result"]["num_samples"] == {"source": len(learned), "target": len(moved)}


def context_of(context):
    """The same attempt with an empty scratch folder."""
    folder = context.scratch / f"again-{len(list(context.scratch.iterdir()))}"
    folder.mkdir()
    return RunContext(context.settings, context.storage, context.reporter, context.document, folder, "cpu")


@pytest.mark.parametrize("recipe", [{"method": "affine"}, {"method": "affine", "solver": "gradient_descent"},
                                    {"method": "ridge"}, {"method": "procrustes"}])  # fmt: skip
def test_paired_methods_explain_held_out_pairs(fit, recipe):
    done, context = fit(target="ds_dark", **recipe)
    pairs = done["result"]["pairs"]
    assert pairs["held_out"]["mse"] < pairs["unchanged"]["mse"]
    assert pairs["held_out"]["r2"] > 0.3
    num_pairs = done["result"]["num_samples"]["source"]
    assert num_pairs == done["result"]["num_samples"]["target"]
    assert done["result"]["warnings"] == []
    check_files(done, context)


@pytest.mark.parametrize("method", ["affine", "procrustes"])
def test_factors_of_few_pairs_come_with_a_warning(fit, monkeypatch, method):
    monkeypatch.setattr(align, "FEW_PAIRS", 1000)
    warnings = fit(target="ds_dark", method=method)[0]["result"]["warnings"]
    assert [("different pairs" in one) for one in warnings] == ([True] if method == "affine" else [])


def test_fit_that_explains_nothing_of_other_pairs_comes_with_a_warning(fit):
    result = fit(target="ds_unrelated", method="procrustes")[0]["result"]
    assert result["pairs"]["held_out"]["r2"] <= 0
    assert ["no nearer to their partners" in one for one in result["warnings"]] == [True]


@pytest.mark.parametrize(
    ("recipe", "warned"),
    [({"method": "affine"}, True), ({"method": "affine", "solver": "gradient_descent"}, True),
     ({"method": "ridge"}, False), ({"method": "procrustes"}, False)],
)  # fmt: skip
def test_features_that_hardly_vary_are_amplified_with_a_warning(fit, recipe, warned):
    done, context = fit(target="ds_faint", **recipe)
    warnings = done["result"]["warnings"]
    assert len(warnings) == warned
    if warned:
        alpha = tensors.load(context.storage.fetch(f"{done['prefix']}/{artifact.ARRAYS}"))["alpha"]
        num_large = sum(abs(float(factor)) > 10 for factor in alpha)
        largest = max(alpha, key=abs)
        assert num_large > 0
        assert f"{num_large} of 6 features get a factor beyond 10, the largest {largest:.3g} " in warnings[0]
        assert "take ridge or procrustes, or give more pairs" in warnings[0]


def test_the_bound_on_factors_is_told():
    assert f"factors beyond {align.MAX_FACTOR:g} or" in alignments.PairedAffine.summary


@pytest.mark.parametrize("method", ["ridge", "procrustes"])
def test_between_backbones_of_different_width(fit, method):
    done, context = fit(method=method, from_backbone=OTHER)
    assert done["result"]["dims"] == {"taken": 9, "given": 6}
    assert done["result"]["distance"]["before"] is None
    assert done["result"]["pairs"]["unchanged"] is None
    assert done["result"]["pairs"]["held_out"]["r2"] > 0.5
    moving = artifact.MovingBackbone.model_validate(done["moving_backbone"])
    assert (moving.name, moving.preprocess.height) == (OTHER, 4)
    stored = context.storage.fetch(moving.graph.key).read_bytes()
    assert hashlib.sha256(stored).hexdigest() == moving.graph.sha256
    check_files(done, context)


def test_the_same_job_gives_the_same_bytes(fit):
    first, second = (
        fit(method="optimal_transport", map="barycentric", target="ds_dark", max_samples=20)[0] for _ in range(2)
    )
    assert first["files"] == second["files"]
    assert first["result"] == second["result"]


@pytest.mark.parametrize(
    ("recipe", "words"),
    [({"method": "coral", "target": "ds_few"}, "images outside the test split"),
     ({"method": "ridge", "target": "ds_few"}, "paired by the path in their uploads .`pair_by`: path.; found"),
     ({"method": "affine", "target": "ds_dark", "pair_by": "sha256"}, "paired by the bytes .*found 0; give")],
)  # fmt: skip
def test_too_few_are_named(fit, home, recipe, words):
    before = factories.files_below(home / "storage" / "bundles")
    with pytest.raises(JobFailure, match=words) as caught:
        fit(**recipe)
    assert caught.value.code == "dataset_invalid"
    assert factories.files_below(home / "storage" / "bundles") == before
