"""How a benchmark ends: a goal that was missed is told by the status, and its figures are kept."""

import ast
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import __main__ as benchmarks


@pytest.fixture
def ended(tmp_path, monkeypatch):
    """The status after a benchmark that finds this, and what was kept."""

    def end(found):
        (tmp_path / "own.py").write_text(f"print({json.dumps(found)!r})")
        monkeypatch.setattr(benchmarks, "FOLDER", tmp_path)
        monkeypatch.setattr("sys.argv", ["benchmarks", "own"])
        status = benchmarks.main()
        (kept,) = (tmp_path / "results").glob("*.json")
        return status, json.loads(kept.read_text())["results"]["own"]

    return end


@pytest.mark.parametrize(
    ("found", "status", "told"),
    [
        ({"seconds": 3}, 0, []),
        ({"meets_goal": True, "one": {"meets_goal": True}}, 0, []),
        ({"meets_goal": False}, 1, ["own"]),
        ({"meets_goal": True, "one": {"two": {"meets_goal": False}}, "three": {"meets_goal": False}}, 1,
         ["own.one.two", "own.three"]),
    ],
)  # fmt: skip
def test_a_goal_that_was_missed_is_told_and_kept(ended, capsys, found, status, told):
    assert ended(found) == (status, found)
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith("MISSED")] == [f"MISSED: the goal of {one}" for one in told]


ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(path.relative_to(ROOT) for room in ("benchmarks", "examples") for path in (ROOT / room).rglob("*.py"))


def taken(path: Path) -> Iterator[tuple[str, str]]:
    """What a script takes from our rooms: module and name."""
    froms = (node for node in ast.walk(ast.parse((ROOT / path).read_text())) if isinstance(node, ast.ImportFrom))
    for node in froms:
        if node.module is not None and node.module.partition(".")[0] in ("app", "worker", "benchmarks"):
            yield from ((node.module, name.name) for name in node.names)


@pytest.mark.parametrize("path", SCRIPTS, ids=str)
def test_a_script_takes_what_is_there(path: Path) -> None:
    """They run for hours, and so in no test: a name that has moved is seen here."""
    gone = [(module, name) for module, name in taken(path) if not hasattr(__import__(module, fromlist=[name]), name)]
    assert gone == []
