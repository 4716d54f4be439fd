"""What stands at the top of a report: the verdict, and what it means in one plain sentence."""

from collections.abc import Mapping
from typing import Any

from app.pages.figures import NONE, at, because, count, fixed, is_number, percent, points, rows, seconds, span

BASELINES = {
    "scratch": "a network from scratch",
    "source_only": "the source alone",
    "frozen": "the frozen probe",
}
WORDS = {"positive": "The transfer helped", "negative": "The transfer hurt", "none": "No evidence either way"}
TONES = {"positive": "good", "negative": "bad", "none": "even"}


def headline(document: Mapping[str, Any]) -> dict[str, Any]:
    """Title, sentence, key figures, and everything that a reader must be warned of."""
    verdict = at(document, "verdict")
    return {
        "title": WORDS.get(str(verdict), "No verdict"),
        "tone": TONES.get(str(verdict), "even"),
        "sentence": sentence(document),
        "served": served(document),
        "why": at(document, "served.why") or "",
        "figures": _figures(document),
        "flags": [
            *(
                {"code": str(row.get("code", "")), "message": str(row.get("message", ""))}
                for row in rows(document, "flags")
            ),
            *({"code": "warning", "message": str(text)} for text in at(document, "warnings") or []),
            *_unfinished(document),
        ],
    }


def _unfinished(document: Mapping[str, Any]) -> list[dict[str, str]]:
    """That a job has yet to fill in some of it, or could not."""
    told, reasons = at(document, "follow_up"), at(document, "not_computed")
    if not isinstance(told, Mapping) or told.get("state") in (None, "succeeded") or not isinstance(reasons, Mapping):
        return []
    return [{"code": "unfinished", "message": str(reasons.get(path))} for path in (told.get("fills") or [])[:1]]


def sentence(document: Mapping[str, Any]) -> str:
    """The verdict in words, with the figures that it stands on."""
    verdict = str(at(document, "verdict"))
    if at(document, "served.what") == "source_only":
        tried = len(at(document, "domain.candidates") or ()) > 1
        why = "no way of adapting it was clearly better" if tried else "no way of adapting it was tried"
        return f"The source alone is served: {why}."
    if verdict not in WORDS:
        return _open(document)
    name, found = _evidence(document)
    against = BASELINES.get(name, "the baseline")
    if not found:
        return f"Compared with {against} the verdict is {verdict}."
    share = abs(found["difference"]) if is_number(found.get("difference")) else None
    bounds = span(found.get("low"), found.get("high"), signed=True)
    where = f"on {count(found.get('num_samples'))} images ({found.get('what', '')})"
    if verdict == "none":
        return (
            f"The difference to {against} is {points(found.get('difference'))} points; its 95 % interval, {bounds}, "
            f"holds 0: {where} chance alone may explain it."
        )
    more = "more" if verdict == "positive" else "fewer"
    advice = "" if verdict == "positive" else _instead(document, against)
    return (
        f"Of 100 images it names {fixed(100 * share, 1) if share is not None else NONE} {more} right than {against} "
        f"does, {where}; the 95 % interval, {bounds} points, leaves 0 out.{advice}"
    )


def _instead(document: Mapping[str, Any], against: str) -> str:
    """What to do about a baseline that is better, or what was done."""
    told = at(document, "fallback")
    if not isinstance(told, Mapping):
        return f" Use {against} instead."
    returned = BASELINES.get(str(told.get("over")), str(told.get("over")))
    own = percent(at(document, "fallback.transfer.value"))
    return f" So {returned} is served instead; the transfer itself names {own} of the scored images right."


def _open(document: Mapping[str, Any]) -> str:
    reasons = at(document, "not_computed")
    unknown = reasons.get("verdict") if isinstance(reasons, Mapping) else None
    if unknown and "verdict" in (at(document, "follow_up.fills") or []):
        return f"There is no network from scratch to compare with ({because(unknown)})."
    skipped = at(document, "baselines_skipped.scratch")
    if unknown and unknown != skipped:
        return f"There was nothing to compare it on: {unknown}."
    why = f" ({because(skipped)})" if skipped else ""
    if at(document, "baselines.frozen"):
        silent = reasons.get("verdicts.vs_frozen") if isinstance(reasons, Mapping) else None
        found = at(document, "verdicts.vs_frozen") or silent or "nothing to compare it on"
        return f"There is no network from scratch to compare with{why}. Against the frozen probe: {found}."
    return f"There was nothing to compare it with{why}."


def _evidence(document: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """The comparison that the verdict is of, and its name."""
    order = ("source_only",) if at(document, "served.method") == "adapt" else ()
    for name in (*order, "scratch", "source_only", "frozen"):
        found = at(document, f"verdict_evidence.vs_{name}")
        if isinstance(found, Mapping):
            return name, found
        if at(document, f"verdicts.vs_{name}"):
            return name, {}
    return "", {}


def gain(document: Mapping[str, Any]) -> str:
    """The paired gain on the test split; empty where there is none."""
    found, reasons = at(document, "gain"), at(document, "not_computed")
    if not isinstance(found, Mapping) or not is_number(found.get("value")):
        why = reasons.get("gain") if isinstance(reasons, Mapping) else None
        return f"No gain: {why}." if why else ""
    if found.get("over") == "frozen" and not (found["value"] or found.get("low") or found.get("high")):
        return "What is served names every scored item as the frozen probe does."
    if at(document, "served.what") == found.get("over"):
        return "What is served is the source alone."
    over = BASELINES.get(str(found.get("over")), str(found.get("over")))
    told = f"On the scored items, {points(found['value'])} points against {over}"
    bounds = span(found.get("low"), found.get("high"), signed=True)
    told += f" ({bounds})" if bounds else ""
    reduction = found.get("relative_error_reduction")
    if is_number(reduction) and reduction:
        told += f"; {percent(abs(reduction))} of its errors are gone" if reduction > 0 else _more_errors(reduction)
    return f"{told}."


def _more_errors(reduction: float) -> str:
    return f"; errors are {fixed(1 - reduction, 1)} times as many"


def served(document: Mapping[str, Any]) -> str:
    """What was published, on what."""
    what, backbone = at(document, "served.what"), at(document, "served.backbone")
    return " on ".join(str(part) for part in (what, backbone) if part)


def _figures(document: Mapping[str, Any]) -> list[dict[str, str]]:
    metrics = at(document, "metrics") or {}
    seen = "test_accuracy" not in metrics and "test_seen_accuracy" in metrics
    prefix = "test_seen" if seen else "test"
    note = "seen classes only" if seen else ""
    found = [
        {
            "name": "Accuracy",
            "value": percent(metrics.get(f"{prefix}_accuracy")),
            "more": span(metrics.get(f"{prefix}_accuracy_low"), metrics.get(f"{prefix}_accuracy_high")) or note,
        },
        {
            "name": "Macro F1",
            "value": fixed(metrics.get(f"{prefix}_macro_f1")),
            "more": _between(metrics.get(f"{prefix}_macro_f1_low"), metrics.get(f"{prefix}_macro_f1_high")) or note,
        },
    ]
    worst = at(document, "worst_class")
    if isinstance(worst, Mapping):
        found.append(
            {"name": "Worst class", "value": percent(worst.get("recall")), "more": str(worst.get("label", ""))}
        )
    group = at(document, "worst_group")
    if isinstance(group, Mapping):
        found.append(
            {"name": "Worst group", "value": percent(group.get("accuracy")), "more": str(group.get("group", ""))}
        )
    num = metrics.get("num_test", metrics.get("num_test_seen"))
    found.append({"name": "Scored images", "value": count(num), "more": note})
    found.append({"name": "Took", "value": seconds(at(document, "cost.total_seconds")), "more": ""})
    return found


def _between(low: Any, high: Any) -> str:
    return f"{fixed(low)} to {fixed(high)}" if is_number(low) and is_number(high) else ""
