"""A served model meets pictures from somewhere else: fit, bind, predict, refit, rebind; through real processes."""

import io

import numpy as np
import pytest
from PIL import Image

from tests import factories
from tests.checks import problem

pytestmark = pytest.mark.server


def tinted(data: bytes) -> bytes:
    """The same picture through a red filter, under which colours no longer look like themselves."""
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), np.float32)
    mixed = pixels * np.array([0.25, 0.25, 0.25], np.float32) + np.array([150, 20, 20], np.float32)
    out = io.BytesIO()
    Image.fromarray(mixed.clip(0, 255).astype(np.uint8)).save(out, "PNG")
    return out.getvalue()


HELD_OUT = factories.pictures(8, first=100)
TRUTH = [name.partition("/")[0] for name in HELD_OUT]
FILTERED = [tinted(data) for data in HELD_OUT.values()]


def upload(client, folder, name, files, **fields):
    archive = folder / f"{name}.zip"
    archive.write_bytes(factories.pack(files))
    made = client.wait_dataset(client.upload_dataset(archive, name, **fields)["id"])
    assert made["state"] == "ready", made["failure"]
    return made["id"]


def accuracy(answer):
    return np.mean([found["label"] == label for found, label in zip(answer["predictions"], TRUTH, strict=True)])


def test_a_domain_from_its_pictures_to_its_predictions(up, tmp_path):
    service = up(worker_slots=1)
    client = service.client
    source = upload(client, tmp_path, "plain", factories.pictures(20))
    # Without labels, and other pictures than those that are asked about.
    others = {
        f"all/{number}.png": tinted(data) for number, data in enumerate(factories.pictures(20, first=300).values())
    }
    target = upload(client, tmp_path, "filtered", others, format="unlabelled")
    recipe = {"method": "linear_probe"}
    job = client.wait_job(client.start_transfer(source, "colours", backbone=factories.BACKBONE, recipe=recipe)["id"])
    assert job["state"] == "succeeded", job["failure"]
    plain = accuracy(client.predict("colours", FILTERED))

    fitted = [
        client.wait_alignment(client.fit_alignment(method, source, factories.BACKBONE, target=target)["id"])
        for method in ("z_score", "optimal_transport")
    ]
    assert [row["state"] for row in fitted] == ["ready", "ready"], [row["failure"] for row in fitted]
    assert [row["number"] for row in fitted] == [1, 2]
    distance = fitted[0]["result"]["distance"]
    assert distance["after"]["mmd"] < distance["before"]["mmd"]

    client.bind_domain("colours", "filtered", fitted[0]["id"])
    through = client.predict("colours", FILTERED, domain="filtered")
    assert (through["domain"], through["alignment"], through["version"]) == ("filtered", fitted[0]["id"], 1)
    assert accuracy(through) > plain
    client.bind_domain("colours", "filtered", fitted[1]["id"])
    assert client.predict("colours", FILTERED, domain="filtered")["alignment"] == fitted[1]["id"]
    history = client.call("GET", "/models/colours/domains/filtered")["history"]
    assert [row["alignment"] for row in history] == [fitted[1]["id"], fitted[0]["id"]]
    assert client.model("colours")["versions"][0]["version"] == 1

    before = service.files()
    few = upload(client, tmp_path, "few", factories.pictures(3, first=700))
    kept = service.files()
    failed = client.wait_alignment(client.fit_alignment("coral", source, factories.BACKBONE, target=few)["id"])
    assert (failed["state"], failed["failure"]["code"]) == ("failed", "dataset_invalid")
    # The upload itself may still be on its way out when its dataset is ready: fewer files are no harm.
    assert set(service.files()) <= set(kept)
    query = {"files": {"file": ("a.png", FILTERED[0])}, "params": {"domain": "other"}}
    problem(service.request("POST", "/api/v1/models/colours/predict", **query), 404, "unknown_domain")
    bound = service.request("DELETE", f"/api/v1/alignments/{fitted[1]['id']}")
    assert problem(bound, 409, "in_use")["users"] == ["colours/filtered"]
    assert service.request("DELETE", f"/api/v1/alignments/{fitted[0]['id']}").status_code == 204
    gone = {name for name in before if name not in service.files()}
    assert len(gone) == 2
    assert all(fitted[0]["job_id"] in name for name in gone)
