"""Zero-shot: a classifier for classes that no image was seen of, from what they are called. No torch.

Without images of any class, three ways, all on the ImageNet classifier that the backbone came with:

- `head_map`: ridge regression from the vectors of the 1000 class names to the classifier's rows, applied to the new
  names; the rows meet the centred feature by cosine. lambda by leaving each of the 1000 classes out.
- `conse`: ConSE (arXiv 1312.5650), T = 10 as in the paper. We depart from it twice, both times by a mean: the
  classifier sees the feature moved so that the images' mean lies on the pretraining's, where classes are equally likely
  (`W (f - mean)`; drawings would else all be a few hub classes), and vectors lose the mean of the 1000 names' vectors,
  which says only that they are names (arXiv 1702.01417). Both were settled on emoji_twitter alone.
- `combined`: the sum of both, each divided by the spread that it has on the 1000 classes themselves, where the
  row of a class (or its vector) stands for an image of it. No image and no wanted class has a say in the weights.

A backbone with a text tower of its own needs none of this: `text_tower` has its way, `clip`.

With a dataset of seen classes, `seen_classes` adds ESZSL and DeViSE. What a name becomes is told in
`worker/backbones/text.py`.

Shape legend: N images, D features, K classes of the pretraining, C wanted classes, E width of a vector.
"""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from app.artifact.scores import unit
from app.backbones import OPEN_CLIP
from app.errors import JobFailure
from app.recipes import ZeroShot
from worker.backbones import features, text
from worker.backbones.exposure import exposure
from worker.backbones.extraction import Extraction
from worker.backbones.prepared import Prepared
from worker.backbones.text import TextEncoder
from worker.contract.candidate import Candidate, Head, Selection
from worker.contract.heads import CosineHead
from worker.contract.task import Float, Rows, Task
from worker.methods import seen_classes, text_tower
from worker.methods.text_head import TextHead
from worker.prepare import centre, sources
from worker.prepare.centre import Centre
from worker.solvers import semantic

TOP = 10
NUM_KNOWN = 1000
FROM_TEXT = ("combined", "head_map", "conse")


@dataclass(frozen=True)
class Known:
    """The classifier that the backbone came with; its bias is of no use where the mean is another.

    Shape:
        rows_KD: [K, D]
    """

    rows_KD: Float


def run(recipe: ZeroShot, task: Task) -> Candidate:
    """From names (and images of seen classes, where there are some) to a head."""
    began = time.monotonic()
    backbone = choose_backbone(task)
    encoder = text.find([task.context.settings.home_path / "backbones", task.context.settings.prepared])
    if recipe.uses_text_tower(backbone.provider == OPEN_CLIP):
        tower = sources.open_text_tower(task.context, backbone.name)
        names = [one.name for one in recipe.classes]
        details = {**text_tower.details(tower), "exposure": exposure(names, encoder)}
        return _candidate(recipe, task, backbone, text_tower.head(recipe, tower), details, began)
    seen = seen_classes.load(recipe, task, backbone, encoder)
    extraction = seen.extraction if seen else None
    middle = _centre(recipe, task, backbone, seen)
    vectors_CE = wanted_vectors(recipe, encoder)
    known = read_classifier(backbone)
    task.context.reporter.progress(0.6, "train")
    approach: str = recipe.approach
    head: Head | None = None
    details = {}
    if not (seen is not None and seen.labelled):
        _check_no_images_needed(recipe)
    elif approach not in FROM_TEXT:
        rival = None
        if known is not None and approach == "auto" and recipe.classes[0].attributes is None:
            rival, _ = from_text("combined", known, encoder, seen.vectors_KE, middle)
        fitted = seen_classes.fit(recipe, task, seen, middle, vectors_CE, rival)
        approach, head, details = fitted.approach, fitted.head, fitted.details
    if head is None:
        if known is None:
            raise classifier_missing(backbone.name)
        approach = "combined" if approach == "auto" else approach
        head, made = from_text(approach, known, encoder, vectors_CE, middle)
        details = {**details, **made}
    details = {
        "approach": approach,
        "text_encoder": encoder.document(),
        "centre": {"what": middle.what, "num_images": middle.num_images},
        "exposure": exposure(_names(recipe, seen), encoder),
        **details,
    }
    return _candidate(recipe, task, backbone, head, details, began, extraction)


def _candidate(
    recipe: ZeroShot,
    task: Task,
    backbone: Prepared,
    head: Head,
    details: dict[str, Any],
    began: float,
    extraction: Extraction | None = None,
) -> Candidate:
    """A head without anything to be chosen by, on the unchanged backbone."""
    return Candidate(
        method=recipe.method,
        name=f"zero_shot ({details['approach']})",
        head=head,
        graph=backbone.graph,
        backbone=backbone,
        shared=True,
        selection=Selection(np.empty(0, np.int64), np.empty((0, task.num_classes)), "nothing was held out"),
        features=lambda rows: pooled(task, backbone, rows),
        reference=lambda rows: pooled(task, backbone, rows),
        seconds=time.monotonic() - began,
        fold_accuracy=(),
        calibrated=False,
        trained_params=head.num_params,
        details=details,
        extraction=extraction,
    )


def _names(recipe: ZeroShot, seen: "seen_classes.Seen | None") -> list[str]:
    """The wanted classes, then those of the dataset that it learned from."""
    wanted = [one.name for one in recipe.classes]
    return [*wanted, *(name for name in (seen.names if seen and seen.labelled else ()) if name not in wanted)]


def _check_no_images_needed(recipe: ZeroShot) -> None:
    """Says why images are lacking that the door had reason to expect: classes may lie in the test split alone.

    Raises:
        JobFailure: dataset_invalid.
    """
    if recipe.approach in ("eszsl", "devise") or recipe.classes[0].attributes is not None:
        raise JobFailure(
            "dataset_invalid",
            "expected images of at least 2 seen classes outside the test split, since the recipe learns from them; "
            "found fewer; add images, or describe the classes in words",
        )


def pooled(task: Task, backbone: Prepared, rows: Rows) -> Float:
    """Features of rows under the unchanged backbone."""
    return features.pooled(task.context, task.index, rows, backbone, ("evaluate", 0.85, 0.9))[0]


def choose_backbone(task: Task) -> Prepared:
    """The job's backbone; for `auto`, the best that brings its classifier, or simply the best."""
    return next((one for one in task.backbones if read_classifier(one) is not None), task.backbones[0])


def read_classifier(backbone: Prepared) -> Known | None:
    """The ImageNet classifier of a backbone; None where it has none, or one of classes whose names nobody knows."""
    if backbone.classifier is None or backbone.provider == "user":
        return None
    rows_KD = load_file(backbone.classifier)["weight"]
    return Known(rows_KD) if len(rows_KD) == NUM_KNOWN else None


def classifier_missing(name: str) -> JobFailure:
    """The failure of a job that needs what a backbone does not have."""
    return JobFailure(
        "weights_unavailable",
        f"expected a backbone that brings its classifier of ImageNet's {NUM_KNOWN} classes; found {name} without one; "
        "take timm/tf_efficientnet_lite0, or give a dataset of seen classes",
    )


def wanted_vectors(recipe: ZeroShot, encoder: TextEncoder) -> Float:
    """Vectors of the wanted classes: their attributes at length 1, or what the encoder makes of their words.

    Shape:
        result: [C, E]
    """
    if recipe.classes[0].attributes is not None:
        return np.array([one.direction for one in recipe.classes], np.float32)
    vectors_CE = encoder.classes(
        [one.name for one in recipe.classes], [one.description or "" for one in recipe.classes]
    )
    text.check_apart([one.name for one in recipe.classes], vectors_CE)
    return vectors_CE


def from_text(
    approach: str, known: Known, encoder: TextEncoder, vectors_CE: Float, middle: Centre
) -> tuple[Head, dict[str, Any]]:
    """A head without any image.

    Shape:
        vectors_CE: [C, E]

    Returns:
        the head, and what the report says of it.
    """
    labels_KE = encoder.labels.vectors_KE
    mean_E = labels_KE.mean(0)
    meanings_KE, wanted_CE = labels_KE - mean_E, unit(vectors_CE - mean_E)
    by_text = semantic.spread(unit(meanings_KE) @ wanted_CE.T)
    classes_CE = (wanted_CE / by_text).astype(np.float32)
    moved_K = -known.rows_KD @ middle.mean_D
    if approach == "conse":
        return TextHead(known.rows_KD, moved_K, meanings_KE, classes_CE, TOP), {"top": TOP}
    fitted = semantic.fit_head_map(labels_KE, known.rows_KD)
    rows_CD = fitted.rows(vectors_CE)
    by_rows = semantic.spread(unit(known.rows_KD - known.rows_KD.mean(0)) @ rows_CD.T)
    details: dict[str, Any] = {
        "head_map": {"lambda": fitted.strength, "left_out_cosine": fitted.cosine, "num_classes": len(labels_KE)}
    }
    if approach == "head_map":
        bias_C = np.zeros(len(rows_CD), np.float32)
        return CosineHead(rows_CD.astype(np.float32), bias_C, middle.mean_D, by_rows), details
    details |= {"top": TOP, "spreads": {"head_map": by_rows, "conse": by_text}}
    rows = (rows_CD / by_rows).astype(np.float32)
    return TextHead(known.rows_KD, moved_K, meanings_KE, classes_CE, TOP, rows, middle.mean_D), details


def _centre(recipe: ZeroShot, task: Task, backbone: Prepared, seen: "seen_classes.Seen | None") -> Centre:
    """The mean that features are centred by: the dataset's own where there is one and nobody asked otherwise."""
    if seen is not None and recipe.centre != "shipped":
        assert task.context.document.dataset is not None
        what = f"train and validation images of the dataset {task.context.document.dataset.id}"
        return Centre(seen.features_PD.mean(0, dtype=np.float64).astype(np.float32), what, len(seen.features_PD))
    return centre.read(backbone)
