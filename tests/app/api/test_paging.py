"""Where a page begins: below an id that may be gone, never below what is no id."""

import pytest
from sqlalchemy import event

from app.api import models as api_models
from app.db.aliases import Alias, AliasChange
from app.db.alignments import DomainBinding, DomainChange
from app.db.base import new_id
from app.services import aliases, models, paging
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


def moved(database, times):
    """An alias and a domain of one model that were moved so often."""
    with database.write() as session:
        model = factories.model(session, "colours", 3)
        mine = {"project_id": "default", "model_id": model.id}
        for number in range(times):
            kept = {"alias": "production", "version": 1 + number % 2}
            session.add(AliasChange(id=new_id("alc"), **mine, **kept))
            session.add(DomainChange(id=new_id("dmc"), **mine, domain="night", alignment_id=f"aln_{number}"))
        session.add(Alias(**mine, **kept))


@pytest.mark.parametrize(("path", "key"), [("aliases/production", "data"), ("domains/night", "history")])
def test_a_history_comes_in_pages(client, database, path, key):
    moved(database, 250)
    url, sizes, seen, after = f"/api/v1/models/colours/{path}", [], [], None
    more = True
    while more:
        page = client.get(url, params={"after": after} if after else {}).json()
        more, after = page["has_more"], page[key][-1]["id"]
        sizes.append(len(page[key]))
        seen += [row["id"] for row in page[key]]
        if key == "history":
            # How it stands is said on every page.
            assert page["alignment"] == "aln_249"
    assert sizes == [100, 100, 50]
    assert seen == sorted(set(seen), reverse=True)
    assert client.get(url, params={"after": after}).json()[key] == []
    assert len(client.get(url, params={"limit": 7}).json()[key]) == 7
    problem(client.get(url, params={"after": "job_1"}), 400, "bad_request")
    never = {"data": "not_found", "history": "unknown_domain"}[key]
    problem(client.get(f"{url}-never", params={"after": after}), 404, never)


def test_a_rollback_reads_no_more_of_a_history_than_it_needs(database):
    moved(database, 1000)
    loaded = []

    def count(row, _):
        loaded.append(row)

    event.listen(AliasChange, "load", count)
    try:
        with database.read() as session:
            assert aliases.before(session, "default", "colours", "production") == aliases.Target(1)
    finally:
        event.remove(AliasChange, "load", count)
    assert loaded == []


def test_domains_come_in_pages(client, database):
    with database.write() as session:
        model = factories.model(session, "colours")
        of = factories.alignment(session).id
        for name in ("day", "dusk", "night"):
            session.add(DomainBinding(model_id=model.id, project_id="default", domain=name, alignment_id=of))
    url = "/api/v1/models/colours/domains"
    found = client.get(url, params={"limit": 2}).json()
    assert ([row["domain"] for row in found["data"]], found["has_more"]) == (["day", "dusk"], True)
    found = client.get(url, params={"limit": 2, "after": "dusk"}).json()
    assert ([row["domain"] for row in found["data"]], found["has_more"]) == (["night"], False)


def test_versions_come_in_pages(client, database, monkeypatch):
    with database.write() as session:
        factories.model(session, "colours", 5)
        factories.model(session, "shapes", 2)
    monkeypatch.setattr(api_models, "VERSIONS", 3)
    for found in (client.get("/api/v1/models/colours").json(), client.get("/api/v1/models").json()["data"][1]):
        assert [row["version"] for row in found["versions"]] == [5, 4, 3]
        assert found["has_more_versions"]
    assert not client.get("/api/v1/models/shapes").json()["has_more_versions"]
    url = "/api/v1/models/colours/versions"
    found = client.get(url, params={"limit": 2, "after": 4}).json()
    assert ([row["version"] for row in found["data"]], found["has_more"]) == ([3, 2], True)
    monkeypatch.setattr(paging, "PAGE_BYTES", 1)
    found = client.get(url, params={"after": 2}).json()
    assert ([row["version"] for row in found["data"]], found["has_more"]) == ([1], False)
    assert client.get(url).json()["has_more"]
    problem(client.get("/api/v1/models/none/versions"), 404, "not_found")
