"""Bodies that are read by hand: their kind, fields beside a file, JSON; and answers that are given again."""

import json
from collections.abc import Iterable
from typing import Any, TypeVar

from fastapi import Request, Response
from pydantic import BaseModel, ValidationError

from app.api import headers
from app.api.multipart import Part
from app.bodies import check_values, places, why_no_json
from app.errors import Unprocessable, UnsupportedMediaType
from app.services.idempotency import Answer

M = TypeVar("M", bound=BaseModel)

# For `max_body_size` of routes that read their body by hand, and keep to a limit of their own: more than any
# Content-Length that a server reads.
UNLIMITED = 2**64


def form_body(required: list[str], properties: dict[str, Any], *json_models: str) -> dict[str, Any]:
    """What the schema says of a form that is read by hand.

    Args:
        required: names of fields.
        properties: schema of each field.
        json_models: models that may be sent as JSON instead.
    """
    form = {"type": "object", "required": required, "properties": properties}
    content: dict[str, Any] = {"multipart/form-data": {"schema": form}}
    if json_models:
        schemas = [{"$ref": f"#/components/schemas/{name}"} for name in json_models]
        content["application/json"] = {"schema": schemas[0] if len(schemas) == 1 else {"anyOf": schemas}}
    return {"requestBody": {"required": True, "content": content}}


def media_type(request: Request, *accepted: str) -> str:
    """The body's content type, without parameters.

    Args:
        request: any.
        accepted: what the route takes; `image/*` is all that begins so.

    Raises:
        UnsupportedMediaType: it is none of them.
    """
    found = plain_type(request, "content-type")
    if not any(found == one or (one.endswith("/*") and found.startswith(one[:-1])) for one in accepted):
        raise UnsupportedMediaType(
            f"expected a body of content type {' or '.join(accepted)}; found {found or 'none'}; see /docs for what "
            "stands in it"
        )
    return found


def plain_type(request: Request, header: str) -> str:
    """The media type that a header (its name in lower case) names first, without parameters; empty for none."""
    return headers.media_type(request.scope, header.encode()).partition(",")[0].strip()


def text_fields(parts: Iterable[Part]) -> dict[str, str]:
    """What a form says beside its files; of two values of one field neither would be the wanted one.

    Raises:
        Unprocessable: with a pointer to a field that is there twice.
    """
    fields: dict[str, str] = {}
    for part in parts:
        if part.name in fields:
            twice = {"pointer": f"/{part.name}", "detail": "Field is there more than once"}
            raise _invalid([twice], "each field beside the file once")
        fields[part.name] = part.text
    return fields


def checked(model: type[M], fields: Any) -> M:
    """Fields that came beside a file; they are text, and `3` is a number.

    Raises:
        Unprocessable: with a pointer to each field that is missing, unknown or out of bounds.
    """
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise _invalid(places(error), "valid fields beside the file") from error


def checked_json(model: type[M], body: Any, *inside: str) -> M:
    """A JSON body, or one of its lines, strictly.

    Args:
        model: what it is to be.
        body: as it was read.
        inside: of the body, the place that it stands at; none: it is all of it.

    Raises:
        Unprocessable: as in `checked`.
    """
    try:
        return model.model_validate(body, strict=True)
    except ValidationError as error:
        expected = f"a JSON body that fits {model.__name__} at /openapi.json"
        raise _invalid(places(error, "body", *inside), expected) from error


def _invalid(errors: list[dict[str, str]], expected: str) -> Unprocessable:
    where = ", ".join(item["pointer"] for item in errors)
    return Unprocessable(f"expected {expected}; found problems at {where}; see errors", errors=errors)


def from_json(name: str, text: str | bytes, most: int | None = None) -> Any:
    """A field, or a body, that holds JSON.

    Args:
        name: of it, for whoever has sent it.
        text: as it came.
        most: values that it may have, where `Crowded` has not counted them.

    Raises:
        Unprocessable: it does not.
        TooLarge: it has more values.
    """
    if most is not None:
        check_values(name, text.encode() if isinstance(text, str) else text, most)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Unprocessable(f"expected {name} as JSON; found {why_no_json(error)}") from error


def replayed(kept: Answer, status: int = 202) -> Response:
    """The first answer again, to a POST that came with the same Idempotency-Key."""
    headers = {"Idempotent-Replayed": "true"} | ({"Location": kept.location} if kept.location else {})
    return Response(kept.body, status, headers, "application/json")
