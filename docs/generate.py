"""Writes the pages that are generated from the code. `make docs` runs it; a test compares."""

import json
import sys
from pathlib import Path
from typing import Any

from app.alignments import METHODS as ALIGNMENTS
from app.alignments import Alignment
from app.main import create_app
from app.recipes import RECIPES, TASKS, Recipe
from app.settings import Settings
from docs import measured
from worker.data.findings import PROBLEMS

DOCS = Path(__file__).parent
METHODS_HEAD = """# Methods

Generated from `app/recipes` by `make docs`; `GET /api/v1/recipes` gives the same as JSON Schema. One section for
each `method` of a recipe; `dataset`, `backbone` and `seed` belong to the job. Unknown fields are refused. How `auto`
decides is told in [auto.md](auto.md), how `zero_shot` works in [zero_shot.md](zero_shot.md).

Figures are those of `make eval` (`benchmarks/results/evaluation.json`): EfficientNet-Lite0; in a
run, no label of an image that is scored teaches or chooses anything. What was settled when a method was designed saw
some of these sets: ConSE's centring emoji_twitter, the direction of an adaptation the emoji, its validator digits and
MNIST, the learning rate of `norm` and `ssf` digits and one split of MNIST. `[low, high]` is the 95 % interval over
seeds, which draw the splits.
"""

ALIGNMENTS_HEAD = """## Alignments

Generated from `app/alignments.py`; `GET /api/v1/alignments/methods` gives the same as JSON Schema. `POST
/api/v1/alignments` takes `method`, `source` (the dataset that a head was trained on), `target` (the new domain's),
`backbone` and `seed`, and fits a transform that moves features of the target to the source; no label is read, and no
test split. Unpaired methods know the two domains only as a whole; paired ones see the same items twice: in two datasets
(`target`, matched by `pair_by`), under two backbones (`from_backbone`), or both. `result` has what was learned and what
it changed on a held-out fifth: distances before and after (CORAL, MMD, proxy A-distance), and for pairs error and R2;
`result.warnings` what to mind.
"""
SHARED_FIELDS = {"method", "source", "target", "backbone", "seed", "from_backbone", "pair_by"}

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

Generated from `worker/data/findings.py` by `make docs`. `GET /api/v1/datasets/{id}/problems` lists every finding with
`severity`, `code`, `path`, `message` and `fix`. One error makes the dataset `invalid`, and its `failure` has the first
error's code; with warnings alone it becomes `ready`. At most 100,000 are listed, and 16 MB of names and messages; those
behind are counted (`more_problems`).
"""


def openapi() -> str:
    """The interface of both roles as OpenAPI: equal code gives equal bytes, whatever the environment says."""
    settings = Settings.model_construct()
    return json.dumps(create_app(settings).openapi(), indent=1, sort_keys=True, ensure_ascii=True) + "\n"


def methods() -> str:
    """The reference of all recipes, and of all alignments."""
    recipes = [_section(name, recipe) for name, recipe in RECIPES.items()]
    return "\n".join(
        [
            METHODS_HEAD,
            *recipes,
            ALIGNMENTS_HEAD,
            *measured.of("alignments"),
            *(_alignment(*row) for row in ALIGNMENTS.items()),
        ]
    )


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
    parts = schema.get("$defs", {})
    fields = {name: _resolved(field, parts) for name, field in schema["properties"].items() if name != "method"}
    needs = (
        "Needs torch." if recipe.needs_torch else "Needs no torch where a prepared graph or cached features are there."
    )
    lines = [
        f"## `{method}`",
        "",
        recipe.summary,
        "",
        f"- When: {recipe.when}",
        f"- Cost: {recipe.cost} {needs}",
        f"- Paper: {recipe.paper}.",
        f"- Tasks: {', '.join(sorted(TASKS[method]))}.",
        "",
    ]
    return "\n".join([*lines, *_fields(fields), "", *measured.of(method)])


def _alignment(method: str, kind: type[Alignment]) -> str:
    own = {name: field for name, field in kind.model_json_schema()["properties"].items() if name not in SHARED_FIELDS}
    needs = "pairs" if kind.paired else "two datasets, no labels"
    return "\n".join(
        [f"### `{method}`", "", kind.summary, "", f"Paper: {kind.paper}. Needs {needs}.", "", *_fields(own), ""]
    )


def _fields(fields: dict[str, Any]) -> list[str]:
    """A table of fields."""
    if not fields:
        return ["No fields."]
    return [
        "| field | type | default | what |",
        "|---|---|---|---|",
        *(
            f"| `{name}` | {_kind(field)} | {_default(field)} | {field['description']} |"
            for name, field in fields.items()
        ),
    ]


def _default(field: dict[str, Any]) -> str:
    return f"`{json.dumps(field['default'])}`" if "default" in field else "required"


def _resolved(field: dict[str, Any], parts: dict[str, Any]) -> dict[str, Any]:
    """A list's field with what its items are in place of their reference."""
    reference = field.get("items", {}).get("$ref", "")
    return {**field, "items": parts[reference.rpartition("/")[2]]} if reference else field


def _kind(field: dict[str, Any]) -> str:
    """A field's type and bounds in words."""
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    choices = [choice for choice in field.get("anyOf", [field]) if choice["type"] != "null"]
    words = [_word(choice) + _bounds(choice) for choice in choices]
    return " or ".join(words) + (", optional" if len(choices) < len(field.get("anyOf", [field])) else "")


def _word(choice: dict[str, Any]) -> str:
    if choice["type"] != "array":
        return str(choice["type"])
    members = ", ".join(f"`{name}`" for name in choice["items"].get("properties", {}))
    return f"list of {_kind(choice['items'])}{f' ({members})' if members else ''}"


def _bounds(field: dict[str, Any]) -> str:
    names = {
        "minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<",
        "minItems": ">=", "maxItems": "<=",
    }  # fmt: skip
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
