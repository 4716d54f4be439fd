"""Writes the pages that are generated from the code. `make docs` runs it; a test compares."""

import json
import sys
from pathlib import Path
from typing import Any

from app.main import create_app
from app.recipes import RECIPES, TASKS, Recipe
from app.settings import Settings
from worker.data.problems import PROBLEMS

DOCS = Path(__file__).parent
METHODS_HEAD = """# Methods

Generated from `app/recipes.py` by `make docs`; `GET /api/v1/recipes` gives the same as JSON Schema. One section for
each `method` of a recipe; `dataset`, `backbone` and `seed` belong to the job. Unknown fields are refused. How `auto`
decides is told in [auto.md](auto.md).
"""

SETTINGS_HEAD = """# Settings

Generated from `app/settings.py` by `make docs`. Every process reads the same environment variables; unset ones have
the default. Lists are JSON, such as `GRAFT_ALLOWED_HOSTS='["graft.example.org"]'`. A value that does not fit ends the
process at its start with the reason.

One machine needs none of them. A team sets at least `GRAFT_DATABASE_URL` (`postgresql+psycopg://...`),
`GRAFT_BROKER_URL` (`redis://...`) and `GRAFT_STORAGE_URL` (`s3://bucket/prefix`, with the credentials and endpoint that
boto3 reads: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_ENDPOINT_URL`), alike for API and workers; see
`docker-compose.yml`.
"""
PROBLEMS_HEAD = """# Findings in a dataset

Generated from `worker/data/problems.py` by `make docs`. `GET /api/v1/datasets/{id}/problems` lists every finding with
`severity`, `code`, `path`, `message` and `fix`. One error makes the dataset `invalid`, and its `failure` has the first
error's code; with warnings alone it becomes `ready`.
"""


def openapi() -> str:
    """The interface of both roles as OpenAPI: equal code gives equal bytes, whatever the environment says."""
    settings = Settings.model_construct()
    return json.dumps(create_app(settings).openapi(), indent=1, sort_keys=True, ensure_ascii=True) + "\n"


def methods() -> str:
    """The reference of all recipes."""
    return "\n".join([METHODS_HEAD, *(_section(name, recipe) for name, recipe in RECIPES.items())])


def settings() -> str:
    """The reference of all settings."""
    sections = []
    for name, field in Settings.model_fields.items():
        default = "" if name == "prepared" else json.dumps(field.get_default(), default=str)
        shown = f"`{default}`" if default else "`share/graft/backbones` in the virtual environment"
        sections.append(f"## `GRAFT_{name.upper()}`\n\n{field.description}\n\nDefault: {shown}.\n")
    return "\n".join([SETTINGS_HEAD, *sections])


def problems() -> str:
    """The reference of all findings in datasets."""
    sections = []
    for code, text in PROBLEMS.items():
        message = text.message if text.message != "{found}" else "what the decoder says of the file"
        sections.append(f"## `{code}`\n\n{text.severity.capitalize()}: {message}.\n\nTo do: {text.fix}.\n")
    return "\n".join([PROBLEMS_HEAD, *sections])


def _section(method: str, recipe: type[Recipe]) -> str:
    schema = recipe.model_json_schema()
    fields = {name: field for name, field in schema["properties"].items() if name != "method"}
    needs = (
        "Needs torch." if recipe.needs_torch else "Needs no torch where a prepared graph or cached features are there."
    )
    lines = [
        f"## `{method}`",
        "",
        recipe.summary,
        "",
        f"Paper: {recipe.paper}. Tasks: {', '.join(sorted(TASKS[method]))}. {needs}",
        "",
    ]
    if fields:
        lines += ["| field | type | default | what |", "|---|---|---|---|"]
        lines += [
            f"| `{name}` | {_kind(field)} | `{json.dumps(field['default'])}` | {field['description']} |"
            for name, field in fields.items()
        ]
    else:
        lines.append("No fields.")
    return "\n".join([*lines, ""])


def _kind(field: dict[str, Any]) -> str:
    """A field's type and bounds in words."""
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    choices = [choice for choice in field.get("anyOf", [field]) if choice["type"] != "null"]
    words = [choice["type"] + _bounds(choice) for choice in choices]
    return " or ".join(words) + (", optional" if len(choices) < len(field.get("anyOf", [field])) else "")


def _bounds(field: dict[str, Any]) -> str:
    names = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    parts = [f"{sign} {field[name]:g}" for name, sign in names.items() if name in field]
    return f" ({', '.join(parts)})" if parts else ""


GENERATED = {"openapi.json": openapi, "methods.md": methods, "settings.md": settings, "problems.md": problems}


def main() -> int:
    """Writes every generated file."""
    for name, text in GENERATED.items():
        (DOCS / name).write_text(text(), encoding="utf-8")
        sys.stdout.write(f"wrote docs/{name}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
