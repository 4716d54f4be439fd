"""How a client's JSON becomes typed configuration: strictly, and with errors that point at what the client wrote.

Strict means that `"yes"` is no truth value and `"3"` no number; a whole number may stand where a fraction may. Fields
of forms and query parameters are text, and are read leniently.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import ConfigDict, Discriminator, Field, GetCoreSchemaHandler, Strict, ValidationError
from pydantic_core import CoreSchema, InitErrorDetails, core_schema

from app.errors import TooLarge

BODY = ConfigDict(frozen=True, extra="forbid", strict=True)
# JSON has lists where Python has tuples; what is in them is as strict as all else.
FROM_LIST = Strict(strict=False)
# Characters of a value that a message repeats.
MAX_BRIEF = 60
# Places with problems that an answer names one by one: each takes a hundred times what it is about.
MAX_TOLD = 100
# How JSON of more than one value begins.
_MANY = re.compile(rb"\s*[\[{]")


@dataclass(frozen=True)
class By:
    """Annotates a union whose members are told apart by a field of that name, or by a function that gives their tags.

    `default` is the field's value where it is absent.

    pydantic puts the member's name before each place in it (`coral/source`), which nobody wrote; it is taken out again.
    """

    tag: str | Discriminator
    default: str | None = None

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """The union that pydantic makes, and around it what mends the places of its errors."""
        union = handler.generate_schema(Annotated[source, Field(discriminator=self.tag)])
        return core_schema.no_info_wrap_validator_function(self._as_written, union)

    def _as_written(self, given: Any, validate: core_schema.ValidatorFunctionWrapHandler) -> Any:
        if self.default is not None and isinstance(given, dict) and self.tag not in given:
            given = {self.tag: self.default, **given}
        return _as_written(given, validate)


def _as_written(given: Any, validate: core_schema.ValidatorFunctionWrapHandler) -> Any:
    try:
        return validate(given)
    except ValidationError as error:
        raise ValidationError.from_exception_data(
            error.title,
            [
                InitErrorDetails(type=item["type"], loc=item["loc"][1:], input=item["input"], ctx=item.get("ctx", {}))
                for item in error.errors()
            ],
        ) from None


def why_no_json(error: Exception) -> str:
    """What is wrong with a text, by what `json.loads` raised."""
    # Of a number of very many digits Python says how to have it read, which is no advice for whoever sends it.
    return "a number that is too long" if type(error) is ValueError and "digits" in str(error) else str(error)


def num_values(text: bytes) -> int:
    """How many values a JSON text has at most, but for one: each other stands behind one of these.

    Those inside of texts count as well, which costs nobody much.
    """
    return sum(map(text.count, (b",", b"[", b"{")))


def check_values(name: str, text: bytes, most: int, setting: str = "") -> None:
    """Refuses JSON that may have more values. What is none at all is left to whoever parses it, which fails at once.

    Raises:
        TooLarge: see `too_many_values`.
    """
    if _MANY.match(text) and num_values(text) > most:
        raise too_many_values(name, most, setting)


def too_many_values(name: str, most: int, setting: str = "") -> TooLarge:
    """What is said of JSON that has more."""
    return TooLarge(
        f"expected {name} as JSON of at most {most} values{setting}; found more commas and brackets; send less at once"
    )


def places(error: ValidationError, *inside: str) -> list[dict[str, str]]:
    """What is wrong, place by place; of very many only how many there are."""
    number = error.error_count()
    if number <= MAX_TOLD:
        return pointers(error.errors(), *inside)
    whole = "".join(f"/{part}" for part in inside)
    return [{"pointer": whole, "detail": f"{number} problems, too many to tell each of them"}]


def pointers(problems: Iterable[Mapping[str, Any]], *inside: str) -> list[dict[str, str]]:
    """What pydantic found, each as a JSON pointer to its place and what is wrong there."""
    return [
        {"pointer": "".join(f"/{part}" for part in (*inside, *item["loc"])), "detail": _detail(item)}
        for item in problems
    ]


def _detail(item: Mapping[str, Any]) -> str:
    """What was expected, and what was found where the message does not say so and it was not left out."""
    message = str(item["msg"])
    if item["type"] in ("missing", "json_invalid") or "input" not in item or "found" in message:
        return message
    return f"{message}; found {_brief(item['input'])}"


def _brief(value: Any) -> str:
    """A value in a few words: whoever has sent it has it whole."""
    if isinstance(value, Mapping):
        return f"an object of {len(value)} fields"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    if isinstance(value, str | bytes):
        return repr(value[:MAX_BRIEF]) + "..." * (len(value) > MAX_BRIEF)
    return repr(value)[:MAX_BRIEF]
