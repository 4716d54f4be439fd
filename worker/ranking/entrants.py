"""Who may enter a ranking on this machine. No torch."""

from app import backbones
from app.errors import JobFailure
from app.rankings import MAX_BACKBONES
from worker.attempt.context import RunContext
from worker.backbones import prepared, weights
from worker.ranking.contender import Contender


def entrants(context: RunContext, names: tuple[str, ...]) -> list[Contender]:
    """Those that were named, or else all recommended ones at hand; the better by ImageNet accuracy the earlier.

    When time runs out, those that promised most have been looked at.

    Raises:
        JobFailure: weights_unavailable, none was named and none is at hand.
    """
    found = [Contender(name, top1(context, name)) for name in names or _at_hand(context)]
    return sorted(found, key=lambda one: 0.0 if one.top1 is None else -one.top1)


def top1(context: RunContext, name: str) -> float | None:
    """ImageNet accuracy of a backbone; of a project's own weights nobody knows it."""
    known = None if _is_own(context, name) else backbones.find(name)
    return known.rank if known else None


def is_prepared(context: RunContext, name: str) -> bool:
    """Whether this machine has its graph, so that nothing needs to be exported."""
    roots = [context.settings.home_path / "backbones", context.settings.prepared]
    return _is_own(context, name) or prepared.find(name, roots) is not None


def _is_own(context: RunContext, name: str) -> bool:
    return any(row["backbone"]["name"] == name for row in context.document.user_backbones)


def _at_hand(context: RunContext) -> list[str]:
    found = [
        one for one in map(backbones.find, weights.available(context.settings.home_path)) if one and one.recommended
    ]
    if not found:
        raise JobFailure("weights_unavailable", "expected a recommended backbone at hand; found none; run `make setup`")
    found.sort(key=lambda one: -(one.rank or 0.0))
    return [one.name for one in found[:MAX_BACKBONES]]
