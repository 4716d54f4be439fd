"""A child gets no environment, and no more time, memory and files than it is given."""

import time

import pytest

from app import limited

MODULE = "tests.app.misbehaving"


def test_a_child_knows_nothing_of_ours(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    told = limited.ask(MODULE, ["tell", ""], 2**28, 60)
    assert told.keys() - {"LC_CTYPE"} == {"ARROW_DEFAULT_MEMORY_POOL", "OPENBLAS_NUM_THREADS", "PYTHONPATH"}


@pytest.mark.parametrize(
    ("what", "words"),
    [("eat", "ended with status 1"), ("write", "ended with status"), ("flood", "no answer"), ("list", "no answer")],
)
def test_a_child_that_does_too_much_is_ended(tmp_path, what, words):
    path = tmp_path / "written"
    with pytest.raises(limited.Ended, match=words):
        limited.ask(MODULE, [what, str(path)], 2**26, 60)
    assert not path.exists() or not path.stat().st_size


@pytest.mark.parametrize("what", ["sleep", "spin"])
def test_a_child_that_does_not_end_is_ended(what):
    began = time.monotonic()
    with pytest.raises(limited.Ended, match=r"longer than 2 s|status -"):
        limited.ask(MODULE, [what, ""], 2**26, 2)
    assert time.monotonic() - began < 30
