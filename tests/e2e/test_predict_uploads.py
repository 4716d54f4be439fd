"""Predictions over an upload by a job whose runner is killed in mid-work, on a real service."""

import pyarrow.parquet as pq
import pytest

from app.client import ApiError
from tests import factories
from tests.conftest import wait_until
from tests.e2e import predicting
from worker.predict import CHUNK_ROWS

pytestmark = pytest.mark.server


def test_an_upload_is_predicted_once_and_nothing_else_is_left_of_it(up, home, tmp_path):
    service, colours = predicting.with_probe(up, tmp_path)
    client = service.client
    plain = predicting.many_pictures("shelf/")
    plain["shelf/00007.png"] = plain[f"shelf/{CHUNK_ROWS + 9:05d}.png"] = b"no image"
    upload = client.upload(predicting.packed(tmp_path, "many", plain))
    asked = client.predict_upload(upload["id"], "colours", top_k=2)
    assert (asked["dataset"], asked["request"]["upload_id"]) == (None, upload["id"])
    with pytest.raises(ApiError, match="upload_used"):
        client.predict_upload(upload["id"], "colours")
    job = predicting.killed_in_mid_work(client, home, asked["id"], num_failed=2)

    rows = pq.read_table(client.download_predictions(job["id"], tmp_path / "found.parquet")).to_pylist()
    assert [row["path"] for row in rows] == list(plain)
    bad = {row["path"]: row["problem"]["code"] for row in rows if row["problem"]}
    assert bad == dict.fromkeys(("shelf/00007.png", f"shelf/{CHUNK_ROWS + 9:05d}.png"), "image_unreadable")
    shown = [row for row in predicting.around_the_seam(rows) if not row["problem"]]
    answer = client.predict("colours", [plain[row["path"]] for row in shown], top_k=2)
    predicting.check_as_predicted(shown, answer["predictions"])
    # One dataset, that of the transfer; of the upload neither the archive nor the chunks, nor what was unpacked.
    assert [one["id"] for one in client.call("GET", "/datasets")["data"]] == [colours]
    wait_until(lambda: not [name for name in service.files() if upload["id"] in name], "the upload is gone")
    # What the killed attempt was working with goes with the sweep.
    wait_until(lambda: len([name for name in service.files() if job["id"] in name]) == 1, "only the result is left")
    (kept,) = [name for name in service.files() if job["id"] in name]
    assert kept.endswith(f"/{job['id']}/attempt-2/predictions.parquet")


def test_a_hostile_upload_fails_its_job_and_leaves_nothing(up, tmp_path):
    service, _ = predicting.with_probe(up, tmp_path)
    client = service.client
    hostile = {"a.png": factories.png(), "../../b.png": factories.png()}
    upload = client.upload(predicting.packed(tmp_path, "hostile", hostile))
    job = client.wait_job(client.predict_upload(upload["id"], "colours")["id"])
    assert (job["state"], job["failure"]["code"]) == ("failed", "dataset_invalid")
    assert "inside the archive" in job["failure"]["message"]
    wait_until(lambda: not [name for name in service.files() if upload["id"] in name], "the upload is gone")
    with pytest.raises(ApiError, match="not_retryable"):
        client.call("POST", f"/jobs/{job['id']}/retry")
