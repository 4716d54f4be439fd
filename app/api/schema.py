"""The OpenAPI document: what the framework finds in signatures, and the schemas of bodies that are read by hand."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from app.api.bundles import BundleFromUpload
from app.api.classes import ClassIn
from app.api.images import ImagesIn
from app.api.new_datasets import DatasetForm
from app.api.oip.documents import InferenceError
from app.api.oip.http import InferRequestIn
from app.api.own_backbones import BackboneFromUpload, BackboneFromVersion
from app.api.problems import Problem
from app.api.scopes import OPEN, SCOPES
from app.api.uploads import UploadIn
from app.api.v2 import IndexIn, LoadIn

KEY = "key"
BY_HAND: tuple[type[BaseModel], ...] = (
    BackboneFromUpload,
    BackboneFromVersion,
    BundleFromUpload,
    ClassIn,
    DatasetForm,
    IndexIn,
    InferenceError,
    InferRequestIn,
    LoadIn,
    ImagesIn,
    Problem,
    UploadIn,
)


def install(app: FastAPI) -> None:
    """Makes `app.openapi()` complete; made once, on the first call."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _document(app: FastAPI) -> dict[str, Any]:
    found = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
    _, extra = models_json_schema(
        [(model, "validation") for model in BY_HAND], ref_template="#/components/schemas/{model}"
    )
    schemas: dict[str, Any] = found.setdefault("components", {}).setdefault("schemas", {})
    for name, schema in extra["$defs"].items():
        schemas.setdefault(name, schema)
    _describe_keys(found)
    return found


def _describe_keys(document: dict[str, Any]) -> None:
    """Says of each operation which scopes are enough; without keys (GRAFT_REQUIRE_KEYS) none is needed."""
    told = "An API key, where the service asks for one; see docs/keys.md."
    document["components"]["securitySchemes"] = {KEY: {"type": "http", "scheme": "bearer", "description": told}}
    for path, item in document["paths"].items():
        for method, operation in item.items():
            needed = SCOPES.get(f"{method.upper()} {path.removeprefix('/api/v1')}", OPEN)
            operation["security"] = [{}, *({KEY: [scope]} for scope in needed)]
