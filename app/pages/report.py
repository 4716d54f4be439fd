"""The page of a transfer report: the JSON document turned into what the templates need. No statistics are computed.

A document may be of any version of Graft: what it lacks is shown as not computed, with the reason where it gives one.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from app.pages import charts, headline, maps, report_facts
from app.pages import report_tables as tables
from app.pages.figures import at, because, is_number, rows, short
from app.pages.render import render as render_page

Document = Mapping[str, Any]

OLDER = "this report does not have it"
# Sections in their order: id, title, the key that they stand on, and what they tell.
SECTIONS: tuple[tuple[str, str, str, str], ...] = (
    (
        "gain",
        "Gain over the baselines",
        "baselines",
        "The same test images, named by what a user could have had instead.",
    ),
    ("forecast", "Forecast", "forecast", "What was expected before training, from the frozen features alone."),
    (
        "classes",
        "Classes",
        "per_class",
        "Worst first. Precision: how many that are called so are. Recall: how many are found.",
    ),
    (
        "confusion",
        "Confusion",
        "confusion",
        "Rows are true classes, columns what they were called; colour is the row's share.",
    ),
    ("calibration", "Calibration", "calibration", "Whether a probability can be believed."),
    (
        "estimate",
        "Estimate without labels",
        "estimate",
        "What the model's confidence alone says of its accuracy on the scored images; of a target without labels, all "
        "that can be said.",
    ),
    (
        "curve",
        "Learning curve",
        "curve",
        "Accuracy of the probe on frozen features with fewer labels, not on the test split.",
    ),
    ("training", "Training", "details.curve", "Accuracy on the hold-out after each epoch; epoch 0 is the probe."),
    ("map", "Feature map", "feature_map", "The two directions in which features differ most: a picture, not a proof."),
    ("domain", "Source and target", "domain", "How far apart the two domains are, and every way that was tried."),
    ("robustness", "Robustness", "robustness", "The same test images, mildly spoiled."),
    (
        "strangers",
        "Images of no class",
        "out_of_distribution",
        "How often a familiar image scores above a strange one; 50 % is a coin.",
    ),
    ("mapping", "What moved", "mapping", "What became of the backbone's parameters."),
    ("decisions", "Decisions", "decisions", "In the order of time."),
    ("data", "Data", "data", "What it learned from and was scored on."),
    (
        "cost",
        "Cost",
        "cost",
        "Of this job's last attempt; what a job that followed has computed is of that one.",
    ),
)


def render(document: Document, job_id: str, adapted: Sequence[Document] = ()) -> str:
    """HTML of one report.

    Args:
        document: as the API answers it.
        job_id: of the job; the title has it where the document does not name one.
        adapted: the project's finished adaptations, as `services.adapted` has them; one is shown among the others.
    """
    sections = [
        {"id": name, "title": title, "what": what, "missing": missing(document, key)}
        for name, title, key, what in SECTIONS
        if key not in ("details.curve", "domain") or at(document, key) or reason(document, key)
    ]
    return render_page(
        "report.html",
        job=at(document, "job") or job_id,
        sections=sections,
        top=headline.headline(document),
        view=view(document, charts.gains(adapted, job_id)),
        details=report_facts.details(document),
        short=short,
    )


def missing(document: Document, key: str) -> str | None:
    """Why a section has nothing to show; None where it has."""
    if at(document, key) not in (None, [], {}):
        return None
    if key == "decisions":
        return "the recipe had nothing to decide"
    # Where nothing was scored, the document says so once and not for each key.
    unscored = None
    if not at(document, "metrics.num_test") and not at(document, "metrics.num_test_seen"):
        unscored = at(document, "data.scored") or at(document, "measured")
    return because(reason(document, key) or unscored or OLDER)


def reason(document: Document, key: str) -> str | None:
    """Why a key is null, from wherever the document says it."""
    given = at(document, "not_computed")
    told = given.get(key) if isinstance(given, Mapping) else None
    if not told and key == "curve":
        told = at(document, "baselines_skipped.scratch")
    told = told or at(document, f"{key}_skipped")
    return str(told) if told else None


def view(document: Document, gains: charts.Chart | None) -> dict[str, Any]:
    """Everything that the sections show, by the section's id."""
    return {
        "gain": _gain(document),
        "forecast": tables.forecast(document),
        "classes": tables.classes(document),
        "confusion": {
            "chart": maps.confusion(at(document, "confusion")),
            "pairs": tables.confused(document),
        },
        "calibration": _calibration(document),
        "estimate": tables.estimate(document),
        "curve": _curve(document),
        "training": {
            "chart": charts.epochs(rows(document, "details.curve"), _kept(document)),
            "facts": tables.training(document),
        },
        "map": _maps(document),
        "domain": {**report_facts.domain(document), "gains": gains},
        "robustness": report_facts.robustness(document),
        "strangers": report_facts.strangers(document),
        "mapping": _mapping(document),
        "decisions": report_facts.decisions(document),
        "data": report_facts.data(document),
        "cost": report_facts.cost(document),
    }


def _gain(document: Document) -> dict[str, Any]:
    # Where a baseline is served in its place, the metrics are that one's.
    transfer = at(document, "fallback.transfer") or {
        "value": at(document, "metrics.test_accuracy"),
        "low": at(document, "metrics.test_accuracy_low"),
        "high": at(document, "metrics.test_accuracy_high"),
    }
    entries, told = [{**transfer, "label": "this transfer"}], []
    for name, label in headline.BASELINES.items():
        found = at(document, f"baselines.{name}")
        # The frozen probe of an adaptation is the source's: both names mean the same there.
        same = name == "frozen" and found == at(document, "baselines.source_only")
        if found and not same:
            entries.append({**found, "label": label})
            told.append((label, str(found.get("what", ""))))
    return {
        "chart": charts.intervals(entries),
        "what": told,
        "skipped": tables.skipped(document),
        "evidence": tables.evidence(document),
        "spread": tables.spread(document),
        "sentence": headline.gain(document),
    }


def _calibration(document: Document) -> dict[str, Any]:
    found = at(document, "calibration")
    return {
        "chart": charts.reliability(rows(found, "bins")),
        "risk": charts.risk(rows(found, "risk_coverage.points")),
        "facts": tables.calibration(document),
        "effect": tables.temperature(document),
        "no_risk": None if at(found, "risk_coverage") else reason(document, "calibration.risk_coverage"),
    }


def _curve(document: Document) -> dict[str, Any]:
    found = at(document, "curve")
    return {"chart": charts.curve(found), "facts": tables.curve(found), "needed": tables.labels_needed(found)}


def _maps(document: Document) -> list[dict[str, Any]]:
    drawn = []
    for path in ("feature_map", "feature_map.after"):
        chart = maps.feature_map(at(document, path))
        if chart:
            shares = at(document, f"{path}.explained") or []
            known = [value for value in shares if is_number(value)]
            names = [
                f"{name} direction" + (f", {100 * share:.0f} % of the variance" if share is not None else "")
                for name, share in zip(("first", "second"), [*known, None, None], strict=False)
            ]
            drawn.append(
                {
                    "chart": chart,
                    "what": at(document, f"{path}.what") or "features",
                    "share": sum(known),
                    "names": names,
                }
            )
    return drawn


def _kept(document: Document) -> list[Any]:
    """Epochs that are served: those of the soup, or the best one."""
    soup = at(document, "details.soup")
    return soup if isinstance(soup, list) and soup else [at(document, "details.best_epoch")]


def _mapping(document: Document) -> dict[str, Any]:
    found = at(document, "details.factors")
    return {
        **report_facts.mapping(document),
        "alpha": maps.factors(found, "alpha", 1.0),
        "beta": maps.factors(found, "beta", 0.0),
        "distortion": report_facts.distortion(document, reason(document, "feature_distortion")),
    }
