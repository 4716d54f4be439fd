"""The page of advice: findings by kind, the telling ones with small pictures."""

import base64
from collections.abc import Mapping
from typing import Any

from app.advice import AGAINST
from app.pages.render import render as render_page

# Findings of a kind that the page shows in full; the rest is one line each, up to a limit.
CARDS, LINES = 60, 300
PICTURES = 6

TITLES: dict[str, str] = {
    "label_error": "Labels that are probably wrong",
    "near_duplicate": "Pictures that are there more than once",
    "outlier": "Images far from all others of their class",
    "confused_classes": "Classes that are taken for each other",
    "small_class": "Small classes",
    "imbalanced": "Uneven classes",
    "drift": "Differences to the other dataset",
}


def render(document: dict[str, Any], thumbnails: Mapping[str, bytes]) -> str:
    """HTML of one study of advice, in whatever state it is.

    Args:
        document: as the API answers it.
        thumbnails: small JPEGs by sample id; behind AGAINST those of the other dataset.
    """
    result = document["result"] or {}
    by_kind: dict[str, list[dict[str, Any]]] = {kind: [] for kind in TITLES}
    for finding in result.get("findings", []):
        by_kind[finding["kind"]].append(finding)
    pictures = {name: "data:image/jpeg;base64," + base64.b64encode(data).decode() for name, data in thumbnails.items()}
    sections = [
        {
            "kind": kind,
            "title": TITLES[kind],
            "count": result["counts"].get(kind),
            "reason": result["not_searched"].get(kind),
            "searched": kind in result["counts"],
            "cards": [_card(one, result, pictures) for one in findings[:CARDS]],
            "lines": findings[CARDS : CARDS + LINES],
            "hidden": max(0, (result["counts"].get(kind) or 0) - CARDS - LINES),
            "appliable": any(one["suggestion"]["action"] != "look" for one in findings),
        }
        for kind, findings in by_kind.items()
        if result
    ]
    return render_page("advice.html", advice=document, result=result, sections=sections, num_pictures=len(pictures))


def _card(finding: dict[str, Any], result: dict[str, Any], pictures: dict[str, str]) -> dict[str, Any]:
    """One finding with its images: those that have a picture, else the first by name; and some of the other dataset."""
    names = finding["samples"]
    changed = set(finding["suggestion"]["samples"])
    shown = sorted(names, key=lambda name: name not in pictures)[:PICTURES]
    images = [
        {**result["samples"][name], "id": name, "picture": pictures.get(name), "changed": name in changed}
        for name in shown
    ]
    # Advice that was made before they were kept has none.
    against = [
        {**result["samples_against"][name], "id": name, "picture": pictures.get(f"{AGAINST}{name}"), "changed": False}
        for name in finding.get("samples_against", [])
    ]
    return {**finding, "images": images, "more": finding["num_samples"] - len(images), "against": against}
