"""Recipes: what each built method takes."""

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel

from app import recipes
from app.api.problems import RESPONSES

router = APIRouter(prefix="/recipes", tags=["recipes"], responses=RESPONSES)


class RecipeOut(BaseModel):
    """One method and the JSON Schema of its fields."""

    method: str
    summary: str
    when: str
    cost: str
    paper: str
    tasks: list[str]
    json_schema: dict[str, Any]


@router.get("", response_model=dict[str, list[RecipeOut]])
def list_recipes() -> Any:
    """Every built method: defaults, bounds, help, paper."""
    rows = [
        RecipeOut(
            method=method,
            summary=recipe.summary,
            when=recipe.when,
            cost=recipe.cost,
            paper=recipe.paper,
            tasks=sorted(recipes.TASKS[method]),
            json_schema=recipe.model_json_schema(),
        )
        for method, recipe in recipes.RECIPES.items()
    ]
    return {"data": rows}
