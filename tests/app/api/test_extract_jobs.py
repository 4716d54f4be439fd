"""Jobs of kind extract: what is refused, and how their file is handed out and given up."""

import pytest

from tests import factories
from tests.app.api.made_files import finish
from tests.checks import problem

URL = "/api/v1/jobs"


@pytest.fixture
def database(light_client):
    return light_client.app.state.graft.database


@pytest.fixture
def given(database):
    with database.write() as session:
        dataset = factories.dataset(session, splits={"train": 18, "val": 2, "test": 0}).id
    return {"kind": "extract", "dataset": dataset, "backbone": factories.BACKBONE}


def test_a_file_is_handed_out_once_it_is_there_and_given_up_on_request(light_client, given):
    answer = light_client.post(URL, json={**given, "splits": ["train"], "priority": 3})
    made = answer.json()
    assert (answer.status_code, made["kind"], made["backbone"]) == (202, "extract", factories.BACKBONE)
    assert made["request"] == {
        "dataset": given["dataset"], "backbone": factories.BACKBONE, "splits": ["train"], "format": "parquet"
    }  # fmt: skip
    place = f"{URL}/{made['id']}"
    problem(light_client.get(f"{place}/features"), 409, "features_not_ready")
    problem(light_client.get(f"{place}/predictions"), 404, "no_predictions")
    problem(light_client.post(f"{place}/stop"), 409, "invalid_state")
    finish(light_client, made["id"], "features")
    found = light_client.get(f"{place}/features")
    assert (found.content, found.headers["content-type"]) == (b"PAR1", "application/vnd.apache.parquet")
    assert f"{made['id']}-features.parquet" in found.headers["content-disposition"]
    assert light_client.get(place).json()["metrics"] == {"num_samples": 20}
    assert light_client.delete(f"{place}/features").status_code == 204
    problem(light_client.get(f"{place}/features"), 404, "no_features")


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"backbone": "auto"}, 400, "bad_request"),
        ({"backbone": "timm/nothing"}, 404, "unknown_backbone"),
        ({"backbone": None}, 422, "invalid_payload"),
        ({"dataset": "ds_0"}, 404, "not_found"),
        ({"splits": ["test"]}, 400, "no_images"),
        ({"splits": ["val", "val"]}, 422, "invalid_payload"),
        ({"recipe": {"method": "auto"}}, 422, "invalid_payload"),
    ],
)
def test_refused(light_client, given, changes, status, code):
    problem(light_client.post(URL, json={**given, **changes}), status, code)
    assert light_client.get(URL).json()["data"] == []
