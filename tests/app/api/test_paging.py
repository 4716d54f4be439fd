"""Where a page begins: below an id that may be gone, never below what is no id."""

import pytest

from app.services import models, paging
from tests import factories
from tests.app.api.test_queries import DOCUMENT, NATIVE
from tests.checks import problem

LISTS = [
    path
    for method, path in NATIVE
    if method == "get"
    and "{" not in path
    and any(one["name"] == "after" for one in DOCUMENT["paths"][path][method].get("parameters", []))
]


def test_the_lists_of_the_interface():
    assert len(LISTS) >= 10, LISTS


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize("after", ["", "job_nope", "zzz", "0", "zz_1m8g7abmx94kwy31x1h8", "DS_1M8G7ABMX94KWY31X1H8"])
def test_no_page_begins_below_what_is_no_id_of_its_list(shared_client, path, after):
    answer = shared_client.get(path, params={"after": after})
    # Lists of names say that there is none.
    expected = {"/api/v1/models": (404, "not_found")}.get(path, (400, "bad_request"))
    detail = problem(answer, *expected)["detail"]
    assert "expected" in detail
    assert "found" in detail


def test_a_page_goes_on_below_a_row_that_is_gone(client, database):
    with database.write() as session:
        ids = sorted((factories.dataset(session, name=f"n{number}").id for number in range(4)), reverse=True)
    assert client.delete(f"/api/v1/datasets/{ids[1]}").status_code == 204
    found = client.get("/api/v1/datasets", params={"after": ids[1]}).json()
    assert [row["id"] for row in found["data"]] == ids[2:]


def test_a_page_ends_where_its_documents_are_too_large(client, database, monkeypatch):
    monkeypatch.setattr(paging, "PAGE_BYTES", 2500)
    with database.write() as session:
        sizes = [10, 1000, 1000, 5000, 10, 10]
        for number, size in enumerate(sizes):
            classes = [{"name": "x" * size, "num_samples": 4}]
            factories.dataset(session, name=f"n{number}", classes=classes)
    pages, after = [], None
    while True:
        found = client.get("/api/v1/datasets", params={"after": after, "limit": 4} if after else {"limit": 4}).json()
        pages.append([len(row["classes"][0]["name"]) for row in found["data"]])
        if not found["has_more"]:
            break
        after = found["data"][-1]["id"]
    assert [size for page in pages for size in page] == sizes[::-1]
    assert pages == [[10, 10], [5000], [1000, 1000, 10]]


def test_of_nothing_there_is_a_page(client):
    assert client.get("/api/v1/datasets").json() == {"data": [], "has_more": False}


def test_a_page_of_models_ends_where_their_versions_say_too_much(client, database, monkeypatch):
    monkeypatch.setattr(paging, "PAGE_BYTES", 2500)
    with database.write() as session:
        for name in ("a", "b", "c"):
            model = factories.model(session, name, 2)
            for version in models.versions(session, [model.id])[model.id]:
                version.metrics = {"x" * 500: 1.0}
    first = client.get("/api/v1/models").json()
    assert ([row["name"] for row in first["data"]], first["has_more"]) == (["c", "b"], True)
    rest = client.get("/api/v1/models", params={"after": "b"}).json()
    assert ([row["name"] for row in rest["data"]], rest["has_more"]) == (["a"], False)
