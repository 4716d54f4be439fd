"""The guard, on every route of the OpenAPI document."""

import pytest
from fastapi.testclient import TestClient

from app.main import create_app
from app.settings import Settings
from tests.checks import problem, refusal


def all_routes():
    document = create_app(Settings()).openapi()
    return sorted((method.upper(), path) for path, item in document["paths"].items() for method in item)


ROUTES = all_routes()
WRITES = [(method, path) for method, path in ROUTES if method not in ("GET", "OPTIONS")]
FOREIGN_HOSTS = [
    "evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8000", "127.0.0.2", "", "[::2]", "::1",
    "[::1].evil.example", "[::1]8000", "[::1", "localhost:8000@evil.example", "localhost:evil", "localhost:1:2",
]  # fmt: skip
OUR_HOSTS = ["127.0.0.1", "127.0.0.1:8000", "localhost", "LOCALHOST:1", "localhost:", "[::1]", "[::1]:8000"]
FOREIGN_ORIGINS = [
    "https://evil.example",
    "null",
    "http://127.0.0.1.evil.example",
    "file://",
    "garbage",
    "http://[bad",
    "http://localhost:3000",
    "https://127.0.0.1:1",
    "http://127.0.0.1:99999",
]


def filled(path):
    """The path with something in every place."""
    return path.replace("{version}", "1").replace("{", "").replace("}", "")


def test_there_are_routes():
    assert len(ROUTES) > 25
    assert len(WRITES) > 10


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_foreign_host_is_refused_everywhere(shared_client, method, path):
    for host in FOREIGN_HOSTS:
        refusal(shared_client.request(method, filled(path), headers={"Host": host}), 421, "unknown_host")


def test_of_two_hosts_none_is_believed(shared_client):
    hosts = [("Host", "127.0.0.1"), ("Host", "127.0.0.1")]
    refusal(shared_client.get("/api/v1/models", headers=hosts), 400, "bad_request")


@pytest.mark.parametrize(("method", "path"), WRITES)
def test_cross_site_writes_are_refused_everywhere(shared_client, method, path):
    for origin in FOREIGN_ORIGINS:
        refusal(shared_client.request(method, filled(path), headers={"Origin": origin}), 403, "cross_site")
    for origin in ({}, {"Origin": "http://127.0.0.1:8000"}):
        headers = {**origin, "Sec-Fetch-Site": "cross-site"}
        refusal(shared_client.request(method, filled(path), headers=headers), 403, "cross_site")


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_our_own_pages_and_programs_get_through(shared_client, method, path):
    for host in OUR_HOSTS:
        headers = {"Host": host, "Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}
        assert shared_client.request(method, filled(path), headers=headers).status_code not in (403, 421)


def test_a_large_body_changes_nothing_of_an_early_refusal(shared_client):
    large = {"Content-Length": str(10**9)}
    for headers, status, code in (
        ({"Host": "evil.example"}, 421, "unknown_host"), ({"Origin": "https://evil.example"}, 403, "cross_site")
    ):  # fmt: skip
        problem(shared_client.post("/api/v1/models/m/predict", headers={**large, **headers}), status, code)
    refused = problem(shared_client.post("/api/v1/jobs", headers=large), 413, "body_too_large")
    assert "GRAFT_MAX_JSON_BYTES" in refused["detail"]


def test_a_body_that_grows_too_large_is_refused_as_every_other_one(light):
    with TestClient(
        create_app(light.model_copy(update={"max_json_bytes": 1000})), base_url="http://127.0.0.1"
    ) as client:
        for path in ("/api/v1/jobs", "/api/v1/rankings"):
            sent = client.post(path, content=iter([b"x" * 600] * 2), headers={"Content-Type": "application/json"})
            problem(sent, 413, "body_too_large")


def test_reads_from_other_sites_are_left_to_the_browser(shared_client):
    headers = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
    answer = shared_client.get("/api/v1/jobs", headers=headers)
    assert answer.status_code == 200
    assert "access-control-allow-origin" not in answer.headers


def test_hosts_of_the_settings_are_ours(light):
    app = create_app(light.model_copy(update={"allowed_hosts": ("graft.example",)}))
    with TestClient(app, base_url="http://graft.example:9000") as client:
        assert client.get("/livez").status_code == 200
        wanted = {"Origin": "https://graft.example"}
        problem(client.post("/api/v1/jobs/job_0/cancel", headers=wanted), 404, "not_found")
        problem(client.get("/livez", headers={"Host": "other.example"}), 421, "unknown_host")
        problem(client.post("/api/v1/jobs", headers={"Origin": "https://other.example"}), 403, "cross_site")


def test_pages_of_allowed_origins_may_call_and_no_others(light):
    page = "https://app.example.org"
    app = create_app(light.model_copy(update={"cors_origins": (page,)}))
    with TestClient(app, base_url="http://127.0.0.1") as client:
        asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
        allowed = client.options("/api/v1/jobs", headers={"Origin": page, **asked})
        assert (allowed.status_code, allowed.headers["Access-Control-Allow-Origin"]) == (200, page)
        assert "Access-Control-Allow-Credentials" not in allowed.headers
        cross = {"Sec-Fetch-Site": "cross-site"}
        answer = client.post("/api/v1/jobs/job_0/cancel", headers={"Origin": page, **cross})
        problem(answer, 404, "not_found")
        assert answer.headers["Access-Control-Allow-Origin"] == page
        for other in ("https://evil.example", f"{page}.evil.example", "null"):
            answer = client.post("/api/v1/jobs/job_0/cancel", headers={"Origin": other, **cross})
            problem(answer, 403, "cross_site")
            assert "Access-Control-Allow-Origin" not in answer.headers
            assert client.options("/api/v1/jobs", headers={"Origin": other, **asked}).status_code == 400


@pytest.mark.parametrize("path", ["/livez", "/api/v1/jobs", "/nothing", "/v2/models/none", "/openapi.json", "/docs"])
def test_every_answer_tells_browsers_to_be_careful(shared_client, path):
    for headers in ({}, {"Host": "evil.example"}):
        found = shared_client.get(path, headers=headers).headers
        assert found["X-Content-Type-Options"] == "nosniff"
        assert (found["X-Frame-Options"], found["Referrer-Policy"]) == ("DENY", "no-referrer")
        assert found["Cross-Origin-Resource-Policy"] == "same-origin"
        assert found["Content-Security-Policy"].startswith("default-src 'none'")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "not_found"),
        ("GET", "/api/v1/nothing", 404, "not_found"),
        ("PATCH", "/api/v1/jobs", 405, "method_not_allowed"),
        ("DELETE", "/livez", 405, "method_not_allowed"),
    ],
)
def test_what_the_framework_refuses_has_the_same_shape(shared_client, method, path, status, code):
    found = problem(shared_client.request(method, path), status, code)
    assert found["detail"].startswith("expected ")
    assert f"found {method} {path};" in found["detail"]


def test_methods_of_a_path_are_all_named(shared_client):
    for path, allowed in {"/api/v1/jobs": "GET, HEAD, POST", "/api/v1/jobs/job_0/cancel": "POST"}.items():
        answer = shared_client.put(path)
        problem(answer, 405, "method_not_allowed")
        assert answer.headers["Allow"] == allowed
    assert shared_client.head("/api/v1/jobs/job_0/cancel").status_code == 405


@pytest.mark.parametrize("path", ["/api/v1/jobs", "/api/v1/jobs/job_0", "/openapi.json"])
def test_head_is_get_without_a_body(shared_client, path):
    named = {"X-Request-Id": "one"}
    found, wanted = shared_client.head(path, headers=named), shared_client.get(path, headers=named)
    assert (found.status_code, found.headers) == (wanted.status_code, wanted.headers)
    assert found.content == b""


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_a_path_that_ends_with_a_line_is_none(shared_client, method, path):
    """The framework would take it for the one without."""
    refusal(shared_client.request(method, f"{filled(path)}%0A"), 404, "not_found")
