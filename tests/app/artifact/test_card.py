import html
import re

import pytest
import yaml
from huggingface_hub import ModelCard
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from app.artifact import card
from tests.app.onnx_factories import make_spec

NASTY = [
    "plain",
    "# heading",
    "a|b",
    "a\\|b",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "&lt;b&gt; &amp; &#124;",
    "*bold* _it_ ~~no~~ `code`",
    "[link](http://evil.example) ![i](x)",
    "http://evil.example www.evil.example a@evil.example",
    'key: "value"',
    "it's: {a: [b]} #c %d @e !f",
    "---",
    "- item",
    "null",
    "true",
    "1e3",
    "back\\slash\\",
    "\u00fcml\u00e4ut \u732b \U0001f600",
    "| |",
    "$x^2$",
]
METRICS = {
    "test_accuracy": 0.875, "test_accuracy_low": 0.8, "test_accuracy_high": 0.925, "test_macro_f1": 0.75, "ece": None,
    "cv_accuracy_mean": 0.9, "something_else": 3,
}  # fmt: skip


def rows_of(labels):
    return [
        {"label": label, "num_samples": index, "precision": 0.5, "recall": None, "f1": 0.25}
        for index, label in enumerate(labels)
    ]


def report_of(labels=("cat",), **overrides):
    baselines = {
        "frozen": {"value": 0.8, "low": 0.7, "high": 0.9, "num_samples": 40, "what": "ridge | on <frozen> features"},
        "scratch": None,
        "source_only": None,
    }
    return {"verdict": "positive", "baselines": baselines, "per_class": rows_of(labels), **overrides}


def front(text):
    opening, matter, body = text.split("---\n", 2)
    assert opening == ""
    return yaml.safe_load(matter), body


def cells(text):
    """Rows of every table, as a reader of the rendered page sees them."""
    page = MarkdownIt("commonmark").enable("table").render(text)
    rows = re.findall(r"<tr>(.*?)</tr>", page, re.DOTALL)
    return [[html.unescape(re.sub("<[^>]*>", "", cell)) for cell in re.findall(r"<t[dh]>(.*?)</t[dh]>", row, re.DOTALL)]
            for row in rows]  # fmt: skip


def test_a_hub_reads_the_card():
    spec = make_spec(metrics=METRICS)
    text = card.render(spec, report_of(), "my-model")
    parsed = ModelCard(text)
    data = parsed.data
    assert (data.license, data.library_name, data.pipeline_tag) == ("apache-2.0", "onnx", "image-classification")
    assert (data.base_model, data.datasets, data.model_name) == ("test/tiny", ["ds_1"], "my-model")
    assert data.tags == ["graft", "onnx", "transfer-learning", "linear_probe"]
    assert [(item.metric_type, item.metric_value, item.metric_name) for item in data.eval_results] == [
        ("accuracy", 0.875, "Test accuracy"),
        ("f1", 0.75, "Test macro F1"),
        ("accuracy", 0.9, "Cross-validated accuracy, mean"),
    ]
    assert {(item.task_type, item.dataset_name, item.dataset_revision) for item in data.eval_results} == {
        ("image-classification", "ds_1", "d" * 64)
    }


def test_the_tables_show_the_figures():
    spec = make_spec(metrics=METRICS)
    rows = cells(front(card.render(spec, report_of(), "m"))[1])
    assert ["Test accuracy", "0.875", "0.800 to 0.925"] in rows
    assert ["Test macro F1", "0.750", ""] in rows
    assert ["frozen", "ridge | on <frozen> features", "0.800", "0.700 to 0.900"] in rows
    assert ["train", "7"] in rows
    assert ["cat", "0", "0.500", "", "0.250"] in rows
    assert ["onnx", "1.20"] in rows


def test_of_an_excerpt_it_says_what_was_looked_at():
    splits = {"train": 7, "val": 1, "test": 2}
    spec = make_spec(dataset={"id": "ds_1", "digest": "d" * 64, "splits": splits})
    whole = cells(card.render(spec, report_of(data={"splits": splits}), "m"))
    assert ["Split", "Samples"] in whole
    assert ["train", "7"] in whole
    part = cells(card.render(spec, report_of(data={"splits": {"train": 3, "val": 1, "test": 1}}), "m"))
    assert [row for row in part if row[0] in ("Split", *splits)] == [
        ["Split", "Samples", "Looked at"], ["train", "7", "3"], ["val", "1", "1"], ["test", "2", "1"],
    ]  # fmt: skip


def test_what_is_filled_in_later_is_named():
    report = report_of(follow_up={"job": None, "state": None, "fills": ["curve", "baselines.scratch"]})
    assert "`curve`, `baselines.scratch` of the report" in card.render(make_spec(), report, "m")
    assert "Not known yet" not in card.render(make_spec(), report_of(), "m")


def test_a_card_has_every_section_and_the_call():
    text = card.render(make_spec(metrics=METRICS), report_of(), "my.model-1")
    assert re.findall("^## (.*)$", text, re.MULTILINE) == [
        "Intended use", "Data", "Evaluation", "Results per class", "Limits", "How to call it", "How it was made",
    ]  # fmt: skip
    assert "curl -F file=@first.jpg" in text
    assert "/api/v1/models/my.model-1/predict" in text
    assert "Verdict on the transfer against training from scratch: positive" in text
    assert "by one temperature (1.5)" in text


def test_nasty_class_names_stay_names():
    body = front(card.render(make_spec(tuple(NASTY)), report_of(NASTY), "m"))[1]
    rows = [row for row in cells(body) if len(row) == 5][1:]
    assert [row[0] for row in rows] == NASTY
    page = MarkdownIt("gfm-like", {"linkify": False}).render(body)
    assert not re.search(r"<(script|img|a|em|strong|s|del)\b", page)


def test_control_and_direction_characters_are_shown_not_sent():
    found = card.text("a\nb\u202ec\x00")
    assert found == "a&#92;u{a}b&#92;u{202e}c&#92;u{0}"


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=30))
def test_any_text_survives_yaml_and_stays_inside_its_cell(value):
    spec = make_spec(
        metrics=METRICS,
        dataset={"id": "x" + value, "digest": "d" + value, "splits": {"train": 1}},
        backbone={"name": "y" + value, "digest": "b", "licence": "z" + value, "feature_dim": 6},
        recipe={"method": value, "note": value},
    )
    matter, body = front_or_whole(card.render(spec, report_of([value]), "m"))
    assert matter["datasets"] == ["x" + value]
    assert matter["base_model"] == "y" + value
    assert (matter["license"], matter["license_name"]) == ("other", "z" + value)
    assert matter["tags"][-1] == value
    assert matter["model-index"][0]["results"][0]["dataset"]["revision"] == "d" + value
    found = [row for row in cells(body) if len(row) == 5]
    assert len(found) == 2
    assert found[1][1:] == ["0", "0.500", "", "0.250"]


def front_or_whole(text):
    """Front matter ends at the first line that is only `---`."""
    lines = text.split("\n")
    end = lines.index("---", 1)
    return yaml.safe_load("\n".join(lines[1:end])), "\n".join(lines[end + 1 :])


def test_a_recipe_cannot_leave_its_code_block():
    spec = make_spec(recipe={"method": "x", "note": "```\n# out\n````<b>"})
    page = MarkdownIt("commonmark").render(front(card.render(spec, report_of(), "m"))[1])
    assert "<h1>out" not in page
    assert "<b>" not in page


@pytest.mark.parametrize(("method", "against"), [("adapt", "the source alone"), ("few_shot", "training from scratch")])
def test_the_verdict_names_what_it_is_over_whatever_else_was_compared(method, against):
    report = report_of(served={"method": method}, verdicts={"vs_scratch": "positive", "vs_source_only": "positive"})
    assert f"Verdict on the transfer against {against}: positive" in card.render(make_spec(), report, "m")


def test_a_model_without_data_or_figures_says_so():
    text = card.render(make_spec(dataset=None, metrics={}, calibrated=False), {"verdict": None}, "m")
    matter, body = front(text)
    assert matter["model-index"] == [{"name": "m", "results": []}]
    assert "datasets" not in matter
    assert "metrics" not in matter
    assert "made without a dataset" in body
    assert "Nothing was measured" in body
    assert "not calibrated" in body


@pytest.mark.parametrize("name", ["", "-x", "a b", "a/b", "a'b", "a\n", "x" * 101])
def test_a_name_that_could_break_the_address_is_refused(name):
    with pytest.raises(ValueError, match="expected a model name"):
        card.render(make_spec(), report_of(), name)
