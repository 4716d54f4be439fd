"""`/docs`: the interface's description as a page to try it on. Everything that it loads comes from here."""

from importlib.util import find_spec
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, Response

from app.api.files import Attachment

DOCUMENT, PAGE = "/openapi.json", "/docs"
SCRIPT, STYLE, START = f"{PAGE}/swagger-ui-bundle.js", f"{PAGE}/swagger-ui.css", f"{PAGE}/start.js"
PATHS = frozenset({DOCUMENT, PAGE, SCRIPT, STYLE, START})
# Swagger UI sets styles on its elements; no script stands in the page.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; frame-ancestors 'none'"
)
HTML = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8"><title>Graft: interface</title>
<link rel="stylesheet" href="docs/swagger-ui.css"><link rel="icon" href="data:,">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script><script src="docs/start.js"></script>
</body>
</html>
"""
STARTED = 'SwaggerUIBundle({url: "openapi.json", dom_id: "#swagger-ui", deepLinking: true});\n'
KEPT = {"Cache-Control": "public, max-age=86400"}

router = APIRouter(include_in_schema=False)


@router.get(PAGE)
def page() -> Response:
    """The page."""
    return HTMLResponse(HTML, headers={"Content-Security-Policy": POLICY})


@router.get(START)
def start() -> Response:
    """What begins it; in a file of its own, so that the page needs no inline script."""
    return Response(STARTED, media_type="text/javascript", headers=KEPT)


@router.get(SCRIPT)
def script() -> Response:
    """Swagger UI."""
    return Attachment(_static() / "swagger-ui-bundle.js", media_type="text/javascript", headers=KEPT)


@router.get(STYLE)
def style() -> Response:
    """Its looks."""
    return Attachment(_static() / "swagger-ui.css", media_type="text/css", headers=KEPT)


def _static() -> Path:
    """Where the package has Swagger UI's files; its code is not imported."""
    found = find_spec("fastapi_offline")
    assert found is not None
    assert found.submodule_search_locations
    return Path(found.submodule_search_locations[0]) / "static"
