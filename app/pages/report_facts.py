"""Tables of a report's page about what was done, with what and at which cost."""

import json
from collections.abc import Mapping
from typing import Any

from app.pages.figures import at, count, facts, fixed, is_number, number, percent, points, rows, seconds, size, span

Document = Mapping[str, Any]

# What a page shows of long lists; the JSON has all.
TENSORS, EXPOSED = 300, 40
# Of the free-form details, before they are cut.
DETAILS_CHARS = 20_000


def domain(document: Document) -> dict[str, Any]:
    """Distances before and after, and the candidates."""
    found = at(document, "domain") or {}
    names = {
        "proxy_a": "Proxy A-distance (0 alike, 2 apart)",
        "mmd": "MMD, squared",
        "coral": "CORAL",
        "frechet": "Fréchet, on our features",
    }
    values = [(name, at(found, f"before.{key}"), at(found, f"after.{key}")) for key, name in names.items()]
    return {
        "rows": [
            {"name": name, "before": number(before), "after": number(after)}
            for name, before, after in values
            if before is not None or after is not None
        ],
        "facts": facts(
            [
                ("Source images", found.get("num_source"), count),
                ("Target images", found.get("num_target"), count),
                ("Chosen by", found.get("validator"), str),
            ]
        ),
        "candidates": [_candidate(row) for row in rows(found, "candidates")],
    }


def _candidate(row: Mapping[str, Any]) -> dict[str, Any]:
    known = ("name", "served", "oracle_accuracy")
    told = [f"{key.replace('_', ' ')} {number(value)}" for key, value in row.items() if key not in known]
    return {
        "name": str(row.get("name", "")),
        "served": bool(row.get("served")),
        "told": ", ".join(told),
        "oracle": percent(row.get("oracle_accuracy")),
    }


def robustness(document: Document) -> dict[str, Any]:
    """One row for each corruption."""
    found = at(document, "robustness") or {}
    return {
        "clean": percent(found.get("accuracy")),
        "num": count(found.get("num_images")),
        "of": count(found.get("num_test")),
        "what": str(found.get("what") or ""),
        "mean": percent(found.get("mean_accuracy")),
        "mean_change": points(found.get("mean_change")),
        "rows": [
            {
                "name": str(row.get("name", "")),
                "what": str(row.get("what", "")),
                "accuracy": percent(row.get("accuracy")),
                "change": points(at(row, "change.value")),
                "interval": span(at(row, "change.low"), at(row, "change.high"), signed=True),
                "bad": is_number(at(row, "change.high")) and at(row, "change.high") < 0,
            }
            for row in rows(found, "corruptions")
        ],
    }


def strangers(document: Document) -> dict[str, Any]:
    """AUROC of each score."""
    found = at(document, "out_of_distribution") or {}
    names = {"max_softmax": "largest probability", "energy": "energy", "nearest": "nearest training images"}
    missing = (at(document, "not_computed") or {}).get("out_of_distribution.auroc.nearest")
    return {
        "rows": [(label, percent(at(found, f"auroc.{key}"))) for key, label in names.items() if at(found, "auroc")],
        "familiar": count(found.get("num_familiar")),
        "strange": count(found.get("num_strange")),
        "what": str(found.get("what") or ""),
        "synthetic": bool(found.get("synthetic")),
        "missing": missing,
    }


def mapping(document: Document) -> dict[str, Any]:
    """Parameters, and tensors by what became of them."""
    found = at(document, "mapping") or {}
    tensors = rows(found, "tensors")
    sums: dict[str, list[int]] = {}
    for row in tensors:
        entry = sums.setdefault(str(row.get("what", "")), [0, 0])
        entry[0] += 1
        entry[1] += _elements(row.get("shape"))
    return {
        "facts": facts(
            [
                ("Backbone", found.get("backbone"), str),
                ("Parameters of the backbone", found.get("parameters"), count),
                ("came over", found.get("mapped"), count),
                ("stayed as they were", found.get("frozen"), count),
                ("Trained in this job", found.get("trained"), count),
                ("New, in the head", found.get("new"), count),
            ]
        ),
        "sums": [(what, count(num), count(elements)) for what, (num, elements) in sums.items()],
        "buffers": _buffers(
            sum(elements for what, (_, elements) in sums.items() if what not in ("new", "measured")), found
        ),
        "measured": count(sums["measured"][1]) if "measured" in sums else "",
        "tensors": [
            (str(row.get("name", "")), " x ".join(map(str, row.get("shape") or [])), str(row.get("what", "")))
            for row in tensors[:TENSORS]
        ],
        "hidden": max(0, len(tensors) - TENSORS),
    }


def _buffers(num_values: int, mapping: Mapping[str, Any]) -> str | None:
    """How many values of the backbone's tensors are no parameters, since the two counts stand side by side."""
    parameters = mapping.get("parameters")
    if not isinstance(parameters, int) or num_values <= parameters:
        return None
    return count(num_values - parameters)


def _elements(shape: Any) -> int:
    total = 1
    for side in shape or []:
        total *= int(side)
    return total


def distortion(document: Document, reason: str | None) -> dict[str, Any]:
    """How far training moved the features, or why nobody looked."""
    found = at(document, "feature_distortion")
    if not isinstance(found, Mapping):
        return {"facts": [], "missing": reason, "what": "", "stages": []}
    other = found.get("other_images") or {}
    elsewhere = {str(row.get("stage", "")): fixed(row.get("linear_cka")) for row in rows(other, "stages")}
    stages = [(str(row.get("stage", "")), fixed(row.get("linear_cka"))) for row in rows(found, "stages")]
    return {
        "facts": facts(
            [
                ("Features moved by, of their length", found.get("mean_relative_change"), percent),
                ("Linear CKA (1 alike, 0 unrelated)", found.get("linear_cka"), fixed),
                ("Images", found.get("num_samples"), count),
                ("Features of other images moved by", other.get("mean_relative_change"), percent),
                ("Linear CKA on these", other.get("linear_cka"), fixed),
                ("Which these are", other.get("what"), str),
            ]
        ),
        "stages": [(name, value, elsewhere.get(name, "")) for name, value in stages],
        "missing": None,
        "what": str(found.get("what") or ""),
    }


def decisions(document: Document) -> list[dict[str, str]]:
    """As they were made."""
    return [
        {
            "step": str(row.get("step", "")),
            "outcome": str(row.get("outcome", "")),
            "reason": str(row.get("reason", "")),
            "score": fixed(row.get("score")) if is_number(row.get("score")) else "",
            "interval": _plain(row.get("low"), row.get("high")),
            "seconds": seconds(row.get("seconds")) if is_number(row.get("seconds")) else "",
            "forecast": seconds(row.get("forecast_seconds")) if is_number(row.get("forecast_seconds")) else "",
        }
        for row in rows(document, "decisions")
    ]


def _plain(low: Any, high: Any) -> str:
    return f"{fixed(low)} to {fixed(high)}" if is_number(low) and is_number(high) else ""


def data(document: Document) -> dict[str, Any]:
    """Dataset, splits, leakage, exposure, lineage."""
    found = at(document, "data") or {}
    splits = found.get("splits") or {}
    leaks = found.get("leakage") or {}
    exposed = found.get("exposure") or at(document, "backbone_exposure") or {}
    items = at(found, "lineage.items") or {}
    listed = rows(exposed, "classes")
    num_same = sum(row.get("by") == "name" for row in listed)
    return {
        "facts": [
            *facts([("Dataset", found.get("dataset"), str), ("Digest", found.get("digest"), str)]),
            *((f"Images, {name}", count(value)) for name, value in splits.items()),
            *facts(
                [
                    ("Classes", found.get("num_classes"), count),
                    ("Images in the median class", found.get("images_per_class_median"), count),
                    ("in the smallest", found.get("images_per_class_min"), count),
                    ("Source", at(found, "source.dataset"), str),
                    ("Source images learned from", at(found, "source.images_learned_from"), count),
                    ("Scored", found.get("scored"), str),
                ]
            ),
        ],
        "leaks": facts(
            [
                ("Scored images", leaks.get("num_test"), count),
                ("equal to one that was learned from", leaks.get("num_exact"), count),
                ("that look like one (pHash)", leaks.get("num_phash"), count),
                ("with features like one's (cosine)", leaks.get("num_cosine"), count),
                ("that surely are copies", leaks.get("num_copies"), count),
                ("of these, learned before by the backbone", leaks.get("num_through_backbone"), count),
                ("Accuracy with all", leaks.get("accuracy_with"), percent),
                ("Accuracy without the sure copies", leaks.get("accuracy_without_copies"), percent),
                ("Accuracy without any of these", leaks.get("accuracy_without"), percent),
            ]
        ),
        "exposure": [_exposed(row) for row in listed[:EXPOSED]],
        "exposure_hidden": max(0, len(listed) - EXPOSED),
        "exposure_note": str(exposed.get("note") or ""),
        "exposure_of": f"{count(num_same)} of {count(exposed['num_classes'])}"
        if exposed.get("num_classes")
        else count(num_same),
        "exposure_guessed": count(len(listed) - num_same) if len(listed) > num_same else "",
        "label_set": str(exposed.get("label_set") or ""),
        "no_exposure": (at(document, "not_computed") or {}).get("data.exposure"),
        "lineage": facts(
            [
                ("Test items that were traced", items.get("num_test"), count),
                ("that this model or its backbone has learned from", items.get("num_seen_before"), count),
                ("that only look like one of these", items.get("num_look_alike"), count),
                ("Not known", at(found, "lineage.unknown"), str),
            ]
        ),
        "seen_in": [
            (str(row.get("what", "")), str(row.get("id", "")), count(row.get("num_items")))
            for row in rows(items, "seen_in")
        ],
    }


def _exposed(row: Mapping[str, Any]) -> tuple[str, str, str]:
    """Its name, the pretraining's class (where there are more, how many at least), and by what it was found."""
    taught, num = str(row.get("pretraining_class", "")), int(row.get("num_pretraining_classes") or 1)
    more = f" and {count(num - 1)} more at least" if num > 1 else ""
    return str(row.get("name", "")), f"{taught.partition(',')[0]}{more}" if more else taught, str(row.get("by", ""))


def cost(document: Document) -> dict[str, Any]:
    """Time, memory, energy."""
    found = at(document, "cost") or {}
    energy = found.get("energy_proxy") or {}
    return {
        "facts": facts(
            [
                ("Whole job", found.get("total_seconds"), seconds),
                ("Of that, attempts that were lost", found.get("earlier_seconds") or None, seconds),
                ("The transfer itself", found.get("transfer_seconds"), seconds),
                ("Baselines, afterwards", found.get("baselines_seconds"), seconds),
                ("Extraction of features", found.get("extraction_seconds"), seconds),
                ("Images extracted", found.get("images_extracted"), count),
                ("Images from the cache", found.get("images_cached"), count),
                ("Extracted images per second", found.get("images_per_second"), number),
                ("Trained images per second", at(document, "details.images_per_second"), number),
                ("Trained parameters", found.get("trained_params"), count),
                ("Peak memory", found.get("peak_memory_bytes"), size),
                ("Peak GPU memory", found.get("peak_gpu_memory_bytes"), size),
                ("Processor time", energy.get("cpu_seconds"), seconds),
                ("GPU time", energy.get("gpu_seconds"), seconds),
                ("Device", found.get("device"), str),
                ("Precision", found.get("precision"), str),
            ]
        ),
        "note": str(energy.get("note") or ""),
    }


def details(document: Document) -> str:
    """What a recipe tells beyond the shared parts, as JSON; cut where it is long."""
    found = at(document, "details")
    if not found:
        return ""
    told = json.dumps(found, indent=1, ensure_ascii=False)
    if len(told) > DETAILS_CHARS:
        told = f"{told[:DETAILS_CHARS]}\n… {count(len(told) - DETAILS_CHARS)} characters more in the JSON"
    return told
