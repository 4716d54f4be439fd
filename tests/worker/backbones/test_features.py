"""The feature cache: nothing is extracted twice, nothing half written is seen. A tiny graph is the backbone."""

import io
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from app.artifact import preprocess
from app.errors import JobFailure
from app.settings import Settings
from app.storage import FolderStorage, open_storage
from tests import factories
from tests.app import onnx_factories
from tests.conftest import wait_until
from worker.attempt.context import RunContext
from worker.attempt.document import DatasetDocument, JobDocument
from worker.attempt.progress import Reporter, Yielded
from worker.backbones import features
from worker.backbones.extraction import Extraction
from worker.backbones.feature_cache import Space
from worker.data.ingest import BaseDataset, IngestRequest, ingest
from worker.data.samples import iter_images, load_index
from worker.ingestion import StoredDataset

SHAPE = onnx_factories.preprocess()
SPACE = Space("backbone", SHAPE.digest, "pooled", "center", "fp32")
COLOURS = {name: factories.COLOURS[name] for name in ("red", "blue")}


class Bench:
    """Datasets in a storage, and the number of images that went through the graph."""

    def __init__(self, folder: Path, storage: FolderStorage) -> None:
        self.folder, self.storage = folder, storage
        self.out = io.StringIO()
        self.reporter = Reporter(self.out)
        self.batches: list[int] = []
        self.opened = 0
        self.graph = folder / "tiny.onnx"
        self.graph.write_bytes(onnx_factories.backbone_bytes())

    def dataset(self, name, files, base=None):
        """Stores a dataset; returns what a job on it is given."""
        archive = self.folder / f"{name}.zip"
        archive.write_bytes(factories.pack(files))
        scratch = self.folder / f"{name}-scratch"
        scratch.mkdir()
        prefix = f"datasets/default/{name}"
        request = IngestRequest(
            archive=archive, filename="a.zip", dataset_id=name, scratch=scratch,
            base=BaseDataset("ds_1", self.folder / "storage" / base) if base else None,
        )  # fmt: skip
        result = ingest(request, StoredDataset(self.storage, prefix), lambda *_: None)
        assert result.failure is None, result.problems
        local = self.folder / f"{name}-index"
        local.mkdir()
        for file in ("index.parquet", "dataset.json"):
            (local / file).write_bytes(self.storage.fetch(f"{prefix}/{file}").read_bytes())
        return self.context(name, prefix), load_index(local, prefix)

    def context(self, name, prefix, project="default"):
        document = DatasetDocument(
            id=name, prefix=prefix, task="classification", digest=None, seed=0, classes=[], splits={}
        )
        job = JobDocument(
            id="job_1", project=project, attempt=1, kind="transfer", recipe=None, seed=0, report_mode="fast",
            model_name="m", backbone=None, user_backbones=[], dataset=document, inputs={},
        )  # fmt: skip
        settings = Settings(home=self.folder, compute_threads=2)
        return RunContext(
            settings=settings,
            storage=self.storage,
            reporter=self.reporter,
            document=job,
            scratch=self.folder,
            device="cpu",
        )

    def extractor(self):
        """Opens the graph, and counts."""
        self.opened += 1
        run = features.graph_extractor(self.graph, 1)

        def counted(images):
            self.batches.append(len(images))
            return run(images)

        return counted

    def get(self, context, index, rows, space=SPACE, **options):
        return features.features(context, index, rows, space, SHAPE, self.extractor, **options)


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path, FolderStorage(tmp_path / "storage"))


def expected(context, index, rows):
    """The same features, one image at a time, in numpy."""
    prefix = context.document.dataset.prefix
    images = dict(iter_images(index, np.arange(len(index)), lambda name: context.storage.fetch(f"{prefix}/{name}")))
    pixels = np.stack([preprocess.load(images[row], SHAPE) for row in rows.tolist()])
    return onnx_factories.backbone_reference(pixels)


def shuffled(index, num=None):
    return np.random.default_rng(0).permutation(len(index))[:num]


def test_features_come_in_the_order_that_was_asked_for(bench):
    context, index = bench.dataset("ds_1", factories.pictures(20, COLOURS))
    rows = shuffled(index, 37)
    found, extraction = bench.get(context, index, rows)
    np.testing.assert_allclose(found, expected(context, index, rows), atol=1e-5)
    assert (extraction.num_cached, extraction.num_extracted) == (0, 37)
    assert sum(bench.batches) == 37
    assert max(bench.batches) == features.BATCH_SIZE


class Ahead:
    """Gives a batch's features once the next batch has come, as the extractor of a GPU does."""

    batch_size = 7

    def __init__(self, run):
        self.run, self.expected, self.order = run, [], []

    def __call__(self, images):
        return self.run(images)

    def expect(self, num_images):
        self.expected.append(num_images)

    def stream(self, batches):
        before = None
        for batch in batches:
            self.order.append(("in", len(batch)))
            if before is not None:
                self.order.append("out")
                yield self.run(before)
            before = batch
        if before is not None:
            yield self.run(before)


def test_a_device_works_at_one_batch_while_the_next_is_decoded(bench):
    context, index = bench.dataset("ds_1", factories.pictures(20, COLOURS))
    rows, ahead = shuffled(index, 37), Ahead(features.graph_extractor(bench.graph, 1))
    found, extraction = features.features(context, index, rows, SPACE, SHAPE, lambda: ahead)
    np.testing.assert_allclose(found, expected(context, index, rows), atol=1e-5)
    assert extraction.num_extracted == 37
    assert ahead.expected == [37]
    assert ahead.order[:4] == [("in", 7), ("in", 7), "out", ("in", 7)]


def test_second_call_extracts_nothing(bench):
    context, index = bench.dataset("ds_1", factories.pictures(10, COLOURS))
    rows = shuffled(index)
    first, _ = bench.get(context, index, rows)
    again, extraction = bench.get(context, index, rows[::-1])
    np.testing.assert_array_equal(again, first[::-1])
    assert (extraction.num_cached, extraction.num_extracted) == (20, 0)
    assert bench.opened == 1


def test_only_what_is_missing_is_extracted(bench):
    context, index = bench.dataset("ds_1", factories.pictures(10, COLOURS))
    bench.get(context, index, np.array([3, 11, 5]))
    rows = shuffled(index)
    found, extraction = bench.get(context, index, rows)
    np.testing.assert_allclose(found, expected(context, index, rows), atol=1e-5)
    assert (extraction.num_cached, extraction.num_extracted) == (3, 17)
    assert sum(bench.batches) == 20


def test_child_dataset_extracts_its_new_images_only(bench):
    parent, parent_index = bench.dataset("ds_1", factories.pictures(10, COLOURS))
    bench.get(parent, parent_index, shuffled(parent_index))
    context, index = bench.dataset("ds_2", factories.pictures(4, COLOURS, first=10), base="datasets/default/ds_1")
    assert len(index) == 28
    rows = shuffled(index)
    found, extraction = bench.get(context, index, rows)
    np.testing.assert_allclose(found, expected(context, index, rows), atol=1e-5)
    assert (extraction.num_cached, extraction.num_extracted) == (20, 8)


def test_copies_are_extracted_once(bench):
    files = factories.pictures(6, COLOURS)
    copies = {f"{name.partition('/')[0]}/copy-of-{name.partition('/')[2]}": data for name, data in files.items()}
    context, index = bench.dataset("ds_1", {**files, **copies})
    assert len(index) == 24
    rows = shuffled(index)
    found, extraction = bench.get(context, index, rows)
    np.testing.assert_allclose(found, expected(context, index, rows), atol=1e-5)
    assert extraction.num_extracted == sum(bench.batches) == 12


def test_every_part_of_the_space_counts(bench):
    context, index = bench.dataset("ds_1", factories.pictures(3, COLOURS))
    rows = np.arange(len(index))
    bench.get(context, index, rows)
    for change in ("backbone", "preprocess", "layer", "view", "precision"):
        fields = {name: getattr(SPACE, name) for name in SPACE.__slots__}
        _, extraction = bench.get(context, index, rows, Space(**{**fields, change: "other"}))
        assert extraction.num_extracted == len(index), change
    _, extraction = bench.get(bench.context("ds_1", context.document.dataset.prefix, "other"), index, rows)
    assert extraction.num_extracted == len(index)


def test_chunk_that_was_cut_off_is_not_seen(bench):
    context, index = bench.dataset("ds_1", factories.pictures(8, COLOURS))
    rows = np.arange(len(index))
    bench.get(context, index, rows)
    (keys,) = [name for name in bench.storage.list("features") if name.endswith(".keys")]
    bench.storage.delete(keys)
    found, extraction = bench.get(context, index, rows)
    assert extraction.num_extracted == len(index)
    np.testing.assert_allclose(found, expected(context, index, rows), atol=1e-5)
    # The same chunk again has the same name: nothing of the first is left beside it.
    assert len(list(bench.storage.list("features"))) == 2


@pytest.mark.parametrize(("ending", "data"), [(".keys", b"0" * 65), (".keys", b""), (".npy", b""), (".npy", b"PK")])
def test_damaged_chunk_is_made_again(bench, tmp_path, ending, data):
    """A machine that lost its power may leave a file behind that is shorter than it was."""
    context, index = bench.dataset("ds_1", factories.pictures(3, COLOURS))
    rows = np.arange(len(index))
    bench.get(context, index, rows)
    (key,) = [name for name in bench.storage.list("features") if name.endswith(ending)]
    (tmp_path / "damaged").write_bytes(data)
    bench.storage.put(key, tmp_path / "damaged")
    found, extraction = bench.get(context, index, rows)
    assert extraction.num_extracted == len(index)
    np.testing.assert_allclose(found, expected(context, index, rows), atol=1e-5)
    assert bench.get(context, index, rows)[1].num_extracted == 0


def supervisor_that_says(request):
    """The reading end of a pipe that stays open: when it closes, the process ends."""
    reading, writing = os.pipe()
    os.write(writing, json.dumps({"request": request}).encode() + b"\n")
    return os.fdopen(reading)


def test_job_that_yields_goes_on_where_it_was(bench, monkeypatch):
    monkeypatch.setattr(features, "CHUNK_IMAGES", 2 * features.BATCH_SIZE)
    context, index = bench.dataset("ds_1", factories.pictures(40, COLOURS))
    rows = np.arange(len(index))
    asked = Reporter(io.StringIO())
    asked.listen(supervisor_that_says("yield"))
    wait_until(lambda: asked.yield_requested, "the request")
    with pytest.raises(Yielded):
        bench.get(replace(context, reporter=asked), index, rows)
    assert sum(bench.batches) < len(index)
    found, extraction = bench.get(context, index, rows)
    # At the next batch, not at the end of a chunk, which may be seconds away.
    assert (extraction.num_cached, extraction.num_extracted) == (16, 64)
    np.testing.assert_allclose(found, expected(context, index, rows), atol=1e-5)
    chunks = [np.load(bench.storage.fetch(name)) for name in bench.storage.list("features") if name.endswith(".npy")]
    assert sorted(len(chunk) for chunk in chunks) == [16, 32, 32]


def test_a_stop_before_anything_can_be_served_ends_the_job_and_keeps_what_is_extracted(bench):
    context, index = bench.dataset("ds_1", factories.pictures(40, COLOURS))
    rows = np.arange(len(index))
    asked = Reporter(io.StringIO())
    asked.listen(supervisor_that_says("stop"))
    wait_until(lambda: asked.stop_requested, "the request")
    with pytest.raises(JobFailure, match=r"features of 80 images .* a stop after 16") as failure:
        bench.get(replace(context, reporter=asked), index, rows, is_first=True)
    assert failure.value.code == "stopped"
    # What is extracted later, for what has been learned, is wanted: the best so far is published.
    _, extraction = bench.get(replace(context, reporter=asked), index, rows)
    assert (extraction.num_cached, extraction.num_extracted) == (16, 64)


def test_view_changes_the_image_before_it_is_resized(bench):
    context, index = bench.dataset("ds_1", factories.pictures(3, COLOURS))
    rows = np.arange(len(index))
    seen = []

    def flip(image, digest):
        seen.append(digest)
        return image.transpose(1)

    found, _ = bench.get(context, index, rows, Space("b", SHAPE.digest, "pooled", "flip", "fp32"), view=flip)
    assert sorted(seen) == sorted(digest.decode() for digest in index.sha256)
    # A mean colour does not see the flip.
    np.testing.assert_allclose(found, expected(context, index, rows), atol=2e-2)


def test_progress_goes_from_start_to_end(bench):
    context, index = bench.dataset("ds_1", factories.pictures(3, COLOURS))
    bench.get(context, index, np.arange(len(index)), stage=("features", 0.2, 0.4))
    sent = [json.loads(line)["progress"] for line in bench.out.getvalue().splitlines()]
    assert sent
    assert all(0.2 <= item["fraction"] <= 0.4 and item["stage"] == "features" for item in sent)


@pytest.mark.server
def test_in_an_object_store(tmp_path, s3_url):
    bench = Bench(tmp_path, open_storage(s3_url, tmp_path / "cache"))
    context, index = bench.dataset("ds_1", factories.pictures(8, COLOURS))
    rows = shuffled(index)
    first, _ = bench.get(context, index, rows)
    again, extraction = bench.get(context, index, rows)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_allclose(first, expected(context, index, rows), atol=1e-5)
    assert extraction.num_extracted == 0


@pytest.mark.parametrize(
    ("num_cached", "num_extracted", "image_seconds"),
    [(0, 32, 0.125), (320, 32, 0.125), (0, 31, None), (321, 32, None), (5, 0, None)],
    ids=["enough", "a-tenth", "too-few", "mostly-read", "all-cached"],
)
def test_an_extraction_tells_its_pace_where_it_was_long_enough(
    num_cached: int, num_extracted: int, image_seconds: float | None
) -> None:
    assert Extraction(num_cached, num_extracted, 4.0).image_seconds == image_seconds
