"""Which features of two domains a report draws. No torch.

Shape legend: N source items, M target items, D and E features.
"""

from worker.contract.adaptation import Spaces
from worker.contract.task import Float, Task
from worker.evaluate import feature_map


def shown(task: Task, before: tuple[Float, Float], after: tuple[Float, Float] | None) -> Spaces:
    """The part of both domains' features that a report draws.

    Shape:
        before: [N, D], [M, D] of the source's pool and the target's
        after: [N, E], [M, E]
    """
    assert task.source is not None
    parts = [feature_map.part(len(feats), task.seed) for feats in before]
    return Spaces(
        task.source.pool[parts[0]],
        task.pool[parts[1]],
        (before[0][parts[0]], before[1][parts[1]]),
        None if after is None else (after[0][parts[0]], after[1][parts[1]]),
    )
