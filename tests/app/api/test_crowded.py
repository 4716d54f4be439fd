"""JSON of very many values, or with very many mistakes: refused before it becomes objects, in bounded memory."""

import tracemalloc

import pytest

from app.bodies import MAX_TOLD
from tests.checks import problem

EMPTY = "{},"
KEYS = "".join(f'"a{place}":0,' for place in range(150_000))
BODIES = [
    ("/api/v1/models/tiny/predict", '{"images":[' + EMPTY * 350_000 + "{}]}"),
    ("/api/v1/models/tiny/predict", '{"images":[{' + KEYS + '"b":0}]}'),
    ("/api/v1/models/tiny/embed", '{"images":[' + EMPTY * 350_000 + "{}]}"),
    ("/api/v1/models/tiny/classes", '{"label":"a","images":[' + EMPTY * 350_000 + "{}]}"),
    ("/v2/models/tiny/infer", '{"inputs":[' + EMPTY * 350_000 + "{}]}"),
    ("/v2/models/tiny/infer", "{" + KEYS + '"inputs":[]}'),
    ("/v2/models/tiny/infer", '{"inputs":[],"outputs":[' + "[]," * 90_000 + "[]]}"),
    ("/v2/models/tiny/infer", '{"inputs":[{"name":"images","shape":[' + '"",' * 90_000 + "1]}]}"),
    ("/v2/repository/index", "{" + KEYS + '"ready":true}'),
    ("/v2/repository/models/tiny/load", '{"parameters":[' + "[]," * 350_000 + "[]]}"),
    ("/api/v1/jobs", '{"depends_on":[' + EMPTY * 350_000 + "{}]}"),
    ("/api/v1/jobs", "{" + KEYS + '"dataset":""}'),
    ("/api/v1/datasets", '{"base":"","remove":[' + "[]," * 350_000 + "[]]}"),
    ("/api/v1/uploads", "{" + KEYS + '"size_bytes":1}'),
]
JSON = {"Content-Type": "application/json"}


def refused(client, path, body):
    answer = client.post(path, content=body, headers=JSON)
    if path.startswith("/v2"):
        assert answer.status_code == 400
        return answer.json()["error"]
    return problem(answer, 413, "body_too_large")["detail"]


@pytest.mark.parametrize(("path", "body"), BODIES)
def test_json_of_very_many_values_takes_little_memory(shared_client, path, body):
    shared_client.post(path, content="{}", headers=JSON)
    tracemalloc.start()
    try:
        said = refused(shared_client, path, body)
        # Copies of the text, and what may still become objects; without a bound it was a gigabyte.
        assert tracemalloc.get_traced_memory()[1] < 24 * 2**20
    finally:
        tracemalloc.stop()
    assert "expected" in said
    assert len(said) < 1000


def test_of_many_mistakes_some_are_told_and_all_are_counted(shared_client):
    unknown = {f"a{place}": 0 for place in range(150)}
    for path in ("/api/v1/jobs", "/api/v1/uploads", "/api/v1/models/tiny/predict"):
        found = problem(shared_client.post(path, json=unknown), 422, "invalid_payload")
        assert len(found["errors"]) <= MAX_TOLD
        assert "problems" in found["errors"][0]["detail"] or "more; see errors" in found["detail"]
    said = shared_client.post("/v2/models/tiny/infer", json=unknown).json()["error"]
    assert "151 problems" in said


def test_a_few_mistakes_are_told_one_by_one(shared_client):
    found = problem(shared_client.post("/api/v1/uploads", json={"a": 0, "b": 0}), 422, "invalid_payload")
    assert {"/body/a", "/body/b"} <= {item["pointer"] for item in found["errors"]}


@pytest.mark.parametrize(
    "kind",
    ["application/json; charset=utf-8", "application/merge-patch+json", "application/octet-stream,+json", "text/plain"],
)
def test_what_is_json_by_its_type_is_counted(shared_client, kind):
    body = "{" + KEYS + '"dataset":""}'
    answer = shared_client.post("/api/v1/jobs", content=body, headers={"Content-Type": kind})
    assert answer.status_code == (422 if kind == "text/plain" else 413)
    assert answer.headers.get("Connection", "") == ("" if kind == "text/plain" else "close")


def test_an_image_that_is_sent_as_json_is_told_as_what_it_is(shared_client):
    """By the thousandth byte it has more commas than any JSON with images."""
    image = b"\xff\xd8" + b",[{" * 2**19
    found = problem(
        shared_client.post("/api/v1/models/tiny/predict", content=image, headers=JSON), 422, "invalid_payload"
    )
    assert "expected body as JSON; found" in found["detail"]
