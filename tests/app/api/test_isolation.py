"""Nothing of one project is visible to another: every route of the OpenAPI document, with a foreign key on real ids.

The stranger has a project of its own with one of everything and a key with every scope. What it is told of the other
project's things is, word for word, what it is told of things that do not exist.
"""

import json
import re

import pytest
from sqlalchemy import text

from app.db.base import Base
from app.main import create_app
from app.services import models
from app.settings import Settings
from tests import factories
from tests.app.api import worlds
from tests.app.api.callers import bearer, key, keyed

DOCUMENT = create_app(Settings()).openapi()
ROUTES = {f"{method.upper()} {path}" for path, item in DOCUMENT["paths"].items() for method in item}
V1, MODEL, VERSION = "/api/v1", "/api/v1/models/{model}", "/api/v1/models/{model}/versions/1"
HOOK, OWN_HOOK = "/api/v1/webhooks/{webhook}", "/api/v1/webhooks/[webhook]"
PICTURE = factories.png()
IMAGE = {"content": PICTURE, "headers": {"Content-Type": "image/png"}}
LINES = {"content": PICTURE, "headers": {"Content-Type": "image/png", "Accept": "application/x-ndjson"}}
BYTES = [{"name": "encoded", "datatype": "BYTES", "shape": [1], "data": ["aGFsbG8="]}]
TUS = {"Tus-Resumable": "1.0.0", "Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
PROBE = {"method": "linear_probe"}
JOB = {"model": "new", "backbone": factories.BACKBONE, "recipe": PROBE}
FIT = {"method": "z_score", "backbone": factories.BACKBONE}


def body(**fields):
    return {"json": fields}


# Every way to name something of another project: a request as the owner would send it, with {names} of a world's ids,
# and in brackets those of the stranger's own, so that what comes first is right and the other's is what is refused.
REQUESTS = [
    ("GET /api/v1/datasets/{dataset_id}", V1 + "/datasets/{dataset}", {}),
    ("GET /api/v1/datasets/{dataset_id}/problems", V1 + "/datasets/{dataset}/problems", {}),
    ("GET /api/v1/datasets/{dataset_id}/samples", V1 + "/datasets/{dataset}/samples", {}),
    ("POST /api/v1/datasets", V1 + "/datasets", body(name="child", base="{dataset}", remove=["x"])),
    ("POST /api/v1/datasets/{dataset_id}/advice", V1 + "/datasets/{dataset}/advice", body(backbone=factories.BACKBONE)),
    ("POST /api/v1/datasets/{dataset_id}/advice", V1 + "/datasets/[dataset]/advice",
     body(backbone=factories.BACKBONE, against="{dataset}")),
    ("GET /api/v1/advice", V1 + "/advice?dataset={dataset}", {}),
    ("GET /api/v1/advice/{advice_id}", V1 + "/advice/{advice}", {}),
    ("GET /api/v1/advice/{advice_id}", V1 + "/advice/{advice}", {"headers": {"Accept": "text/html"}}),
    ("POST /api/v1/advice/{advice_id}/apply", V1 + "/advice/{advice}/apply", body(findings=["near_duplicate-1"])),
    ("GET /api/v1/alignments/{alignment_id}", V1 + "/alignments/{alignment}", {}),
    ("GET /api/v1/alignments/{alignment_id}/files/{file}", V1 + "/alignments/{alignment}/files/alignment.onnx", {}),
    ("POST /api/v1/alignments", V1 + "/alignments", body(**FIT, source="{dataset}", target="{other}")),
    ("POST /api/v1/alignments", V1 + "/alignments", body(**FIT, source="[dataset]", target="{other}")),
    ("GET /api/v1/backbones/own/{name}", V1 + "/backbones/own/{backbone}", {}),
    ("GET /api/v1/backbones/{provider}/{name}", V1 + "/backbones/user/{backbone}", {}),
    ("POST /api/v1/backbones", V1 + "/backbones", body(name="new", model="{model}", version=1)),
    ("GET /api/v1/evaluations/{evaluation_id}", V1 + "/evaluations/{evaluation}", {}),
    ("POST /api/v1/evaluations", V1 + "/evaluations", body(dataset="{dataset}", model="{model}")),
    ("POST /api/v1/evaluations", V1 + "/evaluations", body(dataset="[dataset]", model="{model}")),
    ("POST /api/v1/evaluations", V1 + "/evaluations",
     body(dataset="[dataset]", model="[model]", against={"model": "{model}", "version": 1})),
    ("POST /api/v1/evaluations", V1 + "/evaluations",
     body(mode="folds", dataset="{dataset}", recipe=PROBE, backbone=factories.BACKBONE)),
    ("POST /api/v1/evaluations", V1 + "/evaluations",
     body(mode="folds", dataset="[dataset]", recipe=PROBE, backbone="user/{backbone}")),
    ("POST /api/v1/jobs", V1 + "/jobs", body(**JOB, dataset="{dataset}")),
    ("POST /api/v1/jobs", V1 + "/jobs", body(**JOB, dataset="[dataset]", depends_on=["{queued}"])),
    ("POST /api/v1/jobs", V1 + "/jobs", body(**{**JOB, "backbone": "user/{backbone}"}, dataset="[dataset]")),
    ("POST /api/v1/jobs", V1 + "/jobs",
     body(**{**JOB, "recipe": {"method": "adapt", "source": "{dataset}"}}, dataset="[dataset]")),
    ("POST /api/v1/jobs", V1 + "/jobs",
     body(**{**JOB, "recipe": {"method": "auto", "unlabelled": "{dataset}"}}, dataset="[dataset]")),
    ("POST /api/v1/jobs", V1 + "/jobs", body(kind="predict", dataset="{dataset}", model="[model]")),
    ("POST /api/v1/jobs", V1 + "/jobs", body(kind="predict", dataset="[dataset]", model="{model}")),
    ("POST /api/v1/jobs", V1 + "/jobs", body(kind="extract", dataset="{dataset}", backbone=factories.BACKBONE)),
    ("POST /api/v1/jobs", V1 + "/jobs", body(kind="extract", dataset="[dataset]", backbone="user/{backbone}")),
    ("GET /api/v1/jobs", V1 + "/jobs?dataset={dataset}", {}),
    ("GET /api/v1/jobs/{job_id}", V1 + "/jobs/{done}", {}),
    ("GET /api/v1/jobs/{job_id}/events", V1 + "/jobs/{done}/events", {}),
    ("GET /api/v1/jobs/{job_id}/events", V1 + "/jobs/{done}/events", {"headers": {"Accept": "text/event-stream"}}),
    ("GET /api/v1/jobs/{job_id}/report", V1 + "/jobs/{done}/report", {}),
    ("GET /api/v1/jobs/{job_id}/predictions", V1 + "/jobs/{predict}/predictions", {}),
    ("GET /api/v1/jobs/{job_id}/features", V1 + "/jobs/{extract}/features", {}),
    ("POST /api/v1/jobs/{job_id}/reproduce", V1 + "/jobs/{done}/reproduce", {}),
    ("POST /api/v1/jobs/{job_id}/retry", V1 + "/jobs/{failed}/retry", {}),
    ("POST /api/v1/jobs/{job_id}/stop", V1 + "/jobs/{running}/stop", {}),
    ("POST /api/v1/jobs/{job_id}/cancel", V1 + "/jobs/{queued}/cancel", {}),
    ("GET /api/v1/models", V1 + "/models?after={model}", {}),
    ("GET /api/v1/models/{name}", MODEL, {}),
    ("GET /api/v1/models/{name}/aliases/{alias}", MODEL + "/aliases/production", {}),
    ("PUT /api/v1/models/{name}/aliases/{alias}", MODEL + "/aliases/staging", body(version=1)),
    ("POST /api/v1/models/{name}/aliases/{alias}/rollback", MODEL + "/aliases/production/rollback", {}),
    ("POST /api/v1/models/{name}/classes", MODEL + "/classes", {"data": {"label": "new"}, "files": {"file": PICTURE}}),
    ("GET /api/v1/models/{name}/domains", MODEL + "/domains", {}),
    ("GET /api/v1/models/{name}/domains/{domain}", MODEL + "/domains/night", {}),
    ("PUT /api/v1/models/{name}/domains/{domain}", MODEL + "/domains/day", body(alignment="{unbound}")),
    ("PUT /api/v1/models/{name}/domains/{domain}", V1 + "/models/[model]/domains/day", body(alignment="{unbound}")),
    ("GET /api/v1/models/{name}/drift", MODEL + "/drift", {}),
    ("POST /api/v1/models/{name}/embed", MODEL + "/embed", IMAGE),
    ("GET /api/v1/models/{name}/log", MODEL + "/log", {}),
    ("GET /api/v1/models/{name}/log", MODEL + f"/log?day={worlds.DAY}", {}),
    ("PUT /api/v1/models/{name}/log", MODEL + "/log", body(share=0.5)),
    ("POST /api/v1/models/{name}/predict", MODEL + "/predict", IMAGE),
    ("POST /api/v1/models/{name}/predict", MODEL + "/predict?alias=production", LINES),
    ("POST /api/v1/models/{name}/predict", MODEL + "/predict?domain=night", IMAGE),
    ("GET /api/v1/models/{name}/versions/{version}", VERSION, {}),
    ("GET /api/v1/models/{name}/versions/{version}/bundle", VERSION + "/bundle", {}),
    ("GET /api/v1/models/{name}/versions/{version}/files/{file}", VERSION + "/files/spec.json", {}),
    ("GET /api/v1/models/{name}/versions/{version}/lineage", VERSION + "/lineage", {}),
    ("GET /api/v1/models/{name}/versions/{version}/mlflow", VERSION + "/mlflow", {}),
    ("GET /api/v1/models/{name}/versions/{version}/repository", VERSION + "/repository", {}),
    ("GET /api/v1/rankings/{ranking_id}", V1 + "/rankings/{ranking}", {}),
    ("POST /api/v1/rankings", V1 + "/rankings", body(dataset="{dataset}", backbones=[factories.BACKBONE])),
    ("POST /api/v1/rankings", V1 + "/rankings", body(dataset="[dataset]", backbones=["user/{backbone}"])),
    ("GET /api/v1/webhooks/{webhook_id}", HOOK, {}),
    ("PATCH /api/v1/webhooks/{webhook_id}", HOOK, body(description="mine")),
    ("GET /api/v1/webhooks/{webhook_id}/deliveries", HOOK + "/deliveries", {}),
    ("GET /api/v1/webhooks/{webhook_id}/deliveries/{delivery_id}", HOOK + "/deliveries/{delivery}", {}),
    ("GET /api/v1/webhooks/{webhook_id}/deliveries/{delivery_id}", OWN_HOOK + "/deliveries/{delivery}", {}),
    ("POST /api/v1/webhooks/{webhook_id}/deliveries/{delivery_id}/replay", HOOK + "/deliveries/{delivery}/replay", {}),
    ("POST /api/v1/webhooks/{webhook_id}/deliveries/{delivery_id}/replay",
     OWN_HOOK + "/deliveries/{delivery}/replay", {}),
    ("POST /api/v1/webhooks/{webhook_id}/secret", HOOK + "/secret", {}),
    ("POST /api/v1/webhooks/{webhook_id}/test", HOOK + "/test", {}),
    ("GET /api/v1/uploads/{upload_id}", V1 + "/uploads/{half}", {}),
    ("PATCH /api/v1/uploads/{upload_id}", V1 + "/uploads/{half}", {"content": b"x", "headers": TUS}),
    ("GET /api/v1/uploads/{upload_id}/parts", V1 + "/uploads/{half}/parts", {}),
    ("POST /api/v1/uploads/{upload_id}/complete", V1 + "/uploads/{half}/complete", body(sha256="a" * 64)),
    ("POST /api/v1/datasets", V1 + "/datasets", body(name="new", upload_id="{upload}")),
    ("POST /api/v1/models/{name}/versions", V1 + "/models/new/versions", body(upload_id="{upload}")),
    ("POST /api/v1/backbones", V1 + "/backbones",
     body(name="uploaded", architecture=factories.BACKBONE, upload_id="{upload}")),
    ("GET /v2/models/{name}", "/v2/models/{model}", {}),
    ("GET /v2/models/{name}/config", "/v2/models/{model}/config", {}),
    ("GET /v2/models/{name}/ready", "/v2/models/{model}/ready", {}),
    ("GET /v2/models/{name}/stats", "/v2/models/{model}/stats", {}),
    ("POST /v2/models/{name}/infer", "/v2/models/{model}/infer", body(inputs=BYTES)),
    ("GET /v2/models/{name}/versions/{version}", "/v2/models/{model}/versions/1", {}),
    ("GET /v2/models/{name}/versions/{version}/config", "/v2/models/{model}/versions/1/config", {}),
    ("GET /v2/models/{name}/versions/{version}/ready", "/v2/models/{model}/versions/1/ready", {}),
    ("GET /v2/models/{name}/versions/{version}/stats", "/v2/models/{model}/versions/1/stats", {}),
    ("POST /v2/models/{name}/versions/{version}/infer", "/v2/models/{model}/versions/1/infer", body(inputs=BYTES)),
    ("POST /v2/repository/models/{name}/load", "/v2/repository/models/{model}/load", {}),
    ("POST /v2/repository/models/{name}/unload", "/v2/repository/models/{model}/unload", {}),
    # What takes things away comes last, and the part before the whole.
    ("DELETE /api/v1/jobs/{job_id}/predictions", V1 + "/jobs/{predict}/predictions", {}),
    ("DELETE /api/v1/jobs/{job_id}/features", V1 + "/jobs/{extract}/features", {}),
    ("DELETE /api/v1/backbones/own/{name}", V1 + "/backbones/own/{backbone}", {}),
    ("DELETE /api/v1/models/{name}/log", MODEL + "/log", {}),
    ("DELETE /api/v1/models/{name}/domains/{domain}", MODEL + "/domains/night", {}),
    ("DELETE /api/v1/models/{name}/aliases/{alias}", MODEL + "/aliases/production", {}),
    ("DELETE /api/v1/models/{name}/versions/{version}", VERSION, {}),
    ("DELETE /api/v1/models/{name}", MODEL, {}),
    ("DELETE /api/v1/alignments/{alignment_id}", V1 + "/alignments/{alignment}", {}),
    ("DELETE /api/v1/advice/{advice_id}", V1 + "/advice/{advice}", {}),
    ("DELETE /api/v1/rankings/{ranking_id}", V1 + "/rankings/{ranking}", {}),
    ("DELETE /api/v1/evaluations/{evaluation_id}", V1 + "/evaluations/{evaluation}", {}),
    ("DELETE /api/v1/datasets/{dataset_id}", V1 + "/datasets/{other}", {}),
    ("DELETE /api/v1/uploads/{upload_id}", V1 + "/uploads/{half}", {}),
    ("DELETE /api/v1/webhooks/{webhook_id}", HOOK, {}),
    ("DELETE /api/v1/keys/{key_id}", V1 + "/keys/{key}", {}),
]  # fmt: skip
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


def send(service, request, ids, own, headers):
    """The answer to a request with these ids in its places."""
    name, path, given = request
    filled = json.loads(_fill(json.dumps({"path": path, "json": given.get("json")}), ids, own))
    arguments = {key: value for key, value in given.items() if key not in ("json", "headers")}
    if filled["json"] is not None:
        arguments["json"] = filled["json"]
    return service.request(
        name.split()[0], filled["path"], headers={**given.get("headers", {}), **headers}, **arguments
    )


def _fill(shape, ids, own):
    shape = re.sub(r"\{(\w+)\}", lambda found: ids.get(found[1], found[0]), shape)
    return re.sub(r"\[(\w+)\]", lambda found: own.get(found[1], found[0]), shape)


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
