"""The interface's description is whole: every reference resolves, every operation says how it fails."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from app.api import oip_errors as oip
from app.api.problems import MEDIA_TYPE
from app.bodies import BODY
from app.main import ROLES, create_app
from app.recipes import RECIPES
from app.settings import Settings

ROOT = Path(__file__).parents[2]
DOCUMENT: dict[str, Any] = json.loads((ROOT / "docs" / "openapi.json").read_text())
OPERATIONS = {
    f"{method.upper()} {path}": operation
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
}


def test_snapshot_is_the_applications_own(tmp_path: Path) -> None:
    app = create_app(Settings(home=tmp_path, allowed_hosts=("graft.example.org",), port=1))
    assert app.openapi() == DOCUMENT, "docs/openapi.json is out of date: run `make docs`"


def test_every_reference_resolves() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    wanted = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(DOCUMENT)))
    assert sorted(wanted - schemas.keys()) == []


def test_every_schema_is_used() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    wanted = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(DOCUMENT)))
    assert sorted(schemas.keys() - wanted) == []


def test_json_of_clients_is_read_strictly() -> None:
    """Bodies are read as these schemas say: "yes" is no truth value there, and "3" no number."""
    wanted: set[str] = set()
    for operation in OPERATIONS.values():
        content = operation.get("requestBody", {}).get("content", {})
        wanted |= set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(content.get("application/json", {}))))
    # Its fields come in a form as well; `forms.checked_json` is strict whatever the model is.
    wanted.discard("DatasetForm")
    models = {model.__name__: model for model in _below(BaseModel) if model.__module__.startswith("app.")}
    assert {name for name in wanted if models[name].model_config != BODY} == set()
    assert wanted >= {"JobIn", "AliasIn", "DomainIn", "ClassIn", "ImagesIn", "Coral", "PairedRidge"}
    assert {name for name, recipe in RECIPES.items() if not recipe.model_config["strict"]} == set()


def _below(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for one in model.__subclasses__():
        yield one
        yield from _below(one)


def test_no_body_is_overlooked() -> None:
    """A call that takes none says so, and refuses what somebody sends in the belief that it changes something."""
    sent = {name: one for name, one in OPERATIONS.items() if name.startswith(("POST", "PUT"))}
    assert [name for name, one in sent.items() if "requestBody" not in one] == []
    bare = [name for name, one in OPERATIONS.items() if "/Nothing" in json.dumps(one.get("requestBody"))]
    assert len(bare) == 8


def test_names_of_operations_are_unique() -> None:
    names = [operation["operationId"] for operation in OPERATIONS.values()]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_is_described(name: str) -> None:
    operation = OPERATIONS[name]
    assert operation["description"] or operation["summary"]
    assert len(operation["tags"]) == 1
    # The protocol under /v2 has an error shape of its own.
    kind = "application/json" if oip.concerns(name.split()[1]) else MEDIA_TYPE
    assert operation["responses"]["default"]["content"].keys() == {kind}


def test_roles_share_no_route_and_leave_none_out(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    parts = [set(create_app(settings, (role,)).openapi()["paths"]) for role in ROLES]
    health = set.intersection(*parts)
    assert health == {"/livez", "/readyz", "/metrics"}
    assert set.union(*parts) == DOCUMENT["paths"].keys()
