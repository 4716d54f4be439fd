"""What text from outside may be, to be stored and to be shown."""

import json
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

# Of whatever has a name here: it is part of addresses, paths and labels.
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"


def is_name(text: str) -> bool:
    """Whether anything here can have that name."""
    return re.fullmatch(NAME, text) is not None


def is_storable(text: str) -> bool:
    """Whether UTF-8 and every database can hold it: no NUL character, no half of a surrogate pair."""
    return storable(text) == text


def storable(text: str) -> str:
    """The text as UTF-8 and every database can hold it: what they cannot is spelled out, with a backslash."""
    return text.encode(errors="backslashreplace").decode().replace("\0", "\\x00")


def is_printable(text: str) -> bool:
    """Whether it can be shown as a name: no control character, no half of a surrogate pair and no line break.

    `str.isprintable` would refuse other kinds of spaces as well, and what joins letters to one sign.
    """
    return not any(unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") for char in text)


def in_yaml(value: Any) -> str:
    """A value as YAML in one line, whatever text is in it.

    That is JSON, but for characters that nobody sees: JSON leaves those as they are that YAML forbids or folds.

    Raises:
        ValueError: NaN or infinity, which JSON has not.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return "".join(char if char.isprintable() else f"\\U{ord(char):08x}" for char in text)


def few(names: Sequence[str], most: int = 5) -> str:
    """The first of some names, and how many more there are, for a message."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
