"""A parameter that a call does not have is refused, whichever call it is."""

from fastapi.routing import APIRoute

from app.api import queries
from app.main import ROLES, create_app
from app.settings import Settings
from tests.checks import problem

DOCUMENT = create_app(Settings()).openapi()
NATIVE = sorted(
    (method, path)
    for path, item in DOCUMENT["paths"].items()
    if path.startswith("/api/v1/")
    for method in item
)  # fmt: skip


def test_a_filter_with_a_slip_in_its_name_shows_nothing(light_client):
    found = problem(light_client.get("/api/v1/jobs?stat=failed&limit=5&colour=red"), 422, "invalid_payload")
    assert found["errors"] == [
        {"pointer": "/query/stat", "detail": "Unknown parameter"},
        {"pointer": "/query/colour", "detail": "Unknown parameter"},
    ]
    assert "after, dataset, limit, state; found stat, colour" in found["detail"]
    assert light_client.get("/api/v1/jobs?state=failed&limit=5").json() == {"data": [], "has_more": False}
    found = problem(light_client.get("/api/v1/jobs/job_0?limit=1"), 422, "invalid_payload")
    assert "this call has none; found limit" in found["detail"]


def test_every_call_of_the_native_interface(light_client):
    for method, path in NATIVE:
        if method == "options":
            # What the protocol of uploads tells before anything is asked.
            continue
        answer = light_client.request(method, path.replace("{", "").replace("}", ""), params={"no_such": "1"})
        found = problem(answer, 422, "invalid_payload")
        assert found["errors"] == [{"pointer": "/query/no_such", "detail": "Unknown parameter"}], (method, path)


def test_a_parameter_given_twice_has_no_value_to_go_by(light_client):
    found = problem(light_client.get("/api/v1/jobs?limit=1&state=failed&limit=5&state=failed"), 422, "invalid_payload")
    assert found["errors"] == [
        {"pointer": "/query/limit", "detail": "Parameter is there more than once"},
        {"pointer": "/query/state", "detail": "Parameter is there more than once"},
    ]
    assert "found more than one limit, state; leave one of them" in found["detail"]


def test_every_parameter_of_the_native_interface_is_one_value(light_client):
    tried = 0
    for method, path in NATIVE:
        for one in DOCUMENT["paths"][path][method].get("parameters", []):
            if one["in"] != "query":
                continue
            # Else the refusal would forbid what the description allows.
            assert "array" not in str(one["schema"]), (method, path, one["name"])
            place = path.replace("{", "").replace("}", "")
            answer = light_client.request(method, f"{place}?{one['name']}=1&{one['name']}=2")
            found = problem(answer, 422, "invalid_payload")
            expected = {"pointer": f"/query/{one['name']}", "detail": "Parameter is there more than once"}
            assert found["errors"] == [expected], (method, path)
            tried += 1
    assert tried > 0


def test_what_is_known_is_what_the_interface_describes():
    routes = [route for routers in ROLES.values() for router in routers for route in router.routes]
    described = {(method, path): DOCUMENT["paths"][path][method].get("parameters", []) for method, path in NATIVE}
    seen = set()
    for route in routes:
        assert isinstance(route, APIRoute)
        for method in route.methods:
            key = method.lower(), f"/api/v1{route.path}"
            assert queries.names(route) == sorted(one["name"] for one in described[key] if one["in"] == "query")
            seen.add(key)
    assert seen == described.keys()


def test_other_peoples_interfaces_and_the_pages_say_what_they_always_did(light_client):
    for path in ("/livez?x=1", "/v2?x=1", "/v2/health/live?x=1", "/openapi.json?x=1", "/docs?x=1"):
        assert light_client.get(path).status_code == 200, path
