"""Prediction logs: off by default, what is in them, and that nothing of them stays."""

import io
import json
import weakref
from concurrent.futures import Future
from datetime import date, timedelta

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.db.base import now
from app.services import logs
from app.services.drift import Call
from app.services.predictions import Wanted
from tests.app.api.test_predictions import PICTURES, URL, multipart, prepare
from tests.app.api.test_streams import NDJSON, sent
from tests.checks import inference_error, problem
from tests.factories import files_below

LOG = "/api/v1/models/tiny/log"
PARQUET = {"Accept": "application/vnd.apache.parquet"}
RAW = {"Inference-Header-Content-Length": "0", "Content-Type": "application/octet-stream"}


@pytest.fixture
def served(client, tmp_path):
    """On both databases, since there is a table."""
    prepare(client, tmp_path, 2)
    return client


def flush(client):
    client.app.state.graft.observation.logbook.flush()


def read(client, **headers):
    flush(client)
    (day,) = client.get(LOG).json()["days"]
    answer = client.get(LOG, params={"day": day}, headers=headers)
    assert answer.status_code == 200
    assert f'filename="tiny-{day}.' in answer.headers["content-disposition"]
    return answer


def test_nothing_is_written_unless_it_is_turned_on(served, home):
    assert served.post(URL, **multipart(PICTURES)).status_code == 200
    flush(served)
    assert not [path for path in files_below(home / "storage") if "predictions/" in path]
    problem(served.get(LOG), 404, "not_found")
    served.put(LOG, json={"share": 0})
    assert served.post(URL, **multipart(PICTURES)).status_code == 200
    flush(served)
    assert served.get(LOG).json()["days"] == []


def test_every_door_is_written_down(served, tmp_path):
    found = served.put(LOG, json={"share": 1, "keep_days": 3, "images": False}).json()
    del found["updated_at"]
    assert found == {"model": "tiny", "share": 1, "keep_days": 3, "images": False, "days": []}
    served.put("/api/v1/models/tiny/aliases/trial", json={"version": 1})
    named = {"params": {"alias": "trial"}, "headers": {"X-Request-Id": "abc"}}
    said = served.post(URL, **named, **multipart(PICTURES[:2])).json()
    served.post(URL, headers={"Accept": "application/x-ndjson"}, **multipart(PICTURES[2:4]))
    served.post("/v2/models/tiny/infer", content=PICTURES[4], headers=RAW)
    rows = [json.loads(line) for line in read(served).text.splitlines()]
    assert len(rows) == 5
    asked = [row for row in rows if row["request_id"] == "abc"]
    assert [(row["alias"], row["version"], row["index"]) for row in asked] == [("trial", 1, 0), ("trial", 1, 1)]
    for row, prediction in zip(asked, said["predictions"], strict=True):
        assert row["predicted"] == prediction["label"]
        assert row["score"] == pytest.approx(prediction["score"], abs=1e-6)
        assert [one["label"] for one in row["scores"]] == [one["label"] for one in prediction["scores"]]
    assert all("image" not in row and len(row["sha256"]) == 64 for row in rows)
    assert {row["version"] for row in rows if row["alias"] is None} == {2}
    samples = {
        sample.labels["outcome"]: sample.value
        for family in text_string_to_metric_families(served.get("/metrics").text)
        for sample in family.samples
        if sample.name == "graft_log_images_total"
    }
    assert samples == {"written": 5}


def test_an_image_of_a_stream_has_the_index_of_its_line(served):
    """What is no image has a line too, and no record."""
    served.put(LOG, json={"share": 1})
    body = b"\n".join((sent(PICTURES[:2]), b"{}", sent([b"text"]), sent(PICTURES[2:4])))
    answer = served.post(URL, content=body, headers={"Content-Type": NDJSON})
    said = {line["index"]: line.get("label") for line in map(json.loads, answer.text.splitlines())}
    rows = [json.loads(line) for line in read(served).text.splitlines()]
    assert {row["index"]: row["predicted"] for row in rows} == {0: said[0], 1: said[1], 4: said[4], 5: said[5]}
    assert len(rows) == 4
    assert {row["request_id"] for row in rows} == {answer.headers["X-Request-Id"]}


@pytest.mark.parametrize("given", ["mine", "with a blank", "x" * 201, "\u00e4".encode("latin-1"), None])
def test_a_record_has_the_id_of_the_answer(served, given):
    """What a client sends as an id goes into files as it goes into lines: bounded, in ASCII, or not at all."""
    served.put(LOG, json={"share": 1})
    headers = {} if given is None else {"X-Request-Id": given}
    said = [
        served.post(URL, headers=headers, **multipart(PICTURES[:1])),
        served.post(URL, headers={**headers, "Accept": "application/x-ndjson"}, **multipart(PICTURES[:1])),
        served.post("/v2/models/tiny/infer", content=PICTURES[0], headers={**headers, **RAW}),
    ]
    ids = {answer.headers["X-Request-Id"] for answer in said}
    assert {json.loads(line)["request_id"] for line in read(served).text.splitlines()} == ids
    assert given == "mine" or all(name.startswith("req_") for name in ids)


def test_an_inference_request_may_name_itself(served):
    served.put(LOG, json={"share": 1})
    pixels = {"name": "images", "datatype": "UINT8", "shape": [1, 8, 8, 3], "data": [0] * 192}
    assert served.post("/v2/models/tiny/infer", json={"id": "n" * 300, "inputs": [pixels]}).json()["id"] == "n" * 300
    (row,) = map(json.loads, read(served).text.splitlines())
    assert row["request_id"] == "n" * 200


@pytest.mark.parametrize("given", ["half of a pair: \ud800", "a\0"])
def test_an_id_that_no_file_can_hold_is_refused(served, given):
    served.put(LOG, json={"share": 1})
    pixels = {"name": "images", "datatype": "UINT8", "shape": [1, 8, 8, 3], "data": [0] * 192}
    answer = served.post("/v2/models/tiny/infer", content=json.dumps({"id": given, "inputs": [pixels]}))
    assert "expected an id in UTF-8" in inference_error(answer, 400)
    flush(served)
    assert served.get(LOG).json()["days"] == []
    assert served.app.state.graft.statistics.total().counters == {}


def test_pixels_go_with_their_request(served):
    """They are neither hashed nor kept, so none of them waits for storage."""
    served.put(LOG, json={"share": 1, "images": True})
    state = served.app.state.graft
    found = state.lookup.find("default", Wanted("tiny"))
    with state.observation.logbook._writing:
        pixels = np.zeros((2, 8, 8, 3), np.uint8)
        call, future = Call(found, pixels, None, None, "mine"), Future()
        state.observation.watch(call, future)
        future.set_result(state.engine.submit(found.model, pixels.copy()).result(60))
        left = weakref.ref(pixels)
        del call, pixels, future
        assert left() is None
    assert [json.loads(line)["sha256"] for line in read(served).text.splitlines()] == [None, None]


def test_images_are_kept_where_that_is_asked_for_and_datasets_reads_them(served, tmp_path):
    served.put(LOG, json={"share": 1, "images": True})
    for picture in PICTURES[:3]:
        served.post(URL, **multipart([picture]))
        flush(served)
    content = read(served, **PARQUET).content
    rows = pq.read_table(io.BytesIO(content)).to_pylist()
    assert [row["image"]["bytes"] for row in sorted(rows, key=lambda row: row["at"])] == PICTURES[:3]
    path = tmp_path / "day.parquet"
    path.write_bytes(content)
    loaded = datasets.load_dataset("parquet", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded.cast_column("image", datasets.Image())[0]["image"].size == (32, 32)
    assert list(served.app.state.graft.settings.scratch.glob("log-*")) == []


def test_old_days_are_removed_and_nothing_of_a_deleted_model_stays(served, home, tmp_path):
    state = served.app.state.graft
    served.put(LOG, json={"share": 1, "keep_days": 2})
    served.post(URL, **multipart(PICTURES))
    flush(served)
    today = now().date()
    (key,) = state.storage.list("predictions")
    for days in (1, 2, 3, 40):
        other = key.replace(key.split("/")[3], (today - timedelta(days=days)).isoformat())
        state.storage.put(other, state.storage.fetch(key))
    state.storage.put(key.replace(key.split("/")[2], "mdl_" + "0" * 20), state.storage.fetch(key))
    assert logs.expire(state.database, state.storage, today) == 3
    assert served.get(LOG).json()["days"] == [(today - timedelta(days=days)).isoformat() for days in (2, 1, 0)]
    # What waits when the model goes is not written any more.
    served.post(URL, **multipart(PICTURES))
    assert served.delete("/api/v1/models/tiny").status_code == 204
    flush(served)
    assert list(state.storage.list("predictions")) == []


def test_turning_it_off_removes_what_was_written(served):
    served.put(LOG, json={"share": 1})
    served.post(URL, **multipart(PICTURES))
    flush(served)
    assert served.delete(LOG).status_code == 204
    served.post(URL, **multipart(PICTURES))
    flush(served)
    assert list(served.app.state.graft.storage.list("predictions")) == []
    problem(served.delete(LOG), 404, "not_found")


def test_what_is_wrong_is_said(served):
    problem(served.put("/api/v1/models/none/log", json={"share": 1}), 404, "not_found")
    for body in ({}, {"share": 1.5}, {"share": 1, "keep_days": 0}, {"share": 1, "keep": 3}):
        problem(served.put(LOG, json=body), 422, "invalid_payload")
    served.put(LOG, json={"share": 1})
    problem(served.get(LOG, params={"day": "yesterday"}), 422, "invalid_payload")
    refused = problem(served.get(LOG, params={"day": date(2020, 1, 1).isoformat()}), 404, "not_found")
    assert "found nothing of 2020-01-01; there are: none yet" in refused["detail"]
