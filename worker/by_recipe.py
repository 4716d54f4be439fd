"""Which function carries out which recipe: a literal table, tied to `app.recipes.RECIPES` by a test.

Functions are imported when called, since most jobs need no torch.
"""

from collections.abc import Callable
from typing import Any

from app.recipes import Adapt, Auto, FewShot, FineTune, LinearProbe, Recipe, ZeroShot
from worker.contract.outcome import Outcome
from worker.contract.task import Task


def _linear_probe(recipe: Any, task: Task) -> Outcome:
    from worker.methods import linear_probe

    return Outcome(linear_probe.run(recipe, task))


def _few_shot(recipe: Any, task: Task) -> Outcome:
    from worker.methods import few_shot

    return few_shot.run(recipe, task)


def _fine_tune(recipe: Any, task: Task) -> Outcome:
    from worker.methods import fine_tune

    return fine_tune.job(recipe, task)


def _adapt(recipe: Any, task: Task) -> Outcome:
    from worker.methods import adapt

    return adapt.run(recipe, task)


def _zero_shot(recipe: Any, task: Task) -> Outcome:
    from worker.methods import zero_shot

    return Outcome(zero_shot.run(recipe, task))


def _auto(recipe: Any, task: Task) -> Outcome:
    from worker.auto import search

    return search.run(recipe, task)


METHODS: dict[type[Recipe], Callable[[Any, Task], Outcome]] = {
    LinearProbe: _linear_probe,
    FewShot: _few_shot,
    FineTune: _fine_tune,
    Adapt: _adapt,
    ZeroShot: _zero_shot,
    Auto: _auto,
}
