"""The interface's description is whole: every reference resolves, every operation says how it fails."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from app.api.problems import MEDIA_TYPE
from app.main import ROLES, create_app
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


def test_names_of_operations_are_unique() -> None:
    names = [operation["operationId"] for operation in OPERATIONS.values()]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_is_described(name: str) -> None:
    operation = OPERATIONS[name]
    assert operation["description"] or operation["summary"]
    assert len(operation["tags"]) == 1
    assert operation["responses"]["default"]["content"].keys() == {MEDIA_TYPE}


def test_roles_share_no_route_and_leave_none_out(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    parts = [set(create_app(settings, (role,)).openapi()["paths"]) for role in ROLES]
    health = set.intersection(*parts)
    assert health == {"/livez", "/readyz", "/metrics"}
    assert set.union(*parts) == DOCUMENT["paths"].keys()
