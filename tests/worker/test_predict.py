"""Predictions over stored datasets as jobs: tiny graphs, bundles that real transfers made, files that others open."""

import json
import shutil
from dataclasses import replace

import duckdb
import numpy as np
import pandas
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset

from app.artifact import alignment as artifact
from app.artifact import bundle, preprocess, tensors
from app.artifact import reference as references
from app.artifact import spec as specs
from app.errors import JobFailure
from app.serving.call import Result, Timing
from app.serving.runtime import Runtime, Session
from tests import factories
from tests.worker.study_factories import Lab, side
from tests.worker.transfer_factories import Wire
from worker import predict, transfer
from worker.attempt.progress import Reporter, Yielded
from worker.data import labels
from worker.data.samples import iter_images
from worker.data.splits import SPLITS
from worker.predictions.chunks import Chunks
from worker.predictions.table import Layout

CHUNK = 40
LARGE = "red/large.png"


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(predict, "CHUNK_ROWS", CHUNK)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Colours with a version of them, and a folder of other pictures without labels, one of them large."""
    found = Lab(tmp_path_factory.mktemp("home"))
    found.store("ds_colours", factories.pictures(30))
    strangers = {name.replace("/", "-"): data for name, data in factories.pictures(6, first=700).items()}
    found.store("ds_strangers", {**strangers, "large.png": factories.png(seed=9, size=64)})
    found.made = found.transfer("ds_colours")
    return found


def context(lab, dataset="ds_colours", alignment=None, **request):
    asked = {
        "dataset": dataset, "model": "m", "version": 1, "alias": None, "domain": None, "alignment": None,
        "splits": None, "top_k": 100, "features": False, "format": "parquet", **request,
    }  # fmt: skip
    version = side(lab.made, domain=asked["domain"], alignment=alignment)
    return lab.context("predict", dataset, inputs={"request": asked, "version": version})


def told(context):
    """The same attempt with a pipe of its own."""
    wire = Wire()
    return replace(context, reporter=Reporter(wire)), wire


def asked_after(context, request, num_metrics):
    """The same attempt, asked to stop or to yield once it has told of so many chunks."""

    class Asking(Wire):
        def write(self, text):
            size = super().write(text)
            if len(self.events("metric")) >= num_metrics:
                reporter._request = request
            return size

    wire = Asking()
    reporter = Reporter(wire)
    return replace(context, reporter=reporter), wire


def next_attempt(context):
    """Another attempt at the same job, in a working folder of its own."""
    document = context.document.model_copy(update={"attempt": context.document.attempt + 1})
    scratch = context.scratch.with_name(f"{context.scratch.name}-{document.attempt}")
    scratch.mkdir()
    return told(replace(context, document=document, scratch=scratch))


def rows_of(lab, made):
    return pq.read_table(lab.storage.fetch(made["file"])).to_pylist()


def reference(lab, index, rows):
    """What the bundle's graphs say, run over all images in one batch."""
    prefix = lab.made["prefix"]
    spec = specs.load(lab.storage.fetch(f"{prefix}/{bundle.SPEC}").read_bytes())
    graph, head = (
        lab.storage.fetch(spec.files[name].key or f"{prefix}/{name}") for name in ("backbone.onnx", "head.onnx")
    )
    images = iter_images(index, rows, lambda name: lab.storage.fetch(f"{index.prefix}/{name}"))
    pixels = np.stack([preprocess.load(data, spec.preprocess) for _, data in images])
    return Runtime(Session(graph, 1), Session(head, 1)).run(pixels), spec.labels


def test_every_image_once_in_order_with_the_published_graphs_scores(lab):
    given, wire = told(context(lab, features=True, top_k=2))
    made = predict.run(given)
    found = rows_of(lab, made)
    index = transfer.load(lab.context("predict"), lab.documents["ds_colours"])
    said, names = reference(lab, index, np.arange(len(index)))
    assert [row["id"] for row in found] == [one.decode() for one in index.ids]
    assert [row["path"] for row in found] == index.paths.to_pylist()
    assert [row["sha256"] for row in found] == [one.decode() for one in index.sha256]
    assert [row["split"] for row in found] == [SPLITS[split] for split in index.split]
    assert [row["label"] for row in found] == [row["path"].split("/")[0] for row in found]
    np.testing.assert_allclose([row["features"] for row in found], said.features, atol=1e-5)
    for row, probabilities_C in zip(found, said.probabilities, strict=True):
        order = np.argsort(-probabilities_C, kind="stable")[:2]
        assert [one["label"] for one in row["scores"]] == [names[place] for place in order]
        np.testing.assert_allclose([one["score"] for one in row["scores"]], probabilities_C[order], atol=1e-5)
        assert (row["predicted"], row["score"]) == (row["scores"][0]["label"], row["scores"][0]["score"])
        assert (row["model"], row["version"], row["domain"], row["alignment"], row["problem"]) == (
            "m",
            1,
            None,
            None,
            None,
        )
    assert made["metrics"].items() >= {"num_samples": 90, "num_asked": 90, "num_failed": 0}.items()
    assert made["metrics"]["images_per_second"] > 0
    assert [event["data"]["num_samples"] for event in wire.events("metric")] == [40, 80, 90]


def test_an_attempt_that_takes_over_goes_on_behind_the_last_chunk(lab):
    whole = rows_of(lab, predict.run(context(lab)))
    given, _ = asked_after(context(lab), "yield", 1)
    with pytest.raises(Yielded):
        predict.run(given)
    again, wire = next_attempt(given)
    made = predict.run(again)
    assert rows_of(lab, made) == whole
    assert any(message.startswith(f"resumed from step {CHUNK}:") for message in wire.messages())
    assert [event["data"]["num_samples"] for event in wire.events("metric")] == [80, 90]
    assert made["file"].endswith("/attempt-2/predictions.parquet")
    # Nothing is left to do for a third one.
    last, wire = next_attempt(again)
    assert rows_of(lab, made := predict.run(last)) == whole
    assert (wire.events("metric"), made["metrics"]["images_per_second"]) == ([], None)


def test_chunks_of_an_attempt_that_was_taken_for_dead_do_no_harm(lab):
    whole = rows_of(lab, predict.run(context(lab)))
    given, _ = asked_after(context(lab), "yield", 2)
    with pytest.raises(Yielded):
        predict.run(given)
    prefix = f"{given.document.checkpoint_prefix}/predictions"
    _, second = lab.storage.list(prefix)
    # It went on from the first chunk with smaller ones, and is further than the second.
    for name in ("000000000040-000000000050", "000000000050-000000000085", "000000000085-000000000090"):
        lab.storage.put(f"{prefix}/{name}.parquet", lab.storage.fetch(second))
    again, wire = next_attempt(given)
    assert rows_of(lab, predict.run(again)) == whole
    assert any(message.startswith("resumed from step 80:") for message in wire.messages())


def test_stop_keeps_the_first_images(lab):
    whole = rows_of(lab, predict.run(context(lab)))
    given, wire = asked_after(context(lab), "stop", 1)
    made = predict.run(given)
    found = rows_of(lab, made)
    assert found == whole[: len(found)]
    assert made["metrics"]["num_samples"] == len(found) == CHUNK
    assert made["metrics"]["num_asked"] == 90
    assert wire.events("log")[-1]["level"] == "warning"
    assert wire.messages()[-1] == "stopped: 50 of 90 images have no prediction"


def test_only_some_splits(lab):
    index = transfer.load(lab.context("predict"), lab.documents["ds_colours"])
    found = rows_of(lab, predict.run(context(lab, splits=["test", "val"])))
    wanted = np.sort(np.concatenate([index.rows_of("val"), index.rows_of("test")]))
    assert [row["id"].encode() for row in found] == index.ids[wanted].tolist()


def test_images_that_cannot_be_used_are_rows_with_a_problem(lab):
    given = context(lab, "ds_strangers", features=True, format="jsonl")
    limited = replace(given, settings=given.settings.model_copy(update={"max_image_pixels": 2000}))
    made = predict.run(limited)
    found = [json.loads(line) for line in lab.storage.fetch(made["file"]).read_text("utf-8").splitlines()]
    assert len(found) == 19
    assert made["metrics"].items() >= {"num_samples": 19, "num_failed": 1}.items()
    (bad,) = (row for row in found if row["problem"] is not None)
    assert (bad["path"], bad["problem"]["code"]) == ("large.png", "image_too_large")
    assert bad["problem"]["detail"].startswith("expected at most 2000 pixels; found 64 x 64")
    assert [bad[name] for name in ("label", "predicted", "score", "scores", "features")] == [None] * 5
    assert all(len(row["scores"]) == 3 and row["label"] is None for row in found if row is not bad)


def test_nothing_but_bad_images(lab):
    given = context(lab, "ds_strangers", features=True)
    limited = replace(given, settings=given.settings.model_copy(update={"max_image_pixels": 1}))
    made = predict.run(limited)
    found = rows_of(lab, made)
    assert made["metrics"]["num_failed"] == len(found) == 19
    assert all(row["problem"]["code"] == "image_too_large" and row["features"] is None for row in found)


def test_lines_have_what_the_table_has(lab):
    table = rows_of(lab, predict.run(context(lab)))
    lines = lab.storage.fetch(predict.run(context(lab, format="jsonl"))["file"]).read_text("utf-8").splitlines()
    assert [json.loads(line) for line in lines] == table


def test_others_open_the_file(lab, tmp_path):
    path = tmp_path / "p.parquet"
    shutil.copyfile(lab.storage.fetch(predict.run(context(lab, features=True))["file"]), path)
    frame = pandas.read_parquet(path)
    assert (frame["label"] == frame["predicted"]).mean() > 0.9
    (counted,) = duckdb.sql(f"select count(*) from '{path}' where scores[1].label = predicted").fetchall()
    assert counted == (90,)
    rows = load_dataset("parquet", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    assert (len(rows), rows[0]["id"], len(rows[0]["features"])) == (90, frame["id"][0], 6)


def test_a_domain_passes_through_its_alignment(lab, tmp_path):
    dim = lab.made["spec"]["backbone"]["feature_dim"]
    graph = tmp_path / "aligned.onnx"
    graph.write_bytes(artifact.affine(np.zeros(dim), np.zeros(dim)))
    lab.storage.put("bundles/default/aln/alignment.onnx", graph)
    through = {"id": "aln_1", "number": 1, "prefix": "bundles/default/aln", "moving_backbone": None}
    given = context(lab, alignment=through, domain="dark", features=True)
    found = rows_of(lab, predict.run(given))
    # Every item looks the same behind it.
    assert len({(row["predicted"], row["score"], tuple(row["features"])) for row in found}) == 1
    assert {row["domain"] for row in found} == {"dark"}


def test_a_version_that_was_deleted_meanwhile_is_a_clear_failure(lab):
    given = context(lab)
    inputs = {**given.document.inputs, "version": side({"prefix": "bundles/default/gone/attempt-1"})}
    document = given.document.model_copy(update={"inputs": inputs})
    with pytest.raises(JobFailure, match=r"version 1 of 'm' .* deleted meanwhile") as caught:
        predict.run(replace(given, document=document))
    assert caught.value.code == "version_deleted"


def test_a_version_that_is_not_ready_is_a_clear_failure(lab, tmp_path):
    """Another attempt would find the same."""
    prefix = "bundles/default/damaged/attempt-1"
    for key in lab.storage.list(lab.made["prefix"]):
        path = lab.storage.fetch(key)
        if key.endswith(bundle.HEAD):
            path = tmp_path / "damaged"
            path.write_bytes(b"no graph")
        lab.storage.put(f"{prefix}/{key.rpartition('/')[2]}", path)
    given = context(lab)
    version = given.document.inputs["version"] | {"prefix": prefix}
    document = given.document.model_copy(update={"inputs": {**given.document.inputs, "version": version}})
    with pytest.raises(JobFailure, match="expected a version whose graphs load") as caught:
        predict.run(replace(given, document=document))
    assert caught.value.code == "internal"


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """A version that was tested on 90 colours, the same colours again, and darker ones."""
    found = Lab(tmp_path_factory.mktemp("compared"))
    found.store("ds_colours", factories.pictures(30))
    found.store("ds_alike", factories.pictures(30, first=300))
    darker = {name: tuple(one // 2 for one in colour) for name, colour in factories.COLOURS.items()}
    found.store("ds_darker", factories.pictures(30, darker))
    found.made = found.transfer("ds_colours")
    index = transfer.load(found.context("predict"), found.documents["ds_colours"])
    said, _ = reference(found, index, np.arange(len(index)))
    known = references.make(said.features, said.probabilities)
    path = found.folder / "reference"
    path.write_bytes(tensors.dump(references.pack(known)))
    found.storage.put(f"{found.made['prefix']}/{bundle.REFERENCE}", path)
    return found


def test_images_are_held_against_those_that_the_version_was_tested_on(compared):
    given, wire = told(context(compared, "ds_alike"))
    metrics = predict.run(given)["metrics"]
    assert metrics.items() >= {"num_samples": 90, "drifted": 0}.items()
    assert not any("differ" in message for message in wire.messages())
    given, wire = told(context(compared, "ds_darker"))
    metrics = predict.run(given)["metrics"]
    assert metrics["drifted"] == 1
    assert metrics["drift_shift"] > 0.25
    (event,) = (
        one for one in wire.events("log") if "differ from those that the version was tested on" in one["message"]
    )
    assert event["level"] == "warning"
    assert "features: their mean lies" in event["message"]
    assert event["data"] == {name: value for name, value in metrics.items() if name.startswith("drift_")}


def test_attempts_together_count_each_image_once(compared):
    whole = predict.run(context(compared, "ds_darker"))["metrics"]
    given, _ = asked_after(context(compared, "ds_darker"), "yield", 1)
    with pytest.raises(Yielded):
        predict.run(given)
    again, wire = next_attempt(given)
    kept = {name: value for name, value in predict.run(again)["metrics"].items() if name != "images_per_second"}
    assert kept == {name: whole[name] for name in kept}
    assert sum("differ" in message for message in wire.messages()) == 1
    assert Chunks(again).moments().num_images == 90
    # Of what a Graft without sums has begun nothing is said.
    prefix = f"{given.document.checkpoint_prefix}/predictions"
    first = next(compared.storage.list(prefix))
    path = compared.folder / "plain"
    pq.write_table(pq.read_table(compared.storage.fetch(first)).replace_schema_metadata(), path)
    compared.storage.put(first, path)
    last, wire = next_attempt(again)
    assert predict.run(last)["metrics"]["drifted"] is None
    assert not any("differ" in message for message in wire.messages())


def test_where_nothing_can_be_said_nothing_is(lab):
    metrics = predict.run(context(lab, "ds_strangers"))["metrics"]
    assert metrics["drifted"] is None
    assert not any(name.startswith("drift_") for name in metrics)


def test_labels_are_told_as_they_were_uploaded(lab):
    index = transfer.load(lab.context("predict"), lab.documents["ds_colours"])
    rest = len(index) - 3
    columns = (
        labels.of_names("animal", ["cat", None, "dög", *["cat"] * rest]),
        labels.of_name_sets("marks", [["x", "y"], [], ["y"], *[[]] * rest]),
        labels.Column("grams", "number", (), np.array([1.5, np.nan, 3.0, *[0.0] * rest])),
    )
    request = {"top_k": 1, "features": False, "model": "m", "version": 3, "domain": None, "alignment": "aln_1"}
    layout = Layout(replace(index, columns=columns), ("no", "yes"), request)
    said = [Result(np.array([[0.25, 0.75]], np.float32), np.zeros((1, 2), np.float32), Timing()) for _ in range(3)]
    table = layout.table([2, 1, 0], said)
    table.validate(full=True)
    assert table.schema == layout.schema
    found = table.to_pylist()
    assert [row["label"] for row in found] == ["dög", None, "cat"]
    assert [row["labels"] for row in found] == [
        {"animal": "dög", "marks": ["y"], "grams": 3.0},
        {"animal": None, "marks": [], "grams": None},
        {"animal": "cat", "marks": ["x", "y"], "grams": 1.5},
    ]
    assert {(row["predicted"], row["score"], row["version"], row["alignment"]) for row in found} == {
        ("yes", 0.75, 3, "aln_1")
    }
    assert found[0]["scores"] == [{"label": "yes", "score": 0.75}]
