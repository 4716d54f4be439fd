"""What can be told at the door about a zero-shot transfer: whether its classes, dataset and backbone fit each other."""

from collections.abc import Sequence

from app.errors import BadRequest
from app.recipes import ZeroShot

FROM_IMAGES = ("eszsl", "devise")


def check(recipe: ZeroShot, seen: Sequence[str], has_dataset: bool, bare: str | None) -> None:
    """Refuses what cannot work.

    Args:
        recipe: what is wanted.
        seen: classes of the job's dataset; none where it is absent or without labels.
        has_dataset: whether there is one.
        bare: the backbone's name where it brings no classifier of ImageNet, else None.

    Raises:
        BadRequest: codes dataset_missing, seen_classes_missing, attributes_not_text, classifier_missing.
    """
    if recipe.centre == "dataset" and not has_dataset:
        raise BadRequest(
            'expected a dataset for centre "dataset"; found none; give one, labelled or not, or leave centre out',
            code="dataset_missing",
        )
    from_images = recipe.approach in FROM_IMAGES or recipe.classes[0].attributes is not None
    if from_images and not seen:
        raise BadRequest(
            "expected a labelled dataset of seen classes, since eszsl, devise and attributes learn from their images; "
            "found none; give one, or describe the classes in words",
            code="seen_classes_missing",
        )
    if recipe.classes[0].attributes is not None:
        _check_attributes(recipe, seen)
    if bare is not None and not (seen and recipe.approach in ("auto", *FROM_IMAGES)):
        other = "leave approach to auto" if seen else "give a labelled dataset of seen classes"
        raise BadRequest(
            f"expected a backbone that brings its ImageNet classifier, which names are mapped to; found {bare} without "
            f"one; take timm/tf_efficientnet_lite0, lite1 or lite2, or another of the catalogue, or {other}",
            code="classifier_missing",
        )


def _check_attributes(recipe: ZeroShot, seen: Sequence[str]) -> None:
    if recipe.approach not in ("auto", *FROM_IMAGES):
        raise BadRequest(
            f"expected classes in words for {recipe.approach}; found attributes; leave them out or take eszsl",
            code="attributes_not_text",
        )
    listed = {one.name for one in recipe.classes} & set(seen)
    if len(listed) < 2:
        raise BadRequest(
            "expected attributes of at least 2 classes that the dataset has images of; found "
            f"{', '.join(map(repr, sorted(listed))) or 'none'}; list seen classes among the recipe's, with attributes",
            code="seen_classes_missing",
        )
