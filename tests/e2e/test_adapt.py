"""Adaptation through real processes: two drawings of the same emoji, one labelled, one not."""

import zipfile
from pathlib import Path

import pytest

from tests import factories
from tests.checks import problem

pytestmark = pytest.mark.server
DATA = Path(__file__).parents[2] / "examples" / "data"


def uploaded(client, path, **fields):
    made = client.wait_dataset(client.upload_dataset(path, path.stem, **fields)["id"])
    assert made["state"] == "ready", made["failure"]
    return made


def bare(folder):
    """The target's pictures without their folders, every tenth held back: (archive, held-back pictures by name)."""
    with zipfile.ZipFile(DATA / "emoji_twitter.zip") as archive:
        files = {name: archive.read(name) for name in sorted(archive.namelist()) if name.endswith(".png")}
    held = dict(list(files.items())[::10])
    path = folder / "bare.zip"
    kept = [data for name, data in files.items() if name not in held]
    path.write_bytes(factories.pack({f"{place}.png": data for place, data in enumerate(kept)}))
    return path, held


def test_an_unlabelled_domain_is_served_by_a_labelled_one(up, tmp_path):
    service = up(worker_slots=1)
    client = service.client
    source = uploaded(client, DATA / "emoji.zip")
    archive, held = bare(tmp_path)
    target = uploaded(client, archive, format="unlabelled")
    # Time enough on a busy machine, too: what does not fit is left out, and that is tested elsewhere.
    recipe = {"method": "adapt", "source": source["id"], "candidates": ["z_score", "coral", "dann"], "max_minutes": 60}
    started = client.start_transfer(target["id"], "twitter", backbone=factories.BACKBONE, recipe=recipe)
    busy = service.request("DELETE", f"/api/v1/datasets/{source['id']}")
    problem(busy, 409, "in_use")
    job = client.wait_job(started["id"])
    assert job["state"] == "succeeded", job["failure"]
    assert job["metrics"]["test_accuracy"] is None
    assert job["metrics"]["source_val_accuracy"] > 0.7
    report = client.report(job["id"])
    assert report["verdict"] is None
    names = [one["name"] for one in report["domain"]["candidates"]]
    assert names == ["source_only", "z_score", "coral", "dann"]
    assert report["served"]["what"] in names
    answer = client.predict("twitter", list(held.values()))
    truth = [name.split("/")[-2] for name in held]
    right = sum(found["label"] == label for found, label in zip(answer["predictions"], truth, strict=True))
    # One in ten by chance.
    assert right / len(held) > 0.5
    card = service.request("GET", "/api/v1/models/twitter/versions/1/files/README.md").text
    assert "Nothing was measured" in card
    # A class is put into what adaptation trained, a network with a hidden layer: drawings in the source's style.
    assert service.request("GET", "/api/v1/models/twitter/versions/1").json()["spec"]["head"] == "network"
    with zipfile.ZipFile(DATA / "emoji_heldout.zip") as archive:
        others = [archive.read(name) for name in sorted(archive.namelist()) if name.endswith(".png")]
    added = client.add_class("twitter", "other", others[::2])
    assert (added["version"], added["how"]) == (2, "imprinted")
    assert added["old_classes"]["accuracy_after"] is None
    assert "adapt without labels" in added["old_classes"]["reason"]
    again = client.predict("twitter", list(held.values()))["predictions"]
    old = [max((one for one in found["scores"] if one["label"] != "other"), key=lambda one: one["score"])["label"]
           for found in again]  # fmt: skip
    assert old == [found["label"] for found in answer["predictions"]]
    assert any(found["label"] == "other" for found in client.predict("twitter", others[1::2])["predictions"])
