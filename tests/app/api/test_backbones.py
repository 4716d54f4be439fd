"""Routes of backbones and recipes."""

import json

import jsonschema

from app import recipes
from tests import factories
from tests.checks import problem

URL = "/api/v1/backbones"
NAME = "timm/tf_efficientnet_lite0"


def test_catalogue_in_pages(shared_client):
    everything = shared_client.get(URL, params={"limit": 1000}).json()
    names = [row["name"] for row in everything["data"]]
    assert len(set(names)) == len(names)
    marks = [row["recommended"] for row in everything["data"]]
    assert marks == sorted(marks, reverse=True)
    first = shared_client.get(URL, params={"limit": 3}).json()
    assert ([row["name"] for row in first["data"]], first["has_more"]) == (names[:3], True)
    second = shared_client.get(URL, params={"limit": 3, "after": names[2]}).json()
    assert [row["name"] for row in second["data"]] == names[3:6]
    problem(shared_client.get(URL, params={"after": "nothing"}), 400, "bad_request")


def test_one_backbone(shared_client):
    found = shared_client.get(f"{URL}/{NAME}").json()
    assert found.items() >= {"name": NAME, "provider": "timm", "feature_dim": 1280, "recommended": True}.items()
    assert found["input"]["height"] == 224
    problem(shared_client.get(f"{URL}/timm/nothing"), 404, "unknown_backbone")
    near = problem(shared_client.get(f"{URL}/timm/tf_efficientnet_lite9"), 404, "unknown_backbone")
    assert "timm/tf_efficientnet_lite" in near["detail"].partition("similar")[2]
    tagged = problem(shared_client.get(f"{URL}/timm/convnext_tiny.in12k_ft_in1k"), 404, "unknown_backbone")
    assert "(similar: timm/convnext_tiny," in tagged["detail"]


def test_filters(shared_client):
    found = shared_client.get(URL, params={"search": "Efficientnet_LITE", "limit": 1000}).json()["data"]
    assert NAME in {row["name"] for row in found}
    assert all("efficientnet_lite" in row["name"] for row in found)
    found = shared_client.get(URL, params={"recommended": True, "limit": 1000}).json()["data"]
    assert found
    assert all(row["recommended"] for row in found)


def test_models_with_a_text_tower(shared_client):
    rows = shared_client.get(URL, params={"provider": "open_clip", "limit": 1000}).json()["data"]
    assert len(rows) > 150
    assert all(row["provider"] == "open_clip" and row["text_tower"] for row in rows)
    found = shared_client.get(f"{URL}/open_clip/ViT-B-32.laion2b_s34b_b79k").json()
    assert found["architecture"] == "ViT-B-32"
    assert (found["feature_dim"], found["num_params"], found["input"]["height"]) == (512, 87849216, 224)
    assert shared_client.get(f"{URL}/{NAME}").json()["text_tower"] is False
    assert shared_client.get(URL, params={"provider": "nobody"}).json()["data"] == []


def test_available_is_what_a_worker_has(client, database):
    assert client.get(f"{URL}/{NAME}").json()["available"] is False
    with database.write() as session:
        factories.worker(session, backbones=[NAME])
    assert client.get(f"{URL}/{NAME}").json()["available"] is True
    found = client.get(URL, params={"available": True}).json()["data"]
    assert [row["name"] for row in found] == [NAME]


def test_recipes_are_json_schemas(shared_client):
    rows = shared_client.get("/api/v1/recipes").json()["data"]
    assert [row["method"] for row in rows] == list(recipes.RECIPES)
    for row in rows:
        jsonschema.Draft202012Validator.check_schema(row["json_schema"])
        validator = jsonschema.Draft202012Validator(row["json_schema"])
        given = {"method": row["method"], **json.loads(json.dumps(factories.NEEDED.get(row["method"], {})))}
        assert validator.is_valid(given)
        assert not validator.is_valid({**given, "unknown": 1})
        assert row["summary"]
        assert row["when"]
        assert row["cost"]
        assert row["paper"]
        assert row["tasks"] == ["classification"]
