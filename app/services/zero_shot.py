"""What can be told at the door about a zero-shot transfer: whether its classes, dataset and backbone fit each other."""

from collections.abc import Sequence
from dataclasses import dataclass

from app.errors import BadRequest
from app.recipes import ZeroShot

FROM_IMAGES = ("eszsl", "devise")


@dataclass(frozen=True, slots=True)
class Source:
    """What a backbone brings for words to be compared with: ImageNet's classifier, a text tower, or neither."""

    name: str
    classifier: bool
    text_tower: bool


def check(recipe: ZeroShot, seen: Sequence[str], has_dataset: bool, source: Source) -> None:
    """Refuses what cannot work.

    Args:
        recipe: what is wanted.
        seen: classes of the job's dataset; none where it is absent or without labels.
        has_dataset: whether there is one.
        source: the backbone.

    Raises:
        BadRequest: codes dataset_missing, seen_classes_missing, attributes_not_text, classifier_missing,
            text_tower_missing, centre_unused.
    """
    if recipe.uses_text_tower(source.text_tower):
        _check_text_tower(recipe, source)
        return
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
    if not source.classifier and not (seen and recipe.approach in ("auto", *FROM_IMAGES)):
        other = "leave approach to auto" if seen else "give a labelled dataset of seen classes"
        raise BadRequest(
            "expected a backbone that brings its ImageNet classifier, which names are mapped to; found "
            f"{source.name} without one; take timm/tf_efficientnet_lite0, lite1 or lite2, or another of the catalogue, "
            f"or {other}",
            code="classifier_missing",
        )


def _check_text_tower(recipe: ZeroShot, source: Source) -> None:
    if not source.text_tower:
        raise BadRequest(
            f"expected a backbone with a text tower for clip; found {source.name} without one; take one of "
            "GET /api/v1/backbones?provider=open_clip, or leave approach to auto",
            code="text_tower_missing",
        )
    if recipe.classes[0].attributes is not None:
        raise BadRequest(
            "expected classes in words for clip; found attributes; leave them out or take eszsl",
            code="attributes_not_text",
        )
    if recipe.centre != "auto":
        raise BadRequest(
            f'expected no centre for clip, whose features meet the words as they are; found "{recipe.centre}"; leave '
            "centre out",
            code="centre_unused",
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
