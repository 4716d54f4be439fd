"""A class is added to a model of each kind, on both databases."""

import base64
import json
import re

import numpy as np
import pytest
from sqlalchemy import select

from app.artifact import bundle, card, predicted, scores, tensors
from app.artifact.graph import constants
from app.artifact.spec import load as load_spec
from app.db.models import ModelVersion
from app.services import class_checks
from tests import factories
from tests.app import onnx_factories
from tests.app.api.class_requests import OLD, PINK, URL, YELLOW, head, num_rows, publish, send
from tests.checks import problem
from tests.factories import files_below


def asked(client, pictures, **query):
    files = [("file", (f"{place}.png", data)) for place, data in enumerate(pictures)]
    answer = client.post("/api/v1/models/tiny/predict", params=query, files=files)
    assert answer.status_code == 200, answer.text
    return [item["label"] for item in answer.json()["predictions"]]


HOW = {
    "cosine": "centroid", "linear": "imprinted", "neighbours": "neighbours", "network": "imprinted",
    "conse": "imprinted", "combined": "imprinted",
}  # fmt: skip


@pytest.mark.parametrize("kind", HOW)
def test_a_class_is_there_at_once_and_the_others_stay(client, home, tmp_path, kind):
    publish(client, tmp_path, kind)
    answer = send(client)
    assert answer.status_code == 201, answer.text
    assert answer.json() == {
        "model": "tiny", "version": 2, "base_version": 1, "label": "yellow", "num_images": 5, "how": HOW[kind],
        "old_classes": {"num_samples": 12, "accuracy_before": 1.0, "accuracy_after": 1.0, "reason": None},
        "calibrated": False, "metrics": {}, "served_by_default": True, "warnings": [],
    }  # fmt: skip
    assert answer.headers["Location"] == "/api/v1/models/tiny/versions/2"
    new = [factories.png((225, 215, 30), seed=700 + number) for number in range(4)]
    old = factories.pictures(4, OLD, first=300)
    assert asked(client, new) == ["yellow"] * 4
    assert asked(client, list(old.values())) == [name.partition("/")[0] for name in old]
    assert "yellow" not in asked(client, new, version=1)
    assert files_below(home / "scratch") == []


@pytest.mark.parametrize("kind", HOW)
def test_the_bundle_tells_where_it_comes_from_and_is_whole(client, tmp_path, kind):
    publish(client, tmp_path, kind)
    send(client)
    state = client.app.state.graft
    with state.database.read() as session:
        row = session.scalars(select(ModelVersion).where(ModelVersion.version == 2)).one()
    assert (row.job_id, row.metrics) == (None, {})
    folder = state.storage.fetch(f"{row.prefix}/spec.json").parent
    spec = bundle.verify(folder)
    assert spec == load_spec(json.dumps(row.spec).encode())
    assert spec.labels == ("blue", "green", "red", "yellow")
    assert spec.added.model_dump() == {
        "label": "yellow", "model": "tiny", "version": 1, "num_images": 5, "how": HOW[kind]
    }  # fmt: skip
    assert (spec.metrics, spec.calibrated) == ({}, False)
    assert spec.parity.ok
    assert spec.parity.num_samples == 12 + 5
    report = json.loads((folder / bundle.REPORT).read_text())
    assert report["added"] == spec.added.model_dump()
    assert report["old_classes"]["num_samples"] == 12
    rows = predicted.read(folder / bundle.PREDICTIONS)
    assert rows.ids == [f"s{number}" for number in range(12)]
    assert rows.probabilities.shape == (12, 4)
    assert "added to version 1 of tiny from 5 images" in (folder / bundle.README).read_text()
    assert card.render(spec, report, "tiny") == (folder / bundle.README).read_text()
    detail = client.get("/api/v1/models/tiny/versions/2").json()
    assert (detail["job_id"], detail["metrics"]) == (None, {})
    assert client.get("/api/v1/models/tiny").json()["versions"][0]["job_id"] is None
    whole = client.get("/api/v1/models/tiny/versions/2/files/model.onnx").content
    pictures = onnx_factories.images(3)
    composed = onnx_factories.run(whole, images=pictures)
    features = onnx_factories.backbone_reference(pictures).astype(np.float32)
    arrays = {**constants((folder / bundle.HEAD).read_bytes()), **tensors.load(folder / bundle.WEIGHTS)}
    expected = scores.probabilities(spec.head, arrays, spec.temperature, features)
    np.testing.assert_allclose(composed["probabilities"], expected, atol=1e-5)


def bundle_of(client, number):
    """Folder of a version's files."""
    state = client.app.state.graft
    with state.database.read() as session:
        row = session.scalars(select(ModelVersion).where(ModelVersion.version == number)).one()
    return state.storage.fetch(f"{row.prefix}/{bundle.SPEC}").parent


RED = [factories.png(OLD["red"], seed=800 + number) for number in range(5)]
ADVICE = r"on 30 stored .*version before is (\d+),.*`PUT (/api/v1/\S+)` with (\{.*\}) makes"


@pytest.mark.parametrize("kind", ["cosine", "linear", "network"])
def test_a_class_that_harms_the_others_is_told_of_with_the_way_back(client, tmp_path, kind):
    publish(client, tmp_path, kind, test_items=30)
    # More red, under another name.
    answer = send(client, "crimson", RED).json()
    folder = bundle_of(client, 2)
    rows = predicted.read(folder / bundle.PREDICTIONS)
    after = sum(label == found for label, found in zip(rows.labels, rows.predicted, strict=True)) / 30
    assert after < 0.95
    assert answer["old_classes"]["accuracy_after"] == pytest.approx(after)
    assert answer["served_by_default"] is True
    [warning] = answer["warnings"]
    assert f"fell from 1.000 to {after:.3f} on 30 stored test items, by more than 0.05" in warning
    assert json.loads((folder / bundle.REPORT).read_text())["warnings"] == [warning]
    limits = (folder / bundle.README).read_text().partition("## Limits")[2].partition("## How to call it")[0]
    assert f"- {card.text(warning[0].upper() + warning[1:])}." in limits
    number, path, body = re.search(ADVICE, warning).groups()
    assert number == "1"
    assert client.put(path, json=json.loads(body)).status_code == 200
    reds = [factories.png(OLD["red"], seed=850 + number) for number in range(8)]
    assert set(asked(client, reds)) == {"red"}
    assert "crimson" in asked(client, reds, version=2)


def test_the_bound_itself_is_no_warning():
    def warned(after):
        old = class_checks.OldClasses(20, 1.0, after)
        return class_checks.warn("tiny", 1, 5, 5, old)

    assert (warned(0.95), warned(1.0), len(warned(0.9))) == ([], [], 1)
    assert class_checks.warn("tiny", 1, 5, 5, class_checks.OldClasses(0, None, None)) == []


def test_one_image_comes_with_a_warning(light_client, tmp_path):
    publish(light_client, tmp_path)
    answer = send(light_client, pictures=YELLOW[:1]).json()
    assert answer["num_images"] == 1
    assert ["made from one image" in warning for warning in answer["warnings"]] == [True]
    readme = (bundle_of(light_client, 2) / bundle.README).read_text()
    assert "from 1 image (" in readme
    assert "The class was made from one image" in readme
    assert send(light_client, "pink", PINK[:2]).json()["warnings"] == []


@pytest.mark.parametrize("kind", HOW)
def test_the_same_bytes_count_once(light_client, tmp_path, kind):
    publish(light_client, tmp_path, kind)
    once = send(light_client, pictures=YELLOW[:2], query={"version": 1}).json()
    twice = send(light_client, pictures=[*YELLOW[:2], YELLOW[0], YELLOW[0]], query={"version": 1}).json()
    assert (once["num_images"], once["warnings"]) == (2, [])
    assert twice["num_images"] == 2
    assert ["4 images were given, 2 different" in warning for warning in twice["warnings"]] == [True]
    first, second = (bundle_of(light_client, number) for number in (2, 3))
    arrays = [tensors.load(folder / bundle.WEIGHTS) for folder in (first, second)]
    assert arrays[0].keys() == arrays[1].keys()
    for name, values in arrays[0].items():
        # Batches fall as they may, and the last bit of a feature with them.
        np.testing.assert_allclose(arrays[1][name], values, rtol=1e-5, atol=1e-6)
    spec = bundle.verify(second)
    assert (spec.added.num_images, spec.parity.num_samples) == (2, 12 + 2)


def test_one_image_three_times_is_one_image(light_client, tmp_path):
    publish(light_client, tmp_path)
    answer = send(light_client, pictures=YELLOW[:1] * 3).json()
    assert answer["num_images"] == 1
    assert len(answer["warnings"]) == 2
    found = problem(send(light_client, "pink", [PINK[0], PINK[0], b"x"]), 400, "image_unreadable")
    assert found["index"] == 2, "the place in the request"


def test_a_second_class_goes_on_top_of_the_first(client, tmp_path):
    publish(client, tmp_path)
    send(client)
    assert send(client, "pink", PINK).json()["version"] == 3
    assert asked(client, [PINK[0], YELLOW[0]]) == ["pink", "yellow"]
    spec = client.get("/api/v1/models/tiny/versions/3").json()["spec"]
    assert spec["labels"] == ["blue", "green", "red", "yellow", "pink"]
    assert (spec["added"]["label"], spec["added"]["version"]) == ("pink", 2)


def test_images_in_base64(light_client, tmp_path):
    publish(light_client, tmp_path)
    images = [{"b64": base64.b64encode(data).decode()} for data in YELLOW]
    answer = light_client.post(URL, json={"label": "gelb \u2600", "images": images})
    assert answer.json()["label"] == "gelb \u2600"
    assert asked(light_client, YELLOW) == ["gelb \u2600"] * 5


def test_a_network_of_its_own_outlives_its_base(light_client, tmp_path):
    publish(light_client, tmp_path, shared=False)
    assert send(light_client).status_code == 201
    assert light_client.delete("/api/v1/models/tiny/versions/1").status_code == 204
    assert asked(light_client, YELLOW) == ["yellow"] * 5


def test_a_model_without_stored_features_says_nothing_of_its_old_classes(light_client, tmp_path):
    publish(light_client, tmp_path, test_items=0)
    found = send(light_client).json()["old_classes"]
    assert "no features of labelled test items" in found.pop("reason")
    assert found == {"num_samples": 0, "accuracy_before": None, "accuracy_after": None}
    assert send(light_client, "pink", PINK).json()["old_classes"]["accuracy_after"] is None


def test_production_is_not_moved_and_the_answer_says_so(client, tmp_path):
    publish(client, tmp_path)
    client.put("/api/v1/models/tiny/aliases/production", json={"version": 1})
    assert send(client).json()["served_by_default"] is False
    assert "yellow" not in asked(client, YELLOW)
    # The default is still version 1, so the next class goes beside the first, not on top.
    assert send(client, "pink", PINK).json()["base_version"] == 1
    on_top = send(client, "pink", PINK, query={"version": 2}).json()
    assert (on_top["base_version"], on_top["version"]) == (2, 4)
    client.put("/api/v1/models/tiny/aliases/canary", json={"version": 4})
    assert send(client, "white", PINK, query={"alias": "canary"}).json()["base_version"] == 4
    problem(send(client, "white", PINK, query={"alias": "canary", "version": 1}), 409, "ambiguous_version")


def test_the_same_key_adds_the_class_once(client, home, tmp_path):
    publish(client, tmp_path)
    first = send(client, **{"Idempotency-Key": "a"})
    files = files_below(home / "storage")
    again = send(client, **{"Idempotency-Key": "a"})
    assert (again.status_code, again.json()) == (201, first.json())
    assert again.headers["Location"] == first.headers["Location"]
    assert again.headers["Idempotent-Replayed"] == "true"
    problem(send(client, "pink", PINK, **{"Idempotency-Key": "a"}), 422, "idempotency_mismatch")
    assert files_below(home / "storage") == files
    assert num_rows(client) == [2, 1]


def test_rows_of_a_zero_shot_model_made_from_words_get_a_level_bias(light_client, tmp_path):
    _, arrays = head("cosine")
    publish(light_client, tmp_path, "cosine", recipe={"method": "zero_shot"}, without=("spread",))
    answer = send(light_client).json()
    assert answer["how"] == "imprinted"
    state = light_client.app.state.graft
    with state.database.read() as session:
        row = session.scalars(select(ModelVersion).where(ModelVersion.version == 2)).one()
    grown = tensors.load(state.storage.fetch(f"{row.prefix}/{bundle.WEIGHTS}"))
    assert grown["bias"][3] != pytest.approx(arrays["bias"].mean(), abs=1e-3)
