"""A damaged dataset is looked at, mended in one call, and looked at again; through real processes."""

import pytest

from tests import factories

pytestmark = pytest.mark.server

WRONG = {
    f"green/was_blue_{number}.png": factories.png(factories.COLOURS["blue"], seed=9000 + number) for number in (0, 1)
}


def test_a_dataset_is_looked_at_mended_and_looked_at_again(up, tmp_path):
    service = up(worker_slots=1)
    client = service.client
    archive = tmp_path / "colours.zip"
    archive.write_bytes(factories.pack({**factories.pictures(20), **WRONG}))
    dataset = client.wait_dataset(client.upload_dataset(archive, "colours")["id"])
    assert dataset["state"] == "ready", dataset["failure"]

    advice = client.wait_advice(client.advise(dataset["id"], backbone=factories.BACKBONE)["id"])
    assert advice["state"] == "ready", advice["failure"]
    result = advice["result"]
    found = [one for one in result["findings"] if one["kind"] == "label_error"]
    named = {result["samples"][one["samples"][0]]["path"] for one in found}
    assert named == set(WRONG)
    assert client.job(advice["job_id"])["metrics"]["num_label_error"] == 2
    page = service.request("GET", f"/api/v1/advice/{advice['id']}", headers={"Accept": "text/html"})
    assert page.headers["content-type"].startswith("text/html")
    assert page.text.count("data:image/jpeg;base64,") >= 2

    child = client.wait_dataset(client.apply_advice(advice["id"], findings=[one["id"] for one in found])["id"])
    assert (child["state"], child["base"], child["num_samples"]) == ("ready", dataset["id"], 62)
    sizes = {row["name"]: row["num_samples"] for row in child["classes"]}
    assert sizes == {"blue": 22, "green": 20, "red": 20}
    assert child["splits"] == dataset["splits"]

    again = client.wait_advice(client.advise(child["id"], backbone=factories.BACKBONE, against=dataset["id"])["id"])
    assert again["result"]["counts"]["label_error"] == 0
    assert again["result"]["drift"]["images_differ"] is False
    assert again["result"]["drift"]["num_same_images"] == 62
    kept = [name for name in service.files() if "/studies/" in name]
    assert len(kept) == 2
    assert service.request("DELETE", f"/api/v1/advice/{advice['id']}").status_code == 204
    assert [name for name in service.files() if "/studies/" in name] == [name for name in kept if again["id"] in name]
