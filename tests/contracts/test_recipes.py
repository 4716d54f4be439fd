"""Every torch-free table of app has its counterpart in worker, with equal keys."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from app.alignments import METHODS as ALIGNMENTS
from app.queue import TASK_NAMES
from app.recipes import RECIPES, TASKS, Recipe
from app.services.outcomes import FINISHERS
from worker.alignments.table import FITS
from worker.by_recipe import METHODS
from worker.runner import RUNNERS

ROOT = Path(__file__).parents[2]


def test_every_recipe_has_a_method_and_every_method_a_recipe() -> None:
    assert set(METHODS) == set(RECIPES.values())
    assert TASKS.keys() == RECIPES.keys()


def test_every_alignment_has_a_fit_and_is_documented() -> None:
    assert set(FITS) == set(ALIGNMENTS.values())
    text = (ROOT / "docs" / "methods.md").read_text()
    assert re.findall(r"^### `([^`]+)`$", text, re.MULTILINE) == list(ALIGNMENTS)


def test_every_kind_of_job_has_a_runner_and_a_finisher() -> None:
    assert RUNNERS.keys() == FINISHERS.keys()


def test_every_task_name_is_registered(tmp_path: Path) -> None:
    code = "from worker import main; print(sorted(name for name in main.app.tasks if not name.startswith('celery.')))"
    environment = {"GRAFT_HOME": str(tmp_path)}
    command = [sys.executable, "-c", code]
    shown = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
    assert shown.strip() == str(sorted(TASK_NAMES))


def test_every_recipe_is_documented() -> None:
    text = (ROOT / "docs" / "methods.md").read_text()
    assert re.findall(r"^## `([^`]+)`$", text, re.MULTILINE) == list(RECIPES)


@pytest.mark.parametrize("method", RECIPES)
def test_recipe_explains_itself(method: str) -> None:
    recipe: type[Recipe] = RECIPES[method]
    assert recipe.summary.endswith(".")
    assert recipe.paper
    assert recipe.model_fields["method"].default == method, "the tag is the table's key"
    required = {name for name, field in recipe.model_fields.items() if field.is_required()}
    assert required <= {"classes", "source"}, "every field has a default, but for what a method cannot begin without"
    for name, field in recipe.model_fields.items():
        assert name == "method" or field.description, f"{method}.{name} has no description"


@pytest.mark.parametrize("method", RECIPES)
def test_method_has_a_file_of_its_own(method: str) -> None:
    # The one that chooses among the others has a room above them.
    place = ROOT / "worker" / ("auto/search.py" if method == "auto" else f"methods/{method}.py")
    assert place.is_file()
