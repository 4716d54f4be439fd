"""Every route of the OpenAPI document under what schemathesis makes of it: no 5xx, and every answer as described.

In the document that is fuzzed, paths name what is really there, so that requests get past the 404, and fields of bodies
may. Before it is fuzzed each route is asked as the owner of what is there would ask, so that not only refusals are held
against the document. Deletions come last, since they take it away. Examples are few, and the same in each run: what is
wanted here is that no route is left out. What is odd about texts and bodies is in test_any_input.py.
"""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.generation import GenerationMode

from app.settings import Settings
from tests import factories
from tests.app.api import worlds
from tests.app.api.owners_requests import REQUESTS, send
from tests.listening import application

pytestmark = pytest.mark.server
DOCUMENT: dict[str, Any] = json.loads((Path(__file__).parents[3] / "docs" / "openapi.json").read_text())
ROUTES = [(method, path) for path, item in DOCUMENT["paths"].items() for method in item]
# A part is deleted before the whole.
ORDER = sorted(
    ROUTES, key=lambda route: (route[0] == "delete", -route[1].count("/") if route[0] == "delete" else 0, route[1])
)
NUM_EXAMPLES = 5
# Of those that have nothing but ids in their path.
NUM_OF_PATHS = 2
# Routes that answered at least one of the generated requests with what it asked for; the others need more than a schema
# can say.
MIN_REACHED_SHARE = 0.6
# Routes that may answer neither those nor their owner's so, and why; every other one does.
NEVER = {
    ("delete", "/api/v1/backbones/own/{name}"): "jobs that were made here may open it",
    ("delete", "/api/v1/datasets/{dataset_id}"): "jobs that were made here work on it",
    ("get", "/api/v1/uploads/{upload_id}/parts"): "only where storage is S3",
    ("get", "/readyz"): "the worker is a row, which is too old a minute later",
    ("post", "/api/v1/alignments"): "no worker has the weights, and downloads are off",
    ("post", "/api/v1/models/{name}/versions"): "the upload is no bundle, or was used before",
    ("post", "/api/v1/uploads/{upload_id}/complete"): "the sha256 of its bytes is not to be guessed",
    ("post", "/api/v1/webhooks"): "no address that is made up may be sent to",
    ("post", "/api/v1/webhooks/{webhook_id}/deliveries/{delivery_id}/replay"): "disabled by what was sent before",
    ("post", "/api/v1/webhooks/{webhook_id}/test"): "disabled by what was sent before",
    ("post", "/v2/models/{name}/infer"): "the owner's image is none",
    ("post", "/v2/models/{name}/versions/{version}/infer"): "the owner's image is none",
}
# What a name of a parameter or field stands for, in the words of `worlds.World.ids`.
NAMED = {
    "dataset_id": ["dataset", "other"], "dataset": ["dataset", "other"], "source": ["dataset"], "base": ["dataset"],
    "target": ["other"], "unlabelled": ["other"], "against": ["other"], "advice_id": ["advice"],
    "alignment_id": ["alignment", "unbound"], "alignment": ["alignment"], "evaluation_id": ["evaluation"],
    "job_id": ["done", "queued", "running", "failed", "predict", "extract"], "ranking_id": ["ranking"],
    "upload_id": ["upload", "half"], "webhook_id": ["webhook"], "delivery_id": ["delivery"], "key_id": ["key"],
    "model": ["model"],
}  # fmt: skip
# And what is the same in every world.
FIXED = {
    "version": [1, 2], "alias": ["production"], "domain": ["night"], "file": ["spec.json", "alignment.onnx"],
    "provider": ["timm"], "backbone": [factories.BACKBONE], "day": [worlds.DAY],
}  # fmt: skip
load_all_checks()
WANTED = [
    CHECKS.get_one(name)
    for name in (
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
        "response_schema_conformance",
    )
]


@schemathesis.serializer("application/offset+octet-stream")
def raw(ctx: Any, value: Any) -> Any:
    """Bodies of the tus protocol are bytes."""
    return value if isinstance(value, bytes) else str(value).encode(errors="replace")


def values_of(name: str, path: str, ids: dict[str, str]) -> list[Any]:
    if name == "name":
        return [ids["model"]] if "/models/" in path else [ids["backbone"], "tf_efficientnet_lite0"]
    return [ids[one] for one in NAMED.get(name, [])] or FIXED.get(name, [])


def known(schema: dict[str, Any], values: list[Any]) -> dict[str, Any]:
    return {"anyOf": [{"enum": values}, schema]} if values else schema


def enriched(ids: dict[str, str]) -> dict[str, Any]:
    """The document, with what is there beside what might be."""
    document = copy.deepcopy(DOCUMENT)
    for path, item in document["paths"].items():
        for operation in item.values():
            for parameter in operation.get("parameters", []):
                values = values_of(parameter["name"], path, ids)
                is_path = parameter["in"] == "path" and values
                parameter["schema"] = {"enum": values} if is_path else known(parameter["schema"], values)
    for schema in document["components"]["schemas"].values():
        for name, inner in schema.get("properties", {}).items():
            if name != "name" and inner.get("type") in ("string", "integer", None):
                schema["properties"][name] = known(inner, values_of(name, "", ids))
    return document


@pytest.fixture(scope="module")
def service(
    sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, dict[str, Any], dict[str, str]]]:
    """The address of a service with one of everything and a worker, its description, and the ids of what it has."""
    home = tmp_path_factory.mktemp("home")
    (home / "graft.db").write_bytes(sqlite_template.read_bytes())
    with application(Settings(home=home, offline=True)) as (url, state):
        world = worlds.make(state, home / "world")
        with state.database.write() as session:
            factories.worker(session)
        yield url, enriched(world.ids), world.ids


def operations(url: str, document: dict[str, Any]) -> dict[tuple[str, str], Any]:
    """By method and path."""
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=url)
    every = [result.ok() for result in schema.get_all_operations()]
    return {(one.method.lower(), one.path): one for one in every}


def modes(method: str, path: str) -> list[tuple[GenerationMode, int]]:
    """How to ask: as the schema says, and, where it says something that can be disobeyed, otherwise."""
    operation = DOCUMENT["paths"][path][method]
    places = {parameter["in"] for parameter in operation.get("parameters", [])}
    # Any text may stand in a path, and in a header.
    if "query" not in places and "requestBody" not in operation:
        return [(GenerationMode.POSITIVE, NUM_OF_PATHS)]
    return [(GenerationMode.POSITIVE, NUM_EXAMPLES), (GenerationMode.NEGATIVE, NUM_EXAMPLES)]


def fuzz(operation: Any, mode: GenerationMode, num: int, session: requests.Session) -> tuple[set[int], list[str]]:
    """The statuses that came, and what was wrong with them."""
    statuses, wrong = set(), []
    described = operation.definition.raw["responses"]

    @settings(
        max_examples=num,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case: Any) -> None:
        response = case.call(session=session, timeout=30)
        statuses.add(response.status_code)
        # Readiness says 503 of itself, and protocols have parts that nobody here speaks: 501.
        if response.status_code >= 500 and str(response.status_code) not in described:
            wrong.append(f"{operation.label}: {response.status_code} {response.text[:500]}")
        try:
            case.validate_response(response, checks=WANTED)
        except (Failure, FailureGroup) as failure:
            wrong.append(str(failure))

    try:
        check()
    except Unsatisfiable:
        # Where any text will do, nothing can be disobeyed.
        assert mode is GenerationMode.NEGATIVE, operation.label
    return statuses, wrong


def ask(http: httpx.Client, operation: Any, ids: dict[str, str]) -> tuple[set[int], list[str]]:
    """The statuses of what an owner asks of the route, and what was wrong with the answers."""
    statuses, wrong = set(), []
    for request in REQUESTS:
        if request[0] == f"{operation.method.upper()} {operation.path}":
            response = send(http, request, ids, ids, {})
            # A form is sent as it is read; whoever tells of the request wants it whole.
            response.request.read()
            statuses.add(response.status_code)
            if response.headers.get("content-type", "").startswith("text/event-stream"):
                # OpenAPI 3.1 has words for the stream as a whole, and none for one event, which is what is looked at.
                continue
            try:
                operation.validate_response(response)
            except (Failure, FailureGroup) as failure:
                wrong.append(f"{operation.label}: {failure}")
    return statuses, wrong


def test_every_route(service: tuple[str, dict[str, Any], dict[str, str]]) -> None:
    url, document, ids = service
    wrong: list[str] = []
    by_owner, generated = set(), set()
    every = operations(url, document)
    with requests.Session() as session, httpx.Client(base_url=url, trust_env=False, timeout=60) as http:
        session.trust_env = False
        for method, path in ORDER:
            found, said = ask(http, every[method, path], ids)
            by_owner |= {(method, path)} if any(200 <= status < 300 for status in found) else set()
            wrong += said
            for mode, num in modes(method, path):
                found, said = fuzz(every[method, path], mode, num, session)
                generated |= {(method, path)} if any(200 <= status < 300 for status in found) else set()
                wrong += said
    assert not wrong, "\n".join(wrong)
    assert len(generated) / len(ROUTES) >= MIN_REACHED_SHARE, sorted(set(ROUTES) - generated)
    assert sorted(set(ROUTES) - generated - by_owner - NEVER.keys()) == []


@pytest.mark.parametrize(
    ("path", "described"),
    [
        ("/api/v1/recipes", {"content": {"application/json": {"schema": {"type": "string"}}}}),
        ("/livez", {"content": {"application/json": {"schema": {}}}}),
        ("/api/v1/uploads", {"content": {"application/json": {}}, "headers": {"X-Never": {"required": True}}}),
    ],
)
def test_an_answer_that_is_not_as_described_is_found(
    service: tuple[str, dict[str, Any], dict[str, str]], path: str, described: dict[str, Any]
) -> None:
    url, document, _ = service
    changed = copy.deepcopy(document)
    changed["paths"][path]["get"]["responses"]["200"] = {"description": "", **described}
    with requests.Session() as session:
        session.trust_env = False
        _, wrong = fuzz(operations(url, changed)["get", path], GenerationMode.POSITIVE, 1, session)
    assert wrong
