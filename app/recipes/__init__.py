"""Recipes: the frozen, typed configuration of each transfer method that is built.

A method is one file here with one class, one file in `worker/methods`, one row in each table, one section in
docs/methods.md.
"""

import types
from typing import Annotated, Any

from pydantic import TypeAdapter, ValidationError

from app.bodies import By, pointers
from app.errors import BadRequest, Unprocessable
from app.recipes.adapt import Adapt
from app.recipes.auto import Auto
from app.recipes.base import Recipe
from app.recipes.few_shot import FewShot
from app.recipes.fine_tune import FineTune
from app.recipes.linear_probe import LinearProbe
from app.recipes.zero_shot import ZeroShot, ZeroShotClass

__all__ = [
    "RECIPES",
    "TASKS",
    "Adapt",
    "AnyRecipe",
    "Auto",
    "FewShot",
    "FineTune",
    "LinearProbe",
    "Recipe",
    "ZeroShot",
    "ZeroShotClass",
    "parse",
]

RECIPES: dict[str, type[Recipe]] = {
    "auto": Auto,
    "linear_probe": LinearProbe,
    "few_shot": FewShot,
    "fine_tune": FineTune,
    "adapt": Adapt,
    "zero_shot": ZeroShot,
}

AnyRecipe = Annotated[LinearProbe | FewShot | FineTune | Adapt | ZeroShot | Auto, By("method")]
_ADAPTER: TypeAdapter[LinearProbe | FewShot | FineTune | Adapt | ZeroShot | Auto] = TypeAdapter(AnyRecipe)

# Whether a method's tasks are built; anything else is refused by name before a job is made.
TASKS = types.MappingProxyType({name: frozenset({"classification"}) for name in RECIPES})


def parse(document: dict[str, Any]) -> LinearProbe | FewShot | FineTune | Adapt | ZeroShot | Auto:
    """A recipe from its JSON object.

    Raises:
        BadRequest: code unknown_recipe, a method that is not built.
        Unprocessable: a field that is unknown, missing or out of bounds, with a pointer to each.
    """
    method = document.get("method")
    if not isinstance(method, str) or method not in RECIPES:
        raise BadRequest(
            f"expected a method that is built ({', '.join(RECIPES)}); found {method!r}; see GET /api/v1/recipes",
            code="unknown_recipe",
        )
    try:
        return _ADAPTER.validate_python(document)
    except ValidationError as error:
        raise Unprocessable(
            f"expected fields of the recipe {method}; found {error.error_count()} that do not fit, each with what is "
            "wrong under `errors`; see GET /api/v1/recipes",
            errors=pointers(error.errors(), "body", "recipe"),
        ) from error
