"""Thousands of images by a job whose runner is killed in mid-work: each is predicted once, as `predict` does it."""

import pyarrow.parquet as pq
import pytest

from app.client import ApiError
from tests.conftest import wait_until
from tests.e2e import predicting

pytestmark = pytest.mark.server


def test_a_killed_runner_leaves_neither_holes_nor_doubles(up, home, tmp_path):
    service, _ = predicting.with_probe(up, tmp_path)
    client, plain = service.client, predicting.many_pictures()
    many = predicting.stored(client, tmp_path, "many", plain)

    asked = client.predict_dataset(many, "colours", top_k=2)
    with pytest.raises(ApiError, match="predictions_not_ready"):
        client.download_predictions(asked["id"], tmp_path / "early.parquet")
    assert list(tmp_path.glob("early*")) == []
    job = predicting.killed_in_mid_work(client, home, asked["id"], num_failed=0)

    rows = pq.read_table(client.download_predictions(job["id"], tmp_path / "found.parquet")).to_pylist()
    assert len(rows) == len({row["id"] for row in rows}) == predicting.NUM_IMAGES
    order: list[str] = []
    more = True
    while more:
        params = {"limit": 1000, **({"after": order[-1]} if order else {})}
        page = client.call("GET", f"/datasets/{many}/samples", params=params)
        order += [row["id"] for row in page["data"]]
        more = page["has_more"]
    assert [row["id"] for row in rows] == order
    shown = [*predicting.around_the_seam(rows), *rows[-predicting.NUM_SHOWN :]]
    answer = client.predict(
        "colours", [plain[row["path"]] for row in shown], top_k=2, version=job["request"]["version"]
    )
    predicting.check_as_predicted(shown, answer["predictions"])
    wait_until(lambda: not any("/checkpoints/" in name for name in service.files()), "chunks are gone")
    kept = [name for name in service.files() if f"/{job['id']}/" in name]
    assert [name.partition(f"/{job['id']}/")[2] for name in kept] == ["attempt-2/predictions.parquet"]
