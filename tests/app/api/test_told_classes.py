"""Jobs whose recipe tells its classes, on both databases."""

import pytest

from tests import factories
from tests.app.api.made_jobs import CLIP, URL, body, num_jobs, told
from tests.checks import problem
from tests.factories import files_below

MOBILENET = {"backbone": "torchvision/mobilenet_v2"}
ONE, TWO = {"name": "a", "attributes": [1.0, 0.0]}, {"name": "b", "attributes": [1.0, 1.0]}
UNTOLD = {
    "no classes": ({"recipe": {"method": "zero_shot"}}, 422, "invalid_payload"),
    "empty classes": (told(), 422, "invalid_payload"),
    "one class": (told("a"), 422, "invalid_payload"),
    "a name twice": (told("a", "b", "a"), 422, "invalid_payload"),
    "a name twice but for its spaces": (told("a b", "a_b"), 422, "invalid_payload"),
    "an empty name": (told("a", ""), 422, "invalid_payload"),
    "a name of spaces": (told("a", " _ "), 422, "invalid_payload"),
    "a name too long": (told("a", "b" * 201), 422, "invalid_payload"),
    "too many classes": (told(*map(str, range(1001))), 422, "invalid_payload"),
    "an unknown field of a class": (told("a", {"name": "b", "colour": 1}), 422, "invalid_payload"),
    "attributes of two lengths": (told(ONE, {"name": "b", "attributes": [2.0]}), 422, "invalid_payload"),
    "attributes of some": (told(ONE, "b"), 422, "invalid_payload"),
    "attributes of nothing but zeros": (told(ONE, {"name": "b", "attributes": [0.0, 0.0]}), 422, "invalid_payload"),
    "attributes in one direction": (told(ONE, {"name": "b", "attributes": [3.0, 0.0]}), 422, "invalid_payload"),
    "attributes that are no numbers": (told(ONE, {"name": "b", "attributes": ["NaN", 1.0]}), 422, "invalid_payload"),
    "attributes without images": (told(ONE, TWO), 400, "seen_classes_missing"),
    "an unknown approach": (told("a", "b", approach="magic"), 422, "invalid_payload"),
    "images needed": (told("a", "b", approach="eszsl"), 400, "seen_classes_missing"),
    "a mean of no images": (told("a", "b", centre="dataset"), 400, "dataset_missing"),
    "unknown backbone": ({**told("a", "b"), "backbone": "timm/nothing"}, 404, "unknown_backbone"),
    "a backbone without a classifier": ({**told("a", "b"), **MOBILENET}, 400, "classifier_missing"),
    "a way that needs a classifier": ({**told("a", "b", approach="conse"), **CLIP}, 400, "classifier_missing"),
    "clip without a text tower": (told("a", "b", approach="clip"), 400, "text_tower_missing"),
    "clip on whatever is best": ({**told("a", "b", approach="clip"), "backbone": "auto"}, 400, "text_tower_missing"),
    "clip with attributes": ({**told(ONE, TWO, approach="clip"), **CLIP}, 400, "attributes_not_text"),
    "attributes for a text tower": ({**told(ONE, TWO), **CLIP}, 400, "seen_classes_missing"),
    "clip with a mean": ({**told("a", "b", centre="shipped"), **CLIP}, 400, "centre_unused"),
}


@pytest.mark.parametrize("case", UNTOLD)
def test_classes_that_are_badly_told_leave_nothing_behind(client, database, home, case):
    overrides, status, code = UNTOLD[case]
    problem(client.post(URL, json=body(None, **overrides)), status, code)
    assert num_jobs(database) == 0
    assert files_below(home / "broker" / "messages") == []


def test_told_classes_need_no_dataset(client, database):
    wish = body(None, **told("a", {"name": "b", "description": "flies"}))
    del wish["dataset"]
    answer = client.post(URL, json=wish)
    assert answer.status_code == 202, answer.text
    assert answer.json()["dataset"] is None
    assert answer.json()["recipe"]["classes"][1] == {"name": "b", "description": "flies", "attributes": None}
    assert client.get(f"{URL}/{answer.json()['id']}").json()["dataset"] is None


@pytest.mark.parametrize("approach", ["auto", "clip"])
def test_a_text_tower_needs_no_classifier(client, approach):
    assert client.post(URL, json=body(None, **told("a", "b", approach=approach), **CLIP)).status_code == 202


def test_told_classes_and_seen_ones(client, dataset_id):
    """The dataset has blue and red."""
    fits = [
        told("a", "b"),
        told("blue", "b", approach="eszsl"),
        {**told("a", "b"), **MOBILENET},
        told({"name": "blue", "attributes": [0.0, 1.0]}, {"name": "red", "attributes": [-1.0, 1.0]}, ONE),
    ]
    for number, overrides in enumerate(fits):
        assert client.post(URL, json=body(dataset_id, **overrides, model=f"m{number}")).status_code == 202
    lacking = told({"name": "blue", "attributes": [0.0, 1.0]}, ONE, TWO)
    problem(client.post(URL, json=body(dataset_id, **lacking)), 400, "seen_classes_missing")
    words = told(
        {"name": "blue", "attributes": [0.0, 1.0]}, {"name": "red", "attributes": [-1.0, 1.0]}, approach="conse"
    )
    problem(client.post(URL, json=body(dataset_id, **words)), 400, "attributes_not_text")
    bare = {**told("a", "b", approach="conse"), **MOBILENET}
    problem(client.post(URL, json=body(dataset_id, **bare)), 400, "classifier_missing")


def test_dataset_without_labels_lends_its_mean(client, database):
    with database.write() as session:
        unlabelled = factories.dataset(session, classes=[]).id
    assert client.post(URL, json=body(unlabelled, **told("a", "b"))).status_code == 202
    problem(client.post(URL, json=body(unlabelled)), 400, "labels_missing")
    problem(client.post(URL, json=body(unlabelled, **told("a", "b", approach="devise"))), 400, "seen_classes_missing")
