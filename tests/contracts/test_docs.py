"""Docs and code say the same: generated pages are up to date, every code is explained, every link leads somewhere."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from app import cli
from app.api.problems import FRAMEWORK_CODES
from app.errors import FAILURES, GraftError
from app.settings import Settings
from docs import generate

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
FAILURE_HEADING = "## Failures of jobs"
PAGES = sorted([*DOCS.rglob("*.md"), ROOT / "README.md", *ROOT.glob("examples/**/*.md")])
# Codes of findings and of failed datasets and jobs are passed on to these; they are no problem codes.
NOT_PROBLEMS = {"jobs.move"}


def headings(text: str, level: str) -> set[str]:
    return set(re.findall(rf"^{level} `([^`]+)`$", text, re.MULTILINE))


def used_codes(source: str) -> Iterator[str]:
    """Codes that a module writes out: class attributes, `code=` arguments, variables named code."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) not in NOT_PROBLEMS:
            values = [keyword.value for keyword in node.keywords if keyword.arg == "code"]
        elif isinstance(node, ast.Assign) and any(ast.unparse(target) == "code" for target in node.targets):
            values = [node.value]
        else:
            continue
        for value in values:
            branches = [value.body, value.orelse] if isinstance(value, ast.IfExp) else [value]
            yield from (
                part.value for part in branches if isinstance(part, ast.Constant) and isinstance(part.value, str)
            )


def every_subclass(kind: type[GraftError]) -> Iterator[type[GraftError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from every_subclass(child)


def problem_codes() -> set[str]:
    from app import main  # noqa: F401  (loads every module, so that every subclass is there)

    found = {code for path in sorted((ROOT / "app").rglob("*.py")) for code in used_codes(path.read_text())}
    # A class whose every use names a code of its own never shows its default; the base of them all is `internal`.
    return found | {kind.code for kind in every_subclass(GraftError)} | set(FRAMEWORK_CODES.values())


@pytest.mark.parametrize("name", sorted(generate.GENERATED))
def test_generated_page_is_up_to_date(name: str) -> None:
    expected = generate.GENERATED[name]()
    assert (DOCS / name).read_text(encoding="utf-8") == expected, f"docs/{name} is out of date: run `make docs`"


def test_every_setting_has_a_heading() -> None:
    text = (DOCS / "settings.md").read_text()
    assert headings(text, "##") == {f"GRAFT_{name.upper()}" for name in Settings.model_fields}


def test_every_error_code_is_explained() -> None:
    requests, _, _ = (DOCS / "errors.md").read_text().partition(FAILURE_HEADING)
    assert headings(requests, "###") == problem_codes()


def test_every_failure_code_is_explained() -> None:
    requests, _, failures = (DOCS / "errors.md").read_text().partition(FAILURE_HEADING)
    explained_above = headings(requests, "###") & FAILURES.keys()
    # An ingestion that was cancelled fails its dataset, not its job.
    assert headings(failures, "###") == (FAILURES.keys() - explained_above) | {"cancelled"}
    assert all(f"`{code}`" in failures for code in explained_above)


def test_each_code_is_explained_once() -> None:
    found = re.findall(r"^### `([^`]+)`$", (DOCS / "errors.md").read_text(), re.MULTILINE)
    assert len(found) == len(set(found))


def test_codes_are_found_wherever_they_are_written() -> None:
    source = """
class Gone(GraftError):
    code = "gone"

def check(error):
    code = "torn" if error else "bent"
    jobs.move(job, code="no_problem")
    raise Conflict("...", code="taken", extra="other")
"""
    assert set(used_codes(source)) == {"gone", "torn", "bent", "taken"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith(("http://", "https://", "#")):
            continue
        assert (page.parent / target.partition("#")[0]).exists(), f"{page.name} links to {target}, which is not there"


def test_decisions_are_short_and_numbered_without_gaps() -> None:
    records = sorted((DOCS / "decisions").glob("*.md"))
    assert [int(record.name[:4]) for record in records] == list(range(1, len(records) + 1))
    for record in records:
        lines = record.read_text().splitlines()
        assert len(lines) <= 60, f"{record.name} has {len(lines)} lines"
        assert lines[0].startswith(f"# {record.name[:4]} "), f"{record.name} does not begin with its number"
        assert {"## Decision", "## Why", "## Consequences"} <= set(lines), f"{record.name} lacks a part"


def test_readme_names_every_room_and_only_targets_that_exist() -> None:
    readme = (ROOT / "README.md").read_text()
    for room in ("app/", "worker/", "migrations/", "benchmarks/", "examples/", "docs/", "tests/"):
        assert f"`{room}`" in readme
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):.*##", makefile, re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)", readme)) <= targets


def test_make_help_lists_every_target() -> None:
    shown = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony is not None
    assert [line.split()[0] for line in shown.splitlines()] == phony[1].split()


def test_setup_says_which_python_it_needs(tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    command = ["make", "setup", "PYTHON=python2.7"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "expected Python 3.11, 3.12 or 3.13" in ended.stderr
    assert not (tmp_path / ".venv").exists()


def test_operators_are_told_what_to_do_about_every_failure() -> None:
    _, _, table = (DOCS / "operations.md").read_text().partition("## When jobs fail")
    assert set(re.findall(r"^\| `([a-z_]+)` \|", table, re.MULTILINE)) == set(FAILURES)


def test_metrics_that_operators_watch_are_there(light_client: TestClient) -> None:
    _, _, text = (DOCS / "operations.md").read_text().partition("## What to watch")
    watched = set(re.findall(r"^\| `(graft_[a-z_]+)` \|", text, re.MULTILINE))
    answer = light_client.get("/metrics").text
    there = set(re.findall(r"^# TYPE (\S+) ", answer, re.MULTILINE))
    assert watched
    assert watched <= there
    # Nothing was collected yet: no figure is better than a wrong one.
    assert "graft_storage_bytes NaN" in answer


def test_commands_and_settings_that_operators_are_told_of_are_there() -> None:
    text = (DOCS / "operations.md").read_text()
    assert set(re.findall(r"`?graft ([a-z]+)", text)) <= cli.COMMANDS.keys()
    named = {name.lower() for name in re.findall(r"GRAFT_([A-Z_]+)", text)}
    assert named <= Settings.model_fields.keys()
