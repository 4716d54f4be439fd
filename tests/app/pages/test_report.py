"""The page of a report: safe with any name, readable at any size, whole with anything missing."""

import copy
import re
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest

from app.pages import maps, report, report_tables
from tests.app.pages.checks import Page
from tests.app.pages.documents import HOSTILE
from tests.app.pages.documents import report as document

ROOT = Path(__file__).parents[3]
SECTIONS = [name for name, *_ in report.SECTIONS]
MAX_BYTES, MAX_SECONDS = 1_000_000, 0.2


@pytest.mark.parametrize(
    ("values", "texts"),
    [((0.9, 0.95, 1.0, 1.05, 1.1), ["0.9", "1", "1.1"]), ((0.9999, 1.0, 1.0, 1.02, 1.05), ["1", "1.05"]),
     ((1.0, 1.0, 1.0, 1.0, 1.0), ["1"])],
)  # fmt: skip
def test_numbers_below_the_factors_are_not_printed_over_each_other(values, texts):
    quantiles = dict(zip(("0.05", "0.25", "0.5", "0.75", "0.95"), values, strict=True))
    drawn = maps.factors({"bn1": {"alpha": {"quantiles": quantiles, "share_moved": 0.5}}}, "alpha", 1.0)
    assert [end["text"] for end in drawn["ends"]] == texts
    places = sorted(end["x"] for end in drawn["ends"])
    assert all(right - left >= maps.TEXT_WIDTH for left, right in pairwise(places))


def page(found) -> Page:
    return Page(report.render(found, "job_1"))


def test_every_section_is_there_and_says_what_it_shows() -> None:
    shown = page(document())
    assert [name for name in shown.ids if name != "details"] == SECTIONS
    assert "Not computed" not in shown.text
    for words in (
        "The transfer helped", "Of 100 images it names 10.0 more right than a network from scratch does",
        "80.0 %", "70.0 to 90.0 %", "Macro F1", "Test accuracy with 95 % intervals",
        "Labels needed", "not within what the curve can tell", "from fewer than were looked at to 500",
        "30.0 % of its errors are gone", "Lowest recall", "inside the interval", "Proxy A-distance", "AUROC",
        "Synthetic: how a photo", "Learned alpha by stage", "3.3 min", "512 MiB", "folded",
    ):  # fmt: skip
        assert words in shown.text, words


def paths(found, prefix=()):
    """Every place in a document where a text stands, lists by their first entry."""
    items = found.items() if isinstance(found, dict) else enumerate(found[:1]) if isinstance(found, list) else ()
    for key, value in items:
        if isinstance(value, str):
            yield (*prefix, key)
        yield from paths(value, (*prefix, key))


def test_hostile_names_come_out_as_text_in_every_section() -> None:
    html = report.render(document(name=HOSTILE), "job_1")
    shown = Page(html)
    assert "<script" not in html
    assert "<b onload" not in html
    assert "{{ 7 * 7 }}" in html
    assert " 49 " not in html
    assert " ".join(HOSTILE.split()) in shown.text
    # Cut names have the whole one in their title.
    assert any(HOSTILE in title for title in shown.titles)


@pytest.mark.parametrize("section", SECTIONS)
def test_each_section_shows_the_names_that_it_got(section: str) -> None:
    """So that the test above has met hostile names in each of them; cost has one in its note."""
    html = report.render(document(name="marked <name>"), "job_1")
    start = html.index(f'<section id="{section}">')
    part = html[start : html.index("</section>", start)]
    assert "marked &lt;name&gt;" in part or "marked &lt;" in part


def test_a_text_in_any_place_is_escaped() -> None:
    base = document()
    for path in paths(base):
        found = copy.deepcopy(base)
        place = found
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = "<script>alert(1)</script>"
        assert "<script" not in report.render(found, "<script>"), path


@pytest.mark.parametrize("num", [2, 25, 200])
def test_pages_are_light_and_fast(num: int) -> None:
    found = document(num, name="a class with a rather long name, number", num_points=500)
    report.render(found, "job_1")  # the templates are compiled once for each process
    spent = []
    for _ in range(5):
        began = time.process_time()
        html = report.render(found, "job_1")
        spent.append(time.process_time() - began)
    assert len(html.encode()) < MAX_BYTES
    assert min(spent) < MAX_SECONDS
    text = Page(html).text
    assert ("the 40 with the most wrong answers" in text) == (num == 200)


@pytest.mark.parametrize("key", sorted(document()))
@pytest.mark.parametrize("value", ["missing", None, {}, []])
def test_missing_keys_never_break_the_page(key: str, value) -> None:
    found = document()
    if value == "missing":
        del found[key]
    else:
        found[key] = value
    page(found)


def keys(found, prefix=()):
    """Every key of every object, lists by their first entry."""
    if isinstance(found, dict):
        for key, value in found.items():
            yield (*prefix, key)
            yield from keys(value, (*prefix, key))
    elif isinstance(found, list) and found and isinstance(found[0], dict):
        yield from keys(found[0], (*prefix, 0))


def test_a_null_anywhere_never_breaks_the_page() -> None:
    base = document()
    for path in keys(base):
        for change in ("null", "gone"):
            found = copy.deepcopy(base)
            place = found
            for key in path[:-1]:
                place = place[key]
            if change == "gone":
                del place[path[-1]]
            else:
                place[path[-1]] = None
            report.render(found, "job_1")


def test_an_empty_report_says_of_every_section_that_it_is_not_there() -> None:
    shown = page({})
    assert shown.text.count("Not computed") == len(SECTIONS) - 2  # training and domain show up where they are
    assert "No verdict" in shown.text


def test_values_that_are_no_parameters_are_told_apart() -> None:
    found = document()
    found["mapping"] |= {"parameters": 1000, "tensors": [{"name": "a", "shape": [1032], "what": "frozen"}]}
    assert "Of the backbone's, 32 are no parameters" in page(found).text
    found["mapping"]["tensors"].append({"name": "head.weight", "shape": [9, 9], "what": "new"})
    assert "Of the backbone's, 32 are no parameters" in page(found).text
    found["mapping"]["tensors"].append({"name": "head.mean", "shape": [9], "what": "measured"})
    assert "measured: 9 values that the head holds" in page(found).text
    found["mapping"]["tensors"].pop()
    found["mapping"]["parameters"] = 1032
    assert "are no parameters" not in page(found).text


def test_reasons_stand_where_the_figures_would() -> None:
    found = document() | {"robustness": None, "curve": None, "forecast": None, "forecast_skipped": "too few images."}
    found |= {"domain": None}
    keys = ("robustness", "curve", "domain")
    found["not_computed"] = {key: f"the reason of {key}" for key in keys}
    text = page(found).text
    for words in (*(f"the reason of {key}" for key in keys), "too few images"):
        assert f"Not computed: {words}." in text


@pytest.mark.parametrize(
    ("verdict", "title", "words"),
    [
        ("positive", "The transfer helped", "more right than a network from scratch does"),
        ("negative", "The transfer hurt", "fewer right than a network from scratch does"),
        ("none", "No evidence either way", "chance alone may explain it"),
        (None, "No verdict", "There is no network from scratch to compare with"),
    ],
)
def test_the_verdict_in_words(verdict, title: str, words: str) -> None:
    found = document()
    found["verdict"] = found["verdicts"]["vs_scratch"] = verdict
    found["verdict_evidence"]["vs_scratch"] |= {"verdict": verdict, "low": -0.1}
    text = page(found).text
    assert title in text
    assert words in text


def test_the_verdict_of_an_adaptation_is_over_the_source_alone() -> None:
    found = document()
    found["served"]["method"] = "adapt"
    found["verdict_evidence"]["vs_source_only"] = {**found["verdict_evidence"]["vs_scratch"], "difference": 0.25}
    assert "Of 100 images it names 25.0 more right than the source alone does" in page(found).text


def test_what_is_compared_with_itself_or_with_no_label_says_so() -> None:
    found = document() | {"verdict": None, "gain": None, "verdict_evidence": {}}
    found["not_computed"] = {"verdict": "no item has a label", "gain": "it is the probe itself"}
    text = page(found).text
    assert "There was nothing to compare it on: no item has a label." in text
    assert "No gain: it is the probe itself." in text


def test_a_verdict_that_nobody_asked_for_is_no_want_of_anything_to_compare_on() -> None:
    found = document() | {"verdict": None, "verdict_evidence": {}, "verdicts": {"vs_frozen": None}}
    why = 'not computed for this recipe; ask for "report": "full"'
    itself = "what is served is the frozen probe itself"
    found["not_computed"] = {"verdict": why, "verdicts.vs_frozen": itself}
    found["baselines_skipped"] = {"scratch": why}
    text = page(found).text
    assert f"Against the frozen probe: {itself}." in text
    assert "nothing to compare it on" not in text


def test_a_transfer_that_could_not_be_compared_is_not_called_the_probe() -> None:
    """Blind: each class has one picture. What is served is another classifier, which names the test items otherwise."""
    found = document() | {"verdict": None, "verdict_evidence": {}, "verdicts": {"vs_frozen": None}}
    blind, small = "each class has one picture to learn from", "there are too few images to hold some out"
    found["not_computed"] = {"verdict": small, "verdicts.vs_frozen": blind}
    found["baselines_skipped"] = {"scratch": small}
    found["gain"] = {"value": 1 / 3, "low": 0.1, "high": 0.6, "over": "frozen", "relative_error_reduction": None}
    text = page(found).text
    assert f"Against the frozen probe: {blind}." in text
    assert "+33.3 points against the frozen probe" in text
    assert "probe itself" not in text
    found["gain"] |= {"value": 0.0, "low": 0.0, "high": 0.0}
    assert "What is served names every scored item as the frozen probe does." in page(found).text


@pytest.mark.parametrize("state", ["queued", "failed"])
def test_what_another_job_has_yet_to_fill_in_is_said_at_the_top_and_in_its_place(state: str) -> None:
    found = document() | {
        "verdict": None,
        "curve": None,
        "follow_up": {"job": "job_2", "state": state, "fills": ["curve", "verdict"]},
    }
    why = "not computed yet: job job_2 fills it in"
    found["not_computed"] = dict.fromkeys(("curve", "verdict"), why)
    text = page(found).text
    assert "There is no network from scratch to compare with (job job_2 fills it in)." in text
    assert text.index(why) < text.index("Accuracy")
    assert "Not computed: job job_2 fills it in." in text
    found["follow_up"]["state"] = "succeeded"
    assert "unfinished" not in page(found).text


def test_flags_and_warnings_stand_before_the_figures() -> None:
    found = document() | {"flags": [{"code": "few_test_images", "message": "so few"}], "warnings": ["mind this"]}
    text = page(found).text
    assert text.index("No verdict" if not found["verdict"] else "The transfer helped") < text.index("so few")
    assert text.index("so few") < text.index("mind this") < text.index("Accuracy")


def test_a_curve_that_is_a_list_is_drawn_like_one_in_an_object() -> None:
    found = document()
    points = found["curve"]["points"]
    plain = report.render(found | {"curve": points}, "job_1")
    whole = report.render(found | {"curve": {"points": points}}, "job_1")
    cut = re.compile(r'<section id="curve">.*?</section>', re.DOTALL)
    drawn = [cut.search(html) for html in (plain, whole)]
    assert drawn[0] is not None
    assert drawn[1] is not None
    assert drawn[0][0] == drawn[1][0]
    assert "polyline" in drawn[0][0]


def test_plots_name_their_axes_and_what_their_marks_mean() -> None:
    found = document()
    found["details"] |= {"soup": [1, 3]}
    shown = page(found)
    for words in (
        "first direction, 30 % of the variance", "second direction, 10 % of the variance", "accuracy on the hold-out",
        "labels, logarithmic", "alpha, a factor", "beta, in units of what the layer gives", "sure by, %", "right, %",
    ):  # fmt: skip
        assert words in shown.text, words
    # The probe that training began with is on its curve, and what is served is marked: a soup's states, or the best.
    assert {f"epoch {epoch}: {50 + 10 * epoch}.0 %" for epoch in (0, 2)} <= set(shown.titles)
    assert {f"epoch {epoch}: {50 + 10 * epoch}.0 %, kept" for epoch in (1, 3)} <= set(shown.titles)
    assert "epoch 2: 70.0 %, kept" in page(document()).titles


def test_a_map_by_class_still_tells_its_groups_apart() -> None:
    html = report.render(document(3, name="which"), "job_1")
    legend = re.search(r'<p class="legend">.*?</p>', html, re.DOTALL)
    assert legend is not None
    assert '<i class="pale"></i>which' in legend[0]
    assert '<i class="full"></i>test' in legend[0]
    # Under a trained network the test split is alone, and is no background.
    alone = document()["feature_map"]["groups"][1:]
    (only,) = maps.feature_map(document()["feature_map"] | {"groups": alone})["groups"]
    assert only["is_front"]


def test_decisions_keep_their_order() -> None:
    found = document()
    found["decisions"] = [{"step": f"step-{place}", "outcome": "tried", "reason": "r"} for place in range(12)]
    steps = re.findall(r"step-\d+", page(found).text)
    assert steps == [f"step-{place}" for place in range(12)]


def test_the_start_of_the_api_does_not_pay_for_templates(tmp_path: Path) -> None:
    code = "import sys, app.main; print('jinja2' in sys.modules)"
    environment = {"PATH": "", "GRAFT_HOME": str(tmp_path)}
    command = [sys.executable, "-c", code]
    shown = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "False"


def test_an_adaptation_is_shown_among_the_others() -> None:
    known = [{"job_id": f"job_{number}", "distance": number / 2, "gain": 0.1 * number - 0.1} for number in range(4)]
    html = report.render(document(), "job_1", known)
    chart = html[html.index("gain over distance") :].partition("</svg>")[0]
    assert (chart.count('class="dot"'), chart.count('class="hollow"')) == (1, 3)
    assert "job_3: distance 1.500, gain +20.0 points" in chart
    # One alone says nothing of how gain and distance go together.
    assert "gain over distance" not in report.render(document(), "job_1", known[:1])


def test_an_interval_that_is_open_on_both_sides_does_not_look_exact():
    row = {"accuracy": 0.8, "outcome": "within_the_labels", "num_samples": 32, "low": None, "high": None}
    never = {"accuracy": 0.99, "outcome": "not_reached", "num_samples": None, "low": None, "high": None}
    told = report_tables.labels_needed({"labels_needed": [row, never]})
    assert [one["interval"] for one in told["rows"]] == ["wider than what was looked at, on both sides", ""]
