"""Fields that come beside a file, checked as the framework checks a JSON body; and answers that are given again."""

import json
from typing import Any, TypeVar

from fastapi import Response
from pydantic import BaseModel, ValidationError

from app.errors import Unprocessable
from app.services.idempotency import Answer

M = TypeVar("M", bound=BaseModel)


def checked(model: type[M], fields: Any) -> M:
    """The fields as a model.

    Raises:
        Unprocessable: with a pointer to each field that is missing, unknown or out of bounds.
    """
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        errors = [
            {"pointer": "/" + "/".join(str(part) for part in item["loc"]), "detail": item["msg"]}
            for item in error.errors()
        ]
        places = ", ".join(item["pointer"] for item in errors)
        raise Unprocessable(
            f"expected valid fields beside the file; found problems at {places}", errors=errors
        ) from error


def from_json(name: str, text: str | bytes) -> Any:
    """A field, or a body, that holds JSON.

    Raises:
        Unprocessable: it does not.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Unprocessable(f"expected {name} as JSON; found {error}") from error


def replayed(kept: Answer, status: int = 202) -> Response:
    """The first answer again, to a POST that came with the same Idempotency-Key."""
    headers = {"Idempotent-Replayed": "true"} | ({"Location": kept.location} if kept.location else {})
    return Response(kept.body, status, headers, "application/json")
