"""A model of classes that nobody has shown, through real processes: tell them, predict."""

import zipfile
from pathlib import Path

import pytest

from tests import factories

pytestmark = pytest.mark.server
HELD_OUT = Path(__file__).parents[2] / "examples" / "data" / "emoji_heldout.zip"


def test_classes_are_told_and_served(up):
    service = up()
    wheels = "something with wheels that people ride in"
    classes = [{"name": "animal"}, {"name": "vehicle", "description": wheels}, {"name": "clothes"}]
    wish = {"backbone": factories.BACKBONE, "recipe": {"method": "zero_shot", "classes": classes}, "model": "told"}
    made = service.request("POST", "/api/v1/jobs", json=wish)
    assert made.status_code == 202, made.text
    job = service.client.wait_job(made.json()["id"])
    assert job["state"] == "succeeded", job["failure"]
    assert (job["metrics"], job["dataset"], job["model"]) == ({}, None, {"name": "told", "version": 1})
    assert service.client.report(job["id"])["verdict"] is None
    truth = {"transport_ground": "vehicle", "clothing": "clothes"}
    with zipfile.ZipFile(HELD_OUT) as archive:
        names = [name for name in archive.namelist() if Path(name).parent.name in truth and not name.endswith("/")]
        images = [archive.read(name) for name in names]
    found = service.client.predict("told", images)["predictions"]
    assert [len(one["scores"]) for one in found] == [3] * len(names)
    right = [one["label"] == truth[Path(name).parent.name] for one, name in zip(found, names, strict=True)]
    assert sum(right) > len(right) / 2
    card = service.request("GET", "/api/v1/models/told/versions/1/files/README.md").text
    assert "made without a dataset" in card
