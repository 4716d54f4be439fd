"""The list of findings: bounded in number and in text, and true about what it leaves out."""

import pytest

from worker.data import problems
from worker.data.problems import Problem, Problems


def names(found: Problems) -> list[str]:
    return [one.path for one in found if one.code != "more_problems"]


def behind(found: Problems) -> Problem:
    *_, last = found
    assert last.code == "more_problems"
    return last


def text_bytes(found: Problems) -> int:
    return sum(len(one.path.encode()) + len(one.message.encode()) for one in found)


def test_text_is_bounded_in_sum() -> None:
    found = Problems()
    for _ in range(2000):
        found.add("unsafe_path", "😀" * 3000, found="😀" * 3000)
    # Each has 1,000 and 2,000 characters at most, which are four bytes each.
    assert problems.MAX_TEXT_BYTES * 0.99 < text_bytes(found) < problems.MAX_TEXT_BYTES + 1000
    assert str(2000 - len(names(found))) in behind(found).message


@pytest.mark.parametrize(("limit", "value"), [("MAX_LISTED", 2), ("MAX_TEXT_BYTES", 200)])
def test_what_is_left_out_is_all_behind_and_counted(monkeypatch: pytest.MonkeyPatch, limit: str, value: int) -> None:
    monkeypatch.setattr(problems, limit, value)
    found = Problems()
    listed = []
    for name in ("a", "b", "c" * 150, "d"):
        found.add("not_an_image", name, found=".txt")
        listed.append(found.last is not None)
    assert listed == [True, True, False, False]
    assert names(found) == ["a", "b"]
    assert "found 2 more" in behind(found).message


def test_errors_are_told_and_counted_where_they_are_not_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(problems, "MAX_LISTED", 1)
    found = Problems()
    found.add("not_an_image", "a.txt", found=".txt")
    assert not found.has_errors
    for name in ("../b", "../c", "../d"):
        found.add("unsafe_path", name, found="'..'")
    assert found.has_errors
    assert found.failure is not None
    code, words = found.failure
    assert code == "unsafe_path"
    assert words.startswith("../b: ")
    assert words.endswith("(2 more errors)")
