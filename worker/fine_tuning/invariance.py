"""Which changes of an image leave its label alone: those under which the probe is as good, within one standard error.

What a probe on the frozen backbone no longer recognises when mirrored, turned or recoloured may be another class (a 6
and a 9, a left and a right hand), or something that the backbone has not learned to see through; training on such views
would teach it wrong labels or waste its few steps.

Shape legend: N held-out images, D features.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from app.artifact import preprocess
from worker.backbones import features
from worker.backbones.feature_cache import Space
from worker.backbones.prepared import Prepared
from worker.contract.heads import LinearHead
from worker.contract.task import Float, Rows, Task
from worker.fine_tuning import forward
from worker.training import augment, inputs, trivial

NUM_IMAGES = 256
TRANSFORMS: dict[str, Callable[[Image.Image, np.random.Generator], Image.Image]] = {
    "mirror": lambda image, _: augment.mirror(image),
    "geometric": lambda image, draws: trivial.apply(image, draws, ("geometric",), identity=False),
    "colour": lambda image, draws: trivial.apply(image, draws, ("colour",), identity=False),
}


def check(
    task: Task, source: Prepared, probe: LinearHead, held: tuple[Rows, Float], names: tuple[str, ...]
) -> dict[str, dict[str, Any]]:
    """Accuracy of the probe on held-out images as they are and changed, by transform.

    Args:
        task: the data.
        source: the backbone, with the input size that the probe learned from.
        probe: learned from other images.
        held: rows and their features.
        names: keys of TRANSFORMS.

    Returns:
        for each: `plain`, `changed`, `limit` (the largest drop that is allowed: one standard error of it), `allowed`,
        `num_samples`.
    """
    rows_N, plain_ND = held[0][:NUM_IMAGES], held[1][:NUM_IMAGES]
    labels_N = task.labels_N[rows_N]
    plain_N = probe.logits(plain_ND).argmax(1) == labels_N
    shape = inputs.without_margin(source.preprocess)
    found = {}
    for name in names:
        transform = TRANSFORMS[name]

        def view(image: Image.Image, sha256: str, transform: Any = transform) -> Image.Image:
            square = Image.fromarray(preprocess.apply(image, source.preprocess))
            changed: Image.Image = transform(square, np.random.default_rng(augment.digest_draw(sha256, 0)))
            return changed

        precision = features.precision(task.context)
        space = Space(source.digest, source.preprocess.digest, "pooled", f"label-{name}", precision)
        changed_ND, _ = features.features(
            task.context, task.index, rows_N, space, shape, lambda: forward.extractor(task, source), view=view,
            stage=("features", 0.19, 0.2),
        )  # fmt: skip
        changed_N = probe.logits(changed_ND).argmax(1) == labels_N
        drop_N = plain_N.astype(float) - changed_N
        drop, limit = float(drop_N.mean()), float(drop_N.std() / np.sqrt(len(drop_N)))
        allowed = drop <= limit
        found[name] = {
            "plain": float(plain_N.mean()),
            "changed": float(changed_N.mean()),
            "limit": limit,
            "num_samples": len(drop_N),
            "allowed": allowed,
        }
        task.context.reporter.log(
            f"augmentation {name}: the probe scores {changed_N.mean():.3f} instead of {plain_N.mean():.3f} on "
            f"{len(drop_N)} images, {drop:.3f} less, where one standard error of it is {limit:.3f}; "
            f"it is {'used' if allowed else 'not used'}",
            **found[name],
        )
    return found
