"""The page of the interface's description: it works without the internet, and nobody else's script runs in it."""

import re

TYPES = {".js": "text/javascript", ".css": "text/css"}


def test_all_that_the_page_loads_comes_from_here(shared_client):
    answer = shared_client.get("/docs")
    assert "script-src 'self';" in answer.headers["Content-Security-Policy"]
    loaded = re.findall(r'(?:src|href)="(?!data:)([^"]+)"', answer.text)
    assert len(loaded) == 3
    assert not re.search(r"<script>|https?:", answer.text)
    for place in loaded:
        found = shared_client.get(f"/{place}")
        assert found.status_code == 200
        assert found.headers["content-type"].startswith(TYPES[place[place.rindex(".") :]])
    assert "SwaggerUIBundle" in shared_client.get("/docs/swagger-ui-bundle.js").text
    (document,) = re.findall(r'url: "([^"]+)"', shared_client.get("/docs/start.js").text)
    assert shared_client.get(f"/{document}").json()["openapi"].startswith("3.")


def test_pages_of_the_framework_that_load_from_elsewhere_are_not_there(shared_client):
    for path in ("/redoc", "/docs/oauth2-redirect"):
        assert shared_client.get(path).status_code == 404
