"""Parsing of recipes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from app import recipes
from app.errors import BadRequest, Unprocessable
from tests import factories

VALID = {
    "linear_probe": {},
    "few_shot": {},
    "fine_tune": {"scope": "full", "epochs": 3, "resolution": 64, "max_minutes": 0.5, "wise": True},
    "adapt": {"source": "ds_2", "candidates": ("coral", "mcc"), "max_minutes": 2.0},
    "auto": {"max_minutes": 2, "objective": "macro_f1", "source": "ds_2", "unlabelled": "ds_3"},
    "zero_shot": {"approach": "eszsl", "centre": "shipped"},
}


@pytest.mark.parametrize("method", recipes.RECIPES)
def test_defaults_and_round_trip(method):
    needed = factories.NEEDED.get(method, {})
    for fields in (needed, {**needed, **VALID[method]}):
        found = recipes.parse({"method": method, **fields})
        assert type(found) is recipes.RECIPES[method]
        assert recipes.parse(found.model_dump(mode="json")) == found
        assert found.model_dump() == {**recipes.parse({"method": method, **needed}).model_dump(), **fields}
        with pytest.raises(ValidationError, match="frozen"):
            found.method = "other"


@pytest.mark.parametrize(
    ("method", "field", "value"),
    [
        ("fine_tune", "scope", "adapter"), ("fine_tune", "rank", 0), ("fine_tune", "layer_decay", 0.0),
        ("fine_tune", "l2_sp", -1), ("fine_tune", "mixup", 2), ("fine_tune", "augment", "all"),
        ("fine_tune", "soup", 3),
        ("fine_tune", "epochs", 0), ("fine_tune", "epochs", 1001),
        ("fine_tune", "epochs", "many"), ("fine_tune", "epochs", None), ("fine_tune", "resolution", 31),
        ("fine_tune", "resolution", 1025), ("fine_tune", "max_minutes", 0), ("auto", "max_minutes", -1),
        ("auto", "max_minutes", float("inf")), ("auto", "max_minutes", float("nan")), ("auto", "objective", "loss"),
        ("adapt", "source", ""), ("adapt", "candidates", []),
        ("adapt", "max_minutes", 0), ("adapt", "target_labels", "perhaps"),
        ("adapt", "target_labels", "yes"), ("adapt", "target_labels", 1), ("fine_tune", "epochs", "3"),
        ("fine_tune", "epochs", 3.5), ("auto", "max_minutes", "3"), ("auto", "max_minutes", True),
        ("auto", "unlabelled", ["ds_1"]), ("auto", "source", ""), ("linear_probe", "c", 1.0),
        ("few_shot", "k", 5),
    ],
)  # fmt: skip
def test_each_bad_field_is_pointed_at(method, field, value):
    with pytest.raises(Unprocessable) as caught:
        recipes.parse({"method": method, **factories.NEEDED.get(method, {}), field: value})
    assert caught.value.code == "invalid_payload"
    assert [item["pointer"] for item in caught.value.extra["errors"]] == [f"/body/recipe/{field}"]


@pytest.mark.parametrize("unused", [{"rank": 4}, {"l2_sp": 0.1}, {"layer_decay": 0.5}])
def test_what_a_scope_has_no_use_for_is_refused(unused):
    with pytest.raises(Unprocessable) as caught:
        recipes.parse({"method": "fine_tune", "scope": "head", **unused})
    assert next(iter(unused)) in str(caught.value.extra["errors"])
    assert recipes.parse({"method": "fine_tune", "scope": "lora", **unused})


def test_one_dataset_has_one_role():
    with pytest.raises(Unprocessable) as caught:
        recipes.parse({"method": "auto", "source": "ds_1", "unlabelled": "ds_1"})
    assert "found ds_1 as both" in str(caught.value.extra["errors"])


@pytest.mark.parametrize("name", ["Red  Fox", "red_fox ", "RED FOX"])
def test_classes_differ_in_more_than_capitals_and_blanks(name):
    with pytest.raises(Unprocessable, match="zero_shot") as caught:
        recipes.parse({"method": "zero_shot", "classes": [{"name": "red fox"}, {"name": name}]})
    assert repr(name) in str(caught.value.extra["errors"])


@pytest.mark.parametrize("size", [1e308, 1e200, 1.0, 1e-200, 5e-324])
def test_attributes_have_a_direction_at_any_size(size):
    """Their squares overflow, or vanish; a zero would make a model that says nothing."""
    one, other = {"name": "a", "attributes": [size, 0.0]}, {"name": "b", "attributes": [size, -size]}
    found = recipes.parse({"method": "zero_shot", "classes": [one, other]})
    assert found.classes[0].direction == (1.0, 0.0)
    assert found.classes[1].direction == pytest.approx((0.5**0.5, -(0.5**0.5)))
    with pytest.raises(Unprocessable) as caught:
        recipes.parse({"method": "zero_shot", "classes": [one, {"name": "b", "attributes": [1.0, 0.0]}]})
    assert "equal but for their length" in str(caught.value.extra["errors"])


def test_a_bad_item_of_a_list_is_pointed_at():
    with pytest.raises(Unprocessable) as caught:
        recipes.parse({"method": "adapt", "source": "ds_1", "candidates": ["coral", "shot"]})
    assert [item["pointer"] for item in caught.value.extra["errors"]] == ["/body/recipe/candidates/1"]


@given(st.dictionaries(st.text(max_size=8), st.one_of(st.none(), st.integers(), st.text(max_size=5))))
def test_whatever_comes_is_a_recipe_or_refused(document):
    with pytest.raises((BadRequest, Unprocessable)):
        recipes.parse({**document, "method": document.get("method")})


@pytest.mark.parametrize("method", ["few_shots", "magic", "distill", "", None, 1, ["auto"], {"a": 1}])
def test_method_that_is_not_built_is_refused_by_name(method):
    with pytest.raises(BadRequest) as caught:
        recipes.parse({"method": method})
    assert caught.value.code == "unknown_recipe"
    assert repr(method) in caught.value.detail
    assert all(name in caught.value.detail for name in recipes.RECIPES)


def test_tasks_are_known_for_every_method():
    assert set(recipes.TASKS) == set(recipes.RECIPES)
