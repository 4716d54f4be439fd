"""Which backbone for these pictures: asked of a running service, read, and used by a transfer that extracts nothing."""

import pytest

from tests import factories
from tests.checks import problem

pytestmark = pytest.mark.server
MOBILENET = "torchvision/mobilenet_v2"


def test_a_ranking_from_its_question_to_its_use(up, tmp_path):
    service = up(worker_slots=1)
    client = service.client
    archive = tmp_path / "colours.zip"
    archive.write_bytes(factories.pack(factories.pictures(16)))
    dataset = client.wait_dataset(client.upload_dataset(archive, "colours")["id"])
    asked = client.rank_backbones(dataset["id"], [factories.BACKBONE, MOBILENET], max_minutes=60, idempotency_key="one")
    assert client.rank_backbones(
        dataset["id"], [factories.BACKBONE, MOBILENET], max_minutes=60, idempotency_key="one"
    ) == asked  # fmt: skip
    ranking = client.wait_ranking(asked["id"])
    assert ranking["state"] == "ready", ranking["failure"]
    rows = ranking["result"]["candidates"]
    assert [row["rank"] for row in rows] == [1, 2]
    assert {row["backbone"] for row in rows} == {factories.BACKBONE, MOBILENET}
    expected = rows[0]["expected_accuracy"]
    assert 0.5 < expected["low"] <= expected["value"] <= expected["high"] <= 1
    job = client.job(ranking["job_id"])
    assert (job["state"], job["metrics"]["num_candidates"]) == ("succeeded", 2)
    assert any(event.data.get("data", {}).get("step") == "order" for event in client.events(job["id"]) if event.id)

    recipe = {"method": "linear_probe"}
    made = client.start_transfer(dataset["id"], "colours", backbone=rows[0]["backbone"], recipe=recipe)
    assert client.wait_job(made["id"])["state"] == "succeeded"
    messages = [event.data["message"] for event in client.events(made["id"]) if event.type == "log"]
    num_images = rows[0]["num_images"]
    assert any(f"features of {num_images} images: {num_images} cached, 0 extracted" in one for one in messages)

    late = client.wait_ranking(client.rank_backbones(dataset["id"], max_minutes=1e-6)["id"])
    assert late["state"] == "ready", late["failure"]
    hurried = late["result"]["candidates"]
    assert {row["stage"] for row in hurried} == {1}
    assert all(row["num_images"] < num_images for row in hurried), "no time for all images: ranked on the fewest"
    assert client.call("GET", "/rankings")["data"][0]["id"] == late["id"]
    problem(service.request("POST", "/api/v1/rankings", json={"dataset": "ds_0"}), 404, "not_found")
    assert service.request("DELETE", f"/api/v1/rankings/{late['id']}").status_code == 204
