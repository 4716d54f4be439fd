"""The model card: README.md in the form that model hubs read (YAML front matter, then prose and tables).

Class names, dataset ids and licences are other people's text: in Markdown every special character is escaped, so that
no name can end a table or start a tag.
"""

import json
import re
import string
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from app import texts
from app.artifact import front_matter
from app.artifact.precisions import WORDS, Second, SecondGraph
from app.artifact.sample import Sample
from app.artifact.spec import Spec

_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "&#124;", "\\": "&#92;"}


def render(spec: Spec, report: Mapping[str, Any], model: str, sample: Sample | None = None) -> str:
    """The whole card.

    Args:
        spec: of the bundle.
        report: the transfer report; of it, `verdict`, `baselines` ({name: {value, low, high, what} or None}) and
            `per_class` (rows of label, num_samples, precision, recall, f1) are shown when they are there, and
            `flags` ({code, message}) and `warnings` (sentences) under the limits. Of `follow_up` the keys that are
            filled in later are named, and where they will be read; of `data` the `splits`, the samples of each that
            were looked at.
        model: the model's name in the registry; it is part of an address, so its form is checked.
        sample: of the bundle: whoever gets the bundle is told of the images in it.

    Raises:
        ValueError: the model's name is not one that the registry allows.
    """
    if not texts.is_name(model):
        raise ValueError(f"expected a model name of letters, digits, '.', '_' and '-'; found {model!r}; rename it")
    parts = [
        f"---\n{front_matter.render(spec, model)}---",
        f"# {text(model)}",
        _summary(spec),
        "## Intended use",
        _intended_use(spec),
        "## Data",
        "\n\n".join([_data(spec, report), *_sample(sample)]),
        "## Evaluation",
        _evaluation(spec, report),
        "## Results per class",
        _per_class(report),
        "## Limits",
        _limits(spec, report),
        "## How to call it",
        _calls(spec, model),
        "## How it was made",
        _recipe(spec),
    ]
    return "\n\n".join(parts) + "\n"


def text(value: str) -> str:
    """Any string as plain inline Markdown, safe in a table cell; what cannot be printed is shown as its code point."""
    return "".join(_inline(char) for char in value)


def _inline(char: str) -> str:
    if char in _ENTITIES:
        return _ENTITIES[char]
    if not char.isprintable():
        return f"&#92;u{{{ord(char):x}}}"
    return "\\" + char if char in string.punctuation else char


def _summary(spec: Spec) -> str:
    if spec.backbone.is_from_scratch:
        return (
            f"A {text(spec.task.replace('_', ' '))} model for {len(spec.labels)} classes, a network that learned from "
            "its dataset alone. Transfer learning was tried, and was worse on images that neither had learned from."
        )
    return (
        f"A {text(spec.task.replace('_', ' '))} model for {len(spec.labels)} classes, made by transfer learning from "
        f"{text(spec.backbone.name)} (licence: {text(spec.backbone.licence or 'not stated')})."
    )


def _intended_use(spec: Spec) -> str:
    shape = spec.preprocess
    known = (
        "that it was told in words or attributes"
        if spec.recipe.get("method") == "zero_shot"
        else "that it was trained on, for images like those of the training data"
    )
    return (
        f"Naming the class of a whole image, one of the {len(spec.labels)} {known}. Images are resized to "
        f"{shape.width} x {shape.height} pixels. The model gives a probability for each class and a feature vector for "
        "search or further training."
    )


def _data(spec: Spec, report: Mapping[str, Any]) -> str:
    if spec.dataset is None:
        return "The model was made without a dataset."
    splits = spec.dataset.splits
    looked_at = (report.get("data") or {}).get("splits") or splits
    columns, rows = ["Split", "Samples"], [[text(name), str(count)] for name, count in splits.items()]
    if looked_at != splits:
        columns.append("Looked at")
        rows = [[*row, str(looked_at.get(name, 0))] for name, row in zip(splits, rows, strict=True)]
    head = f"Dataset {text(spec.dataset.id)}, digest {text(spec.dataset.digest)}."
    shown = f"{head}\n\n{_table(columns, rows)}"
    if spec.source is None:
        return shown
    counts = [(text(name), str(count)) for name, count in spec.source.splits.items()]
    source = f"Labels were learned from another dataset, {text(spec.source.id)}, digest {text(spec.source.digest)}."
    return f"{shown}\n\n{source}\n\n{_table(('Split', 'Samples'), counts)}"


def _sample(sample: Sample | None) -> list[str]:
    if sample is None or not sample.training:
        return []
    num = len(sample.pictures)
    return [
        f"`sample.safetensors` holds small copies of {num} training image{'s' * (num > 1)}, which the model is tried "
        "on before it is served: whoever has the bundle has them."
    ]


def _evaluation(spec: Spec, report: Mapping[str, Any]) -> str:
    metrics = front_matter.measured(spec)
    parts = []
    if metrics:
        rows = [
            (front_matter.METRICS[name][1], _number(value), _interval(spec.metrics, name))
            for name, value in metrics.items()
        ]
        parts.append(_table(("Metric", "Value", "95 % interval"), rows))
    elif spec.added is not None:
        parts.append("The model has not been evaluated since its last class was added; nothing is known of that class.")
    else:
        parts.append("Nothing was measured: there were no labelled images to measure on.")
    verdict = report.get("verdict")
    if verdict is not None:
        adapted = (report.get("served") or {}).get("method") == "adapt"
        against = "the source alone" if adapted else "training from scratch"
        told = f"Verdict on the transfer against {against}: {text(str(verdict))}."
        back = report.get("fallback")
        parts.append(f"{told} What is served is not the transfer: {text(back['why'])}." if back else told)
    baselines = {name: row for name, row in (report.get("baselines") or {}).items() if row is not None}
    if baselines:
        compared = [
            (text(name), text(str(row["what"])), _number(row["value"]), _range(row["low"], row["high"]))
            for name, row in baselines.items()
        ]
        parts.append("Baselines:\n\n" + _table(("Baseline", "What", "Value", "95 % interval"), compared))
    parts += [_second(precision, found) for precision, found in spec.second.items()]
    parts += _later(report.get("follow_up"))
    return "\n\n".join(parts)


def _later(follow_up: Mapping[str, Any] | None) -> list[str]:
    if not follow_up:
        return []
    keys = ", ".join(f"`{key}`" for key in follow_up["fills"])
    return [
        f"Not known yet when this card was written: {keys} of the report. A job that follows computes them; the "
        "service has the whole report, by the version's `job_id`: `GET /api/v1/jobs/{job_id}/report`."
    ]


def _second(precision: Second, found: SecondGraph) -> str:
    change = f"{found.accuracy_change:+.4f} ({found.accuracy_change_low:+.4f} to {found.accuracy_change_high:+.4f})"
    size = found.size_bytes / found.float_size_bytes
    return (
        f"`backbone.{precision}.onnx` is the backbone in {WORDS[precision]}, calibrated on {found.num_calibration} "
        f"training images. With it accuracy changes by {change} on {found.num_samples} items ({text(found.what)}); it "
        f"has {size:.2f} of the size and takes {found.latency_ratio_alone:.2f} of the time for one image, "
        f"{found.latency_ratio_batch:.2f} for a batch, on {text(found.machine)}. It answers where it is asked for with "
        f"`precision={precision}`."
    )


def _per_class(report: Mapping[str, Any]) -> str:
    rows = [
        (text(row["label"]), str(row["num_samples"]), *(_number(row[name]) for name in ("precision", "recall", "f1")))
        for row in report.get("per_class") or []
    ]
    if not rows:
        return "Not measured."
    return _table(("Class", "Samples", "Precision", "Recall", "F1"), rows)


def _limits(spec: Spec, report: Mapping[str, Any]) -> str:
    calibration = (
        f"Probabilities are calibrated by one temperature ({spec.temperature:.3g}), for images like the training data."
        if spec.calibrated
        else "Probabilities are not calibrated: they rank classes, they do not say how often the model is right."
    )
    reach = (
        "The figures hold for images like those of the test split; from another camera, style or place expect less."
        if front_matter.measured(spec)
        else "How well it names images is not known until it is evaluated on labelled ones."
    )
    told = [*(flag["message"] for flag in report.get("flags") or []), *(report.get("warnings") or [])]
    lines = [
        *(f"{text(warning[0].upper() + warning[1:])}." for warning in told),
        "It always names one of its classes, also for an image that shows none of them.",
        calibration,
        reach,
        "It inherits what its backbone learnt, biases included, and its backbone's licence.",
    ]
    return "\n".join(f"- {line}" for line in lines)


def _calls(spec: Spec, model: str) -> str:
    address = f"http://127.0.0.1:8000/api/v1/models/{model}/predict"
    shape = spec.preprocess
    commands = f"curl -F file=@first.jpg -F file=@second.png '{address}?top_k=3'\n"
    commands += f"curl -H 'Content-Type: image/jpeg' --data-binary @first.jpg '{address}'"
    return (
        f"{_fenced(commands, 'sh')}\n\n"
        f"`model.onnx` takes `images` uint8 [N, {shape.height}, {shape.width}, 3]: RGB, shorter side to {shape.resize} "
        f"pixels ({text(shape.interpolation)}), centre crop; normalisation is inside. It gives `probabilities` "
        f"[N, {len(spec.labels)}], in the order of the labels in `spec.json`, and `features` "
        f"[N, {spec.backbone.feature_dim}]."
    )


def _recipe(spec: Spec) -> str:
    added = spec.added
    grown = (
        f"The class {text(added.label)} was added to version {added.version} of {text(added.model)} from "
        f"{added.num_images} image{'s' * (added.num_images > 1)} ({added.how}), without training. "
        if added
        else ""
    )
    made = f"{grown}Seed {spec.seed}, {spec.created_at.date().isoformat()}. "
    parity = spec.parity
    proof = (
        f"On {parity.num_samples} images the published graph's probabilities differ from the trained model's by "
        f"at most {parity.max_abs:.2g}."
    )
    rows = [(text(name), text(version)) for name, version in sorted(spec.libraries.items())]
    versions = f"\n\n{_table(('Library', 'Version'), rows)}" if rows else ""
    return f"{made}{proof}\n\n{_fenced(json.dumps(spec.recipe, indent=2), 'json')}{versions}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _fenced(content: str, language: str) -> str:
    """A code block whose fence is longer than any run of backticks inside."""
    longest = max((len(run) for run in re.findall("`+", content)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{content}\n{fence}"


def _interval(metrics: Mapping[str, int | float | None], name: str) -> str:
    return _range(metrics.get(f"{name}_low"), metrics.get(f"{name}_high"))


def _range(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{low:.3f} to {high:.3f}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
