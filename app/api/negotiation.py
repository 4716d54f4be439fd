"""JSON for programs, a page for people: what of the two a request wants."""

from fastapi import Request
from fastapi.responses import HTMLResponse

from app.pages.render import POLICY


def wants_page(request: Request) -> bool:
    """Whether `Accept` names HTML before JSON, as browsers do."""
    accept = request.headers.get("accept", "")
    return "text/html" in accept and "application/json" not in accept.partition("text/html")[0]


def page(html: str) -> HTMLResponse:
    """A page that may show itself and the pictures inside it, and nothing else."""
    return HTMLResponse(html, headers={"Content-Security-Policy": POLICY})
