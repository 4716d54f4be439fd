"""A model is asked again, through real processes: on other data, against another version, once more, and whence."""

import pytest

from app.client import ApiError
from tests import factories
from tests.conftest import wait_until

pytestmark = pytest.mark.server


def upload(client, folder, name, files, **fields):
    archive = folder / f"{name}.zip"
    archive.write_bytes(factories.pack(files))
    made = client.wait_dataset(client.upload_dataset(archive, name, **fields)["id"])
    assert made["state"] == "ready", made["failure"]
    return made["id"]


def test_an_evaluation_a_reproduction_and_a_lineage(up, tmp_path):
    service = up(worker_slots=1)
    client = service.client
    dataset = upload(client, tmp_path, "colours", factories.pictures(12))
    child = upload(client, tmp_path, "child", factories.pictures(4, first=50), base=dataset)
    made = [
        client.wait_job(
            client.start_transfer(dataset, "colours", backbone=factories.BACKBONE, recipe={"method": method})["id"]
        )
        for method in ("linear_probe", "few_shot")
    ]
    assert [job["state"] for job in made] == ["succeeded"] * 2, [job["failure"] for job in made]
    before = service.files()

    asked = client.evaluate(child, model="colours", version=1, against={"model": "colours", "version": 2}, split="all")
    found = client.wait_evaluation(asked["id"])
    assert found["state"] == "ready", found["failure"]
    result = found["result"]
    learned = sum(client.dataset(dataset)["splits"][name] for name in ("train", "val"))
    assert result["num_items"] == client.dataset(child)["num_samples"]
    assert result["leakage"]["num_learned_from"] == learned
    assert result["leakage"]["without"]["num_items"] == result["num_items"] - learned
    assert result["metrics"]["accuracy"] == client.job(found["job_id"])["metrics"]["accuracy"] == 1.0
    assert result["comparison"]["verdict"] == "no evidence"

    again = client.wait_evaluation(client.reproduce(made[0]["id"])["id"])
    assert again["state"] == "ready", again["failure"]
    assert again["result"]["verdict"] == "identical"

    folds = client.evaluate(
        dataset, mode="folds", backbone=factories.BACKBONE, recipe={"method": "few_shot"}, folds=2, repeats=1
    )
    over = client.wait_evaluation(folds["id"])
    assert (over["state"], over["result"]["num_folds"]) == ("ready", 2), over["failure"]

    chain = client.lineage("colours", 1)
    assert [node["what"] for node in chain["chain"]] == ["version", "job", "dataset", "backbone"]
    assert chain["items"]["num_test"] == client.dataset(dataset)["splits"]["test"]
    assert (chain["items"]["num_seen_before"], chain["warnings"]) == (0, [])
    # Features of the child's new items are all that stayed: no bundle, no checkpoint. A bell may hang still.
    # Checkpoints are taken away once the result is committed, a moment after it is seen.
    wait_until(lambda: not any("/checkpoints/" in name for name in service.files()), "checkpoints are gone")
    new = {name for name in set(service.files()) - set(before) if "/broker/messages/" not in name}
    assert new
    assert all("/features/" in name for name in new), new
    with pytest.raises(ApiError) as caught:
        client.adopt_backbone("x", "colours", 1)
    assert caught.value.code == "backbone_unchanged"
    listed = client.call("GET", "/evaluations")["data"]
    assert [row["id"] for row in listed] == [over["id"], again["id"], found["id"]]
    client.call("DELETE", f"/evaluations/{found['id']}")
    assert "Traceback" not in service.log.read_text()


def test_an_excerpt_is_taken_again_as_it_was(up, tmp_path):
    """Its time held a part of the images; by now all features are in the cache, and would fit."""
    client = up(worker_slots=1).client
    dataset = upload(client, tmp_path, "many", factories.pictures(60))
    recipe = {"method": "fine_tune", "scope": "head", "max_minutes": 1e-6}
    made = client.wait_job(client.start_transfer(dataset, "part", backbone=factories.BACKBONE, recipe=recipe)["id"])
    assert made["state"] == "succeeded", made["failure"]
    whole = client.wait_job(
        client.start_transfer(dataset, "all", backbone=factories.BACKBONE, recipe={"method": "linear_probe"})["id"]
    )
    assert made["metrics"]["num_test"] < whole["metrics"]["num_test"] == client.dataset(dataset)["splits"]["test"]
    again = client.wait_evaluation(client.reproduce(made["id"])["id"])
    assert again["state"] == "ready", again["failure"]
    found = again["result"]
    assert (found["verdict"], found["predictions"]["num_items"]) == ("identical", made["metrics"]["num_test"])


def test_a_full_report_follows_the_version_that_is_served(up, tmp_path):
    service = up(worker_slots=1)
    client = service.client
    dataset = upload(client, tmp_path, "colours", factories.pictures(24))
    # So short that no network from scratch fits: what follows trains these, and runs images through the version again.
    asked = client.start_transfer(
        dataset, "colours", backbone=factories.BACKBONE, recipe={"method": "auto", "max_minutes": 0.2}, report="full"
    )
    report = client.wait_report(asked["id"])
    job = client.job(asked["id"])
    assert job["state"] == "succeeded", job["failure"]
    follower = client.job(job["follow_up"])
    assert (follower["kind"], follower["state"], follower["follows"]) == ("evaluate", "succeeded", job["id"])
    assert follower["created_at"] >= job["started_at"]
    told = report["follow_up"]
    assert (told["job"], told["state"]) == (follower["id"], "succeeded")
    # The gain waits as well where what is served is the frozen probe, which gains nothing over itself.
    assert set(told["fills"]) - {"gain"} == {
        "robustness", "out_of_distribution", "verdict", "verdicts.vs_scratch", "baselines.scratch",
        "seed_deviation.scratch",
    }  # fmt: skip
    assert report["verdict"] == report["verdict_evidence"]["vs_scratch"]["verdict"]
    assert report["robustness"]["accuracy"] == report["metrics"]["test_accuracy"]
    assert not set(report["follow_up"]["fills"]) & {key for key in report["not_computed"] if report.get(key)}
    page = service.request("GET", f"/api/v1/jobs/{job['id']}/report", headers={"Accept": "text/html"}).text
    assert "unfinished" not in page
    published = client.call("GET", "/models/colours/versions/1/files/report.json")
    assert published["robustness"] is None
    assert job["id"] in published["not_computed"]["robustness"]
    (listed,) = client.call("GET", "/evaluations")["data"]
    assert (listed["job_id"], listed["request"]["mode"]) == (follower["id"], "report")
    assert "Traceback" not in service.log.read_text()
