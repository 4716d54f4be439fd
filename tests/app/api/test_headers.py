"""Headers of a request by their name."""

from app.api import headers


def test_the_first_of_several_counts():
    scope = {"headers": ((b"host", b"a"), (b"accept", b""), (b"host", b"b"), (b"x", b"\xff"))}
    assert [headers.first(scope, name) for name in (b"host", b"accept", b"x", b"origin")] == ["a", "", "\xff", None]
    assert [headers.first(scope, name) for name in (b"host", b"accept", b"x", b"origin")] == ["a", "", "\xff", None]
