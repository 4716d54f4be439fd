"""The order in which what projects put in comes out."""

import pytest

from app.serving.turns import Turns


def out(turns):
    while turns:
        yield turns.take()


def test_projects_take_turns_and_each_keeps_its_order():
    turns = Turns()
    for item in ("a1", "a2", "a3", "b1", "a4", "c1", "c2"):
        turns.put(item[0], item)
    assert sorted(turns) == ["a1", "a2", "a3", "a4", "b1", "c1", "c2"]
    assert "b1" in turns
    assert list(out(turns)) == ["a1", "b1", "c1", "a2", "c2", "a3", "a4"]
    assert "b1" not in turns
    with pytest.raises(KeyError):
        turns.take()


def test_who_comes_back_is_last():
    turns = Turns()
    turns.put("a", "a1")
    turns.put("b", "b1")
    assert turns.take() == "a1"
    turns.put("a", "a2")
    turns.put("b", "b2")
    assert list(out(turns)) == ["b1", "a2", "b2"]
