"""A dataset whose classes have two images is ready, and fine-tuning of it ends with the probe and says so."""

import pytest

from tests import factories
from tests.worker import transfer_factories
from tests.worker.study_factories import Lab
from worker.methods.fine_tune_probe import TOO_FEW
from worker.prepare import sources


@pytest.mark.parametrize("max_minutes", [None, 60])
def test_classes_of_two_images_are_served_the_probe(tmp_path, monkeypatch, max_minutes):
    monkeypatch.setattr(sources, "open_backbones", lambda context: (transfer_factories.cnn(),))
    lab = Lab(tmp_path)
    lab.store("ds_two", factories.pictures(2))
    done = lab.transfer("ds_two", "fine_tune", recipe={"scope": "norm", "max_minutes": max_minutes})
    report = done["report"]
    (flag,) = [flag for flag in report["flags"] if flag["code"] == "nothing_trained"]
    assert TOO_FEW in flag["message"]
    assert "add images, or use linear_probe" in flag["message"]
    assert report["served"]["method"] == "fine_tune"
    skipped = {one["step"]: one["reason"] for one in report["decisions"]}
    assert skipped["training"] == TOO_FEW
    assert "too few images to hold some out" in skipped["baseline from scratch"]
    # It is the frozen baseline itself, which gains nothing over itself.
    assert (report["verdict"], report["verdicts"]["vs_frozen"], report["gain"]) == (None, None, None)
    assert report["baselines"]["frozen"]["value"] == done["metrics"]["test_accuracy"]
