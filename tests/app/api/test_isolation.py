"""Nothing of one project is visible to another: every route of the OpenAPI document, with a foreign key on real ids.

The stranger has a project of its own with one of everything and a key with every scope. What it is told of the other
project's things is, word for word, what it is told of things that do not exist.
"""

import pytest
from sqlalchemy import text

from app.db.base import Base
from app.main import create_app
from app.services import models
from app.settings import Settings
from tests import factories
from tests.app.api import worlds
from tests.app.api.callers import bearer, key, keyed
from tests.app.api.owners_requests import IMAGE, JOB, PICTURE, REQUESTS, V1, send

DOCUMENT = create_app(Settings()).openapi()
ROUTES = {f"{method.upper()} {path}" for path, item in DOCUMENT["paths"].items() for method in item}
# Lists, and what is about nothing in particular: whoever calls sees its own.
LISTS = [
    "GET /api/v1/advice", "GET /api/v1/alignments", "GET /api/v1/backbones", "GET /api/v1/datasets",
    "GET /api/v1/evaluations", "GET /api/v1/jobs", "GET /api/v1/keys", "GET /api/v1/models", "GET /api/v1/rankings",
    "GET /api/v1/uploads", "GET /api/v1/webhooks",
    "GET /metrics", "GET /v2/models", "GET /v2/models/stats", "POST /v2/repository/index",
]  # fmt: skip
OWN = {
    "GET /api/v1/alignments/methods", "GET /api/v1/recipes", "GET /livez", "GET /readyz", "GET /v2",
    "GET /v2/health/live", "GET /v2/health/ready", "POST /api/v1/keys", "POST /api/v1/webhooks",
    "POST /api/v1/uploads", "OPTIONS /api/v1/uploads", "OPTIONS /api/v1/uploads/{upload_id}",
    # A model's name is the project's own: what is imported under another's name becomes a model of the caller.
    "POST /api/v1/models/{name}/versions",
}  # fmt: skip
# Asked with what a project has none of, these answer an empty list.
EMPTY = {"GET /api/v1/advice", "GET /api/v1/jobs"}


@pytest.fixture(scope="module")
def service(sqlite_template, tmp_path_factory):
    """A service of two projects with one of everything each, under the same names but for the models'."""
    home = tmp_path_factory.mktemp("two")
    (home / "graft.db").write_bytes(sqlite_template.read_bytes())
    with keyed(Settings(home=home)) as client:
        yield client


@pytest.fixture(scope="module")
def theirs(service, tmp_path_factory):
    return worlds.make(service.app.state.graft, tmp_path_factory.mktemp("theirs") / "made")


@pytest.fixture(scope="module")
def ours(service, theirs, tmp_path_factory):
    return worlds.make(service.app.state.graft, tmp_path_factory.mktemp("ours") / "made", "stranger")


@pytest.fixture(scope="module")
def nothing(theirs):
    """Ids like those of a world, of things that never were."""
    return {name: _other(value) for name, value in theirs.ids.items()}


def _other(value):
    last = "0" if value[-1] != "0" else "1"
    return value[:-1] + last


def told(answer, ids):
    """Status and words of an answer, without the ids that were asked for and what time it is."""
    words = answer.text
    for value in sorted(ids.values(), key=len, reverse=True):
        words = words.replace(value, "ID")
    return answer.status_code, words


def kept(state, project):
    """All rows and files of a project, but for when its keys were used."""
    with state.database.read() as session:
        rows = {
            table.name: sorted(
                map(repr, session.execute(text(f"SELECT * FROM {table.name} WHERE project_id = '{project}'")))
            )
            for table in Base.metadata.sorted_tables
            if "project_id" in table.columns and table.name != "api_key"
        }
        rows["revoked"] = list(
            session.execute(text(f"SELECT id, revoked_at FROM api_key WHERE project_id = '{project}'"))
        )
    top = state.settings.home_path / "storage"
    files = {
        path: path.stat().st_size
        for path in sorted(top.rglob("*"))
        if path.is_file() and project in path.relative_to(top).parts
    }
    return rows, files


def test_every_route_is_walked():
    assert {name for name, _, _ in REQUESTS} | set(LISTS) | OWN == ROUTES


@pytest.mark.parametrize("request_", REQUESTS, ids=[f"{number}-{row[0]}" for number, row in enumerate(REQUESTS)])
def test_another_projects_things_are_as_if_they_were_not(service, theirs, ours, nothing, request_):
    state, headers = service.app.state.graft, bearer(ours.owner)
    before = kept(state, "default")
    found = send(service, request_, theirs.ids, ours.ids, headers)
    missing = send(service, request_, nothing, ours.ids, headers)
    if "{backbone}" in str(request_):
        # Both projects have one of that name, and each means its own.
        assert not any(value in found.text for value in theirs.ids.values() if value != theirs.ids["backbone"])
    else:
        assert told(found, theirs.ids) == told(missing, nothing)
        assert (found.status_code == 404) == (request_[0] not in EMPTY), found.text
    if request_[0] in EMPTY:
        assert found.json()["data"] == []
    assert kept(state, "default") == before


@pytest.mark.parametrize("name", LISTS)
def test_lists_have_the_callers_own_alone(service, theirs, ours, name):
    method, path = name.split()
    for caller, other in ((ours, theirs), (theirs, ours)):
        found = service.request(method, path, headers=bearer(caller.owner))
        assert found.status_code == 200, found.text
        assert not any(value in found.text for key, value in other.ids.items() if key != "backbone")
        if "v2" in path or path.endswith("models"):
            assert caller.ids["model"] in found.text


def test_keys_of_posts_are_a_projects_own(service, theirs, ours):
    """The same Idempotency-Key from another project is another one, and its answer is not replayed."""
    wish = {**JOB, "dataset": theirs.ids["dataset"], "model": "once"}
    headers = {"Idempotency-Key": "the same"}
    made = service.post(V1 + "/jobs", json=wish, headers={**headers, **bearer(theirs.owner)})
    assert made.status_code == 202
    refused = service.post(V1 + "/jobs", json=wish, headers={**headers, **bearer(ours.owner)})
    assert (refused.status_code, made.json()["id"] in refused.text) == (404, False)
    own = {**wish, "dataset": ours.ids["dataset"]}
    other = service.post(V1 + "/jobs", json=own, headers={**headers, **bearer(ours.owner)})
    assert (other.status_code, "Idempotent-Replayed" in other.headers) == (202, False)
    assert service.post(V1 + f"/jobs/{other.json()['id']}/cancel", headers=bearer(ours.owner)).status_code == 200
    assert service.post(V1 + f"/jobs/{made.json()['id']}/cancel", headers=bearer(theirs.owner)).status_code == 200


def test_models_of_one_name_are_each_projects_own(service, tmp_path):
    """Serving remembers what names mean, by project; and a scrape of all projects has no series twice."""
    state = service.app.state.graft
    callers = {}
    for number, project in enumerate(("one", "two"), 1):
        callers[project] = bearer(key(state, project=project))
        with state.database.write() as session:
            of = factories.model(session, "same", 0, project_id=project)
            factories.published(session, state.storage, tmp_path / project, of, number)
    for _ in range(2):
        versions = [
            service.post(V1 + "/models/same/predict", content=PICTURE, headers={**one, **IMAGE["headers"]})
            for one in callers.values()
        ]
        assert [answer.headers["X-Graft-Version"] for answer in versions] == ["1", "2"]
    with state.database.read() as session:
        names = models.labels(session, None)
    assert {"one/same", "two/same"} <= {name for name, _ in names.values()}
    assert len(set(names.values())) == len(names)
    mine = service.get("/metrics", headers=callers["one"]).text
    assert 'graft_predict_requests_total{model="same",outcome="success",version="1"} 2.0' in mine
    assert 'version="2"' not in mine


def test_a_spec_that_names_another_projects_dataset_tells_nothing_of_it(service, theirs, tmp_path):
    """An imported bundle may name any id, and with a class added it becomes a version that was made here."""
    state = service.app.state.graft
    liar = bearer(key(state, project="liar"))
    with state.database.write() as session:
        of = factories.model(session, "forged", 0, project_id="liar")
        used = {"id": theirs.ids["dataset"], "digest": "d" * 64, "splits": {}}
        factories.published(session, state.storage, tmp_path, of, 1, described={"dataset": used})
    chain = service.get(V1 + "/models/forged/versions/1/lineage", headers=liar).json()["chain"]
    (node,) = [one for one in chain if one["what"] == "dataset"]
    assert (node["present"], node["details"]) == (False, {"splits": {}})


def test_the_owner_is_not_told_so(service, tmp_path):
    """The requests above are such as the owner's key gets through with: it was the key that was refused."""
    world = worlds.make(service.app.state.graft, tmp_path / "made", "owner")
    refused = []
    for request in REQUESTS:
        answer = send(service, request, world.ids, world.ids, bearer(world.owner))
        if answer.status_code in (401, 403, 404, 422):
            refused.append((request[0], request[1], answer.text))
    assert refused == []
