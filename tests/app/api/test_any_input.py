"""Whatever stands in a path, a query or a body: an answer or a problem, never an error of ours.

On PostgreSQL, which holds less than SQLite does.
"""

import json
from urllib.parse import quote

import pytest

from app.main import create_app
from app.settings import Settings
from tests import factories
from tests.checks import refusal

pytestmark = [pytest.mark.server, pytest.mark.parametrize("database_kind", ["postgresql"])]
DOCUMENT = create_app(Settings()).openapi()
ROUTES = sorted((method, path) for path, item in DOCUMENT["paths"].items() for method in item)
TEXTS = [
    "\0", "a\0b", "'; DROP TABLE job; --", "%", "../../etc/passwd", "\u2603\U0001f600", "x" * 5000, "\n", " ", "\ufeff",
    "-1", "0", "99999999999999999999", "1e999", "NaN", "null", "true",
]  # fmt: skip


def places(method, path):
    """(where, name) of every parameter of a route."""
    operation = DOCUMENT["paths"][path][method]
    return [(item["in"], item["name"]) for item in operation.get("parameters", []) if item["in"] != "header"]


def filled(path, values):
    for where, name in places("get", path) if "get" in DOCUMENT["paths"][path] else []:
        if where == "path":
            values.setdefault(name, "1")
    parts = [values.get(part[1:-1], "1") if part.startswith("{") else part for part in path.split("/")]
    return "/".join(quote(part, safe="") for part in parts)


def check(answer):
    assert answer.status_code != 500, answer.text
    if answer.status_code >= 400 and answer.request.url.path != "/readyz":
        refusal(answer, answer.status_code, answer.json().get("code", ""))


@pytest.mark.parametrize(("method", "path"), [route for route in ROUTES if places(*route)])
def test_every_parameter(client, method, path):
    for where, name in places(method, path):
        for text in TEXTS:
            if where == "path":
                check(client.request(method, filled(path, {name: text})))
            else:
                check(client.request(method, filled(path, {}), params={name: text}))


BODIES = [
    None, 1, "a", [], {}, {"dataset": "\0"}, {"dataset": "ds_0", "model": "m", "depends_on": ["\0"]},
    {"dataset": "ds_0", "model": "m", "backbone": "\0"}, {"dataset": "ds_0", "model": "m", "recipe": {"method": "\0"}},
    {"dataset": "ds_0", "model": "m", "recipe": {"method": "linear_probe", "\0": 1}},
    {"dataset": "ds_0", "model": "m", "seed": 2**63}, {"dataset": "ds_0", "model": "m", "seed": 1e308},
    {"name": "a", "base": "\0"}, {"name": "a", "base": "ds_0", "remove": ["\0"], "relabel": {"\0": "\0"}},
    {"url": "https://a.example/", "description": "\0"}, {"url": "http://a\0/"}, {"events": ["\0"]},
    {"version": 2**63}, {"version": -1}, {"images": [{"b64": "\0"}]}, {"images": [None]},
]  # fmt: skip
RAW = [
    b"",
    b"\xff",
    b"{",
    b'"\\ud800"',
    b'{"dataset": "\\ud800", "model": "\\ud800"}',
    b"[" * 5000,
    b'{"a": 1e999}',
    b"NaN",
]
RAW += [b'{"dataset": "ds_0", "model": "m", "recipe": {"method": "linear_probe", "\\ud800": "\\ud800"}}']
RAW += [b'{"dataset": "\\ud800", "model": "m"}', b'{"dataset": "ds_0", "model": "m", "depends_on": ["\\ud800"]}']
RAW += [
    b'{"name": "a", "base": "\\ud800", "remove": ["\\ud800"]}',
    b'{"kind": "extract", "dataset": "d", "backbone": "\\ud800"}',
]
RAW += [b'{"name": "a", "base": "ds_0", "relabel": {"\\ud800": "\\ud800"}}', b'{"\\ud800": 1}']


@pytest.mark.parametrize(("method", "path"), [route for route in ROUTES if route[0] in ("post", "put", "patch")])
def test_every_body(client, method, path):
    bodies = [json.dumps(body).encode() for body in BODIES] + RAW
    for body in bodies:
        for kind in ("application/json", "multipart/form-data; boundary=a", "image/png", "text/plain", ""):
            headers = {"Content-Type": kind} if kind else {}
            check(client.request(method, filled(path, {}), content=body, headers=headers))


def test_text_that_the_database_may_not_hold(client, database):
    with database.write() as session:
        base = factories.dataset(session).id
    for text in ("\0", "\ud800", "\udcff"):
        body = json.dumps({"name": "a", "base": base, "relabel": {text: text}, "remove": [text]})
        check(client.post("/api/v1/datasets", content=body, headers={"Content-Type": "application/json"}))
    archive = factories.pack(factories.pictures(1))
    form = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a\0\xff.zip"\r\n\r\n' + archive + b"\r\n"
    form += b'--b\r\nContent-Disposition: form-data; name="name"\r\n\r\na\r\n--b--\r\n'
    check(client.post("/api/v1/datasets", content=form, headers={"Content-Type": "multipart/form-data; boundary=b"}))
    keys = [b"\x00", b"\xff", b"a\x7f", "\u2603".encode()]
    for key in keys:
        headers = {b"Content-Type": b"application/json", b"Idempotency-Key": key}
        check(client.post("/api/v1/jobs", content=b'{"dataset": "ds_0", "model": "m"}', headers=headers))
    for path in ("/api/v1/datasets", "/api/v1/jobs"):
        assert client.get(path).status_code == 200
