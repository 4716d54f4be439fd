"""What a client is told of a payload that does not fit."""

import pytest
from pydantic import BaseModel, Field, ValidationError

from app.bodies import BODY, MAX_BRIEF, pointers


class Wish(BaseModel):
    """As requests are."""

    model_config = BODY

    name: str = Field(min_length=3, max_length=1000)
    number: float = Field(default=1.0, gt=0)
    items: list[int] = Field(default=[1], min_length=1)


@pytest.mark.parametrize(
    ("given", "place", "found"),
    [
        ({"name": "ab"}, "/body/name", "; found 'ab'"),
        ({"name": "abc", "number": -2.5}, "/body/number", "; found -2.5"),
        ({"name": "abc", "number": float("nan")}, "/body/number", "; found nan"),
        ({"name": "abc", "items": []}, "/body/items", "; found a list of 0"),
        ({"name": {"a": 1, "b": 2}}, "/body/name", "; found an object of 2 fields"),
        ({"name": "x" * 10_000}, "/body/name", f"; found {'x' * MAX_BRIEF!r}..."),
        ({}, "/body/name", "Field required"),
    ],
)
def test_each_problem_says_where_it_is_and_what_was_found_there(given, place, found):
    with pytest.raises(ValidationError) as caught:
        Wish.model_validate(given)
    (told,) = pointers(caught.value.errors(), "body")
    assert told["pointer"] == place
    assert told["detail"].endswith(found)
    assert len(told["detail"]) < 200
