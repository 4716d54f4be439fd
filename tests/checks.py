"""What is true of every answer of a kind."""

from typing import Any
from urllib.parse import unquote

from app.api import oip_errors as oip

PROBLEM = "application/problem+json"


def problem(response: Any, status: int, code: str) -> dict[str, Any]:
    """The document of a refusal, after its shape was checked (RFC 9457)."""
    body = response.json()
    assert (response.status_code, body.get("code")) == (status, code), body
    assert response.headers["content-type"] == PROBLEM
    assert {"type", "title", "status", "code", "detail", "instance"} <= body.keys()
    assert body["type"] == f"urn:graft:problem:{code}"
    assert body["status"] == status
    assert body["title"]
    assert len(body["detail"]) > 20
    assert unquote(body["instance"]) == response.request.url.path
    return dict(body)


def inference_error(response: Any, status: int) -> str:
    """What a refusal under /v2 says, after its shape was checked (Open Inference Protocol)."""
    body = response.json()
    assert response.status_code == status, body
    assert response.headers["content-type"] == "application/json"
    assert body.keys() == {"error"}
    assert len(body["error"]) > 20
    return str(body["error"])


def refusal(response: Any, status: int, code: str) -> None:
    """A refusal in the shape of whatever is spoken at the request's path."""
    if oip.concerns(response.request.url.path):
        inference_error(response, status)
    else:
        problem(response, status, code)
