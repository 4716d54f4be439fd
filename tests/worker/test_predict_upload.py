"""Predictions over an upload: opened as ingestion does, each image a row, nothing left but the file."""

import io
import json
import sys
import zipfile
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.errors import JobFailure
from tests import factories
from tests.hostile import archives
from tests.worker.study_factories import Lab, side
from tests.worker.test_predict import CHUNK, asked_after, next_attempt, rows_of, told
from worker import predict
from worker.attempt.progress import Yielded
from worker.data import opening, problems
from worker.data.decoding import Decoders
from worker.data.findings import PROBLEMS
from worker.predictions import sources

PICTURES = factories.pictures(30, first=500)
PREDICTED = ("predicted", "score", "scores", "features", "problem")


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(predict, "CHUNK_ROWS", CHUNK)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Colours with a version of them."""
    found = Lab(tmp_path_factory.mktemp("home"))
    found.store("ds_colours", factories.pictures(30))
    found.store("ds_same", PICTURES)
    found.made = found.transfer("ds_colours")
    return found


def asked(**request):
    return {
        "dataset": None, "upload_id": None, "model": "m", "version": 1, "alias": None, "domain": None,
        "alignment": None, "splits": None, "top_k": 100, "features": True, "format": "parquet", **request,
    }  # fmt: skip


def context(lab, content, **request):
    """A job over an upload of those bytes, or of a zip of those files."""
    key, path = "incoming/default/up_1", lab.folder / "upload"
    path.write_bytes(archives.packed(content))
    lab.storage.put(key, path)
    inputs = {
        "archive": key, "filename": "sent.zip", "request": asked(upload_id="up_1", **request),
        "version": side(lab.made),
    }  # fmt: skip
    return lab.context("predict", inputs=inputs)


def test_an_upload_is_answered_as_a_dataset_of_the_same_images_is(lab):
    inputs = {"request": asked(dataset="ds_same"), "version": side(lab.made)}
    wanted = {row["id"]: row for row in rows_of(lab, predict.run(lab.context("predict", "ds_same", inputs=inputs)))}
    before = set(lab.storage.list("datasets"))
    given, wire = told(context(lab, PICTURES))
    made = predict.run(given)
    found = rows_of(lab, made)
    # In the order of the archive, with the folders' names in the paths and nowhere else.
    assert [row["path"] for row in found] == list(PICTURES)
    assert {(row["label"], row["split"]) for row in found} == {(None, None)}
    for row in found:
        same = wanted.pop(row["id"])
        assert row["sha256"] == same["sha256"]
        assert row["score"] == pytest.approx(same["score"], abs=1e-5)
        assert row["predicted"] == same["predicted"]
    assert not wanted
    assert made["metrics"].items() >= {"num_samples": 90, "num_asked": 90, "num_failed": 0}.items()
    assert [event["data"]["num_samples"] for event in wire.events("metric")] == [40, 80, 90]
    fractions = [message["progress"]["fraction"] for message in wire.seen if "progress" in message]
    assert fractions == sorted(fractions)
    # Nothing is left of it but the file, and the chunks, which go with the job's end.
    assert set(lab.storage.list("datasets")) == before
    left = {key.split("/")[3] for key in lab.storage.list(f"checkpoints/default/{given.document.id}")}
    assert left == {"predictions"}
    assert list(given.scratch.glob("members*")) == []


def test_every_image_that_cannot_be_used_is_a_row_with_its_problem(lab):
    whole = factories.png(seed=1)
    zipped = io.BytesIO()
    files = {
        "good.png": whole, "cut.png": whole[:-200], "text.jpg": b"just text", "notes.txt": b"read me",
        "labels.csv": b"file,label\ngood.png,cat\n", "empty.png": b"", "large.png": factories.png(seed=3, size=64),
    }  # fmt: skip
    with zipfile.ZipFile(zipped, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("good.png", factories.png(seed=2))
        archive.writestr("last.png", factories.png(seed=4))
    given, wire = told(context(lab, zipped.getvalue(), format="jsonl"))
    given = replace(given, settings=given.settings.model_copy(update={"max_image_pixels": 2000}))
    made = predict.run(given)
    lines = lab.storage.fetch(made["file"]).read_text("utf-8").splitlines()
    found = [json.loads(line) for line in lines]
    assert [(row["path"], row["problem"] and row["problem"]["code"]) for row in found] == [
        ("good.png", None), ("cut.png", "image_truncated"), ("text.jpg", "image_unreadable"),
        ("empty.png", "image_unreadable"), ("large.png", "image_too_large"), ("good.png", "duplicate_name"),
        ("last.png", None),
    ]  # fmt: skip
    for row in found:
        is_good = row["problem"] is None
        assert all((row[name] is not None) == is_good for name in PREDICTED if name != "problem")
        assert is_good or "; " in row["problem"]["detail"]
    assert "found 64 x 64" in found[4]["problem"]["detail"]
    assert made["metrics"].items() >= {"num_samples": 7, "num_failed": 5}.items()
    # What is no image is told of in the log.
    assert [message for message in wire.messages() if "notes.txt" in message] == [
        "notes.txt: expected images; found a .txt file, which is left out"
    ]


def test_a_member_that_does_not_unpack_costs_only_itself(lab):
    files = {"a.png": factories.png(seed=1), "b.png": factories.png(seed=2)}
    data = bytearray(factories.pack(files))
    at = data.find(files["b.png"])
    data[at + 40] ^= 0xFF
    found = rows_of(lab, predict.run(context(lab, bytes(data))))
    assert [row["path"] for row in found] == ["a.png", "b.png"]
    assert found[1]["problem"]["code"] == "entry_unreadable"
    assert (found[1]["id"], found[1]["sha256"], found[1]["predicted"]) == (None, None, None)
    assert found[0]["problem"] is None


def test_nothing_but_bad_images_is_a_file_that_says_so(lab):
    made = predict.run(context(lab, {f"{number}.jpg": b"no image" for number in range(3)}))
    assert [row["problem"]["code"] for row in rows_of(lab, made)] == ["image_unreadable"] * 3
    assert made["metrics"].items() >= {"num_failed": 3, "drifted": None}.items()


def test_problems_behind_those_that_are_listed_are_rows_as_well(lab, monkeypatch):
    monkeypatch.setattr(problems, "MAX_LISTED", 1)
    found = rows_of(lab, predict.run(context(lab, {f"{number}.jpg": b"no image" for number in range(3)})))
    assert sum("was not written down" in row["problem"]["detail"] for row in found) == 2


def test_a_parquet_file_of_images_is_an_upload_too(lab, tmp_path):
    images = [{"bytes": factories.png(seed=number), "path": f"{number}.png"} for number in range(3)]
    for name, more in (("plain", {}), ("labelled", {"label": ["a", "a", "a"]})):
        path = tmp_path / f"{name}.parquet"
        pq.write_table(pa.table({"image": images, **more}), path)
        found = rows_of(lab, predict.run(context(lab, path.read_bytes())))
        assert [(row["path"], row["label"], row["problem"]) for row in found] == [
            (f"{number}.png", None, None) for number in range(3)
        ]


OPENED = {name: made for name, made in archives.REFUSED.items() if made[0] != "nothing_decodable"}
# Labels are not read, so nothing of theirs is refused; images that are not in the upload are.
LABELS = {*archives.OUTSIDE, *archives.LABELLED} - {"a Parquet path without bytes"}


@pytest.mark.parametrize("case", sorted(set(OPENED) - LABELS))
def test_hostile_uploads_fail_the_job_as_they_fail_ingestion(lab, case):
    code, make = OPENED[case]
    given, wire = told(context(lab, make()))
    with pytest.raises(JobFailure) as caught:
        predict.run(given)
    assert caught.value.code == "dataset_invalid"
    assert PROBLEMS[code].fix in str(caught.value)
    assert code in {event["data"]["code"] for event in wire.events("log")}
    assert list(given.scratch.glob("members*")) == []


def test_a_process_that_opens_an_upload_and_dies_fails_the_job(lab, monkeypatch):
    program = "import os; print('[\"ready\"]', flush=True); os.abort()"
    command = (sys.executable, "-c", program)
    monkeypatch.setattr(opening.Opener.__init__, "__defaults__", (command,))
    with pytest.raises(JobFailure, match="the process that opens it ended"):
        predict.run(context(lab, PICTURES))


def test_an_attempt_that_takes_over_decodes_only_what_is_left(lab, monkeypatch):
    bad = {**PICTURES, "blue/506.png": b"none", "red/529.png": b"none"}
    whole = rows_of(lab, predict.run(context(lab, bad, features=False)))
    given, _ = asked_after(context(lab, bad, features=False), "yield", 1)
    with pytest.raises(Yielded):
        predict.run(given)
    checked = []
    submit = Decoders.submit
    monkeypatch.setattr(Decoders, "submit", lambda self, row, *place: checked.append(row) or submit(self, row, *place))
    again, wire = next_attempt(given)
    made = predict.run(again)
    assert rows_of(lab, made) == whole
    assert checked == list(range(CHUNK, 90))
    assert any(message.startswith(f"resumed from step {CHUNK}: {CHUNK} of 90") for message in wire.messages())
    assert made["metrics"].items() >= {"num_samples": 90, "num_failed": 2}.items()


def test_a_worker_that_shuts_down_does_not_wait_until_all_is_read(lab):
    given, wire = told(context(lab, PICTURES))
    given.reporter._request = "yield"
    with pytest.raises(Yielded):
        predict.run(given)
    assert wire.events("metric") == []
    again, _ = next_attempt(given)
    assert len(rows_of(lab, predict.run(again))) == 90


def test_findings_in_the_log_are_few(lab, monkeypatch):
    monkeypatch.setattr(sources, "NUM_TOLD", 2)
    given, wire = told(context(lab, {"a.png": factories.png(), **{f"{n}.txt": b"t" for n in range(5)}}))
    predict.run(given)
    assert wire.messages()[:3] == [
        *(f"{n}.txt: expected images; found a .txt file, which is left out" for n in range(2)),
        "3 more findings like these",
    ]
