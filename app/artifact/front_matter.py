"""The metadata on top of a model card, in YAML, as hubs index it.

Dataset ids and licences are other people's text: every string is a double-quoted scalar, so that none can add a key.
"""

from collections.abc import Mapping
from typing import Any

from app import texts
from app.artifact.spec import Spec

# Licences that hubs know by these ids; any other is `other` with its own name.
HUB_LICENCES = frozenset(
    {
        "afl-3.0", "agpl-3.0", "apache-2.0", "bsd-2-clause", "bsd-3-clause", "bsd-3-clause-clear", "cc-by-4.0",
        "cc-by-nc-4.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-4.0", "cc-by-sa-4.0", "cc0-1.0", "gpl-2.0", "gpl-3.0",
        "lgpl-3.0", "mit", "mpl-2.0", "openrail", "unlicense",
    }
)  # fmt: skip
PIPELINES = {"classification": "image-classification", "multi_label": "image-classification"}

# Metric of a spec -> (its type on hubs, its name for readers). Intervals stand beside it as `_low` and `_high`.
METRICS = {
    "test_accuracy": ("accuracy", "Test accuracy"),
    "test_balanced_accuracy": ("balanced_accuracy", "Test balanced accuracy"),
    "test_macro_f1": ("f1", "Test macro F1"),
    "test_macro_precision": ("precision", "Test macro precision"),
    "test_macro_recall": ("recall", "Test macro recall"),
    "test_seen_accuracy": ("accuracy", "Test accuracy, seen classes only"),
    "test_seen_macro_f1": ("f1", "Test macro F1, seen classes only"),
    "test_seen_macro_recall": ("recall", "Test macro recall, seen classes only"),
    "val_accuracy": ("accuracy", "Validation accuracy"),
    "cv_accuracy_mean": ("accuracy", "Cross-validated accuracy, mean"),
    "cv_accuracy_std": ("accuracy_std", "Cross-validated accuracy, deviation"),
    "ece": ("ece", "Expected calibration error"),
}


def render(spec: Spec, model: str) -> str:
    """The block of YAML.

    Args:
        spec: of the bundle.
        model: the model's name in the registry.
    """
    return _yaml(document(spec, model))


def document(spec: Spec, model: str) -> dict[str, Any]:
    """The card's metadata, as hubs index it."""
    licence = spec.backbone.licence.lower()
    known = (
        {"license": licence} if licence in HUB_LICENCES else {"license": "other", "license_name": spec.backbone.licence}
    )
    method = spec.recipe.get("method")
    pipeline = PIPELINES.get(spec.task)
    metrics = measured(spec)
    found: dict[str, Any] = {**known, "library_name": "onnx"}
    if pipeline:
        found["pipeline_tag"] = pipeline
    found["tags"] = ["graft", "onnx", "transfer-learning", *([method] if isinstance(method, str) else [])]
    if spec.dataset:
        found["datasets"] = [spec.dataset.id]
    if metrics:
        found["metrics"] = list(dict.fromkeys(METRICS[name][0] for name in metrics))
    if not spec.backbone.is_from_scratch:
        found["base_model"] = spec.backbone.name
    results = _results(spec, pipeline, metrics) if spec.dataset and pipeline and metrics else []
    found["model-index"] = [{"name": model, "results": results}]
    return found


def measured(spec: Spec) -> dict[str, int | float]:
    """The metrics of a spec that a card shows and that are numbers."""
    return {name: value for name in METRICS if (value := spec.metrics.get(name)) is not None}


def _results(spec: Spec, pipeline: str, metrics: Mapping[str, int | float]) -> list[dict[str, Any]]:
    assert spec.dataset is not None
    return [
        {
            "task": {"type": pipeline},
            "dataset": {"type": spec.dataset.id, "name": spec.dataset.id, "revision": spec.dataset.digest},
            "metrics": [
                {"type": METRICS[name][0], "value": value, "name": METRICS[name][1]} for name, value in metrics.items()
            ],
        }
    ]


def _yaml(value: Any, indent: str = "") -> str:
    """Nested dicts, lists and scalars as block YAML."""
    if isinstance(value, dict):
        return "".join(f"{indent}{key}:{_nested(item, indent)}" for key, item in value.items())
    return "".join(f"{indent}- {_yaml(item, indent + '  ').removeprefix(indent + '  ')}" if isinstance(item, dict)
                   else f"{indent}- {texts.in_yaml(item)}\n" for item in value)  # fmt: skip


def _nested(value: Any, indent: str) -> str:
    if isinstance(value, dict | list) and value:
        return "\n" + _yaml(value, indent + "  ")
    return f" {texts.in_yaml(value)}\n"
