"""Queries of predictions: the second request with one is answered, and refused, as the first."""

import pytest
from fastapi import routing
from starlette.routing import NoMatchFound

from app.api import direct
from app.api.predictions import router
from app.services import keys
from tests.app.api.callers import bearer, key, keyed
from tests.checks import problem
from tests.inference import NAME, PICTURES, publish

URL = f"/api/v1/models/{NAME}/predict"
KNOWN = router.routes[0]._known


@pytest.fixture
def ask(light_client, tmp_path):
    """A prediction with a query."""
    publish(light_client.app.state.graft, tmp_path / "made")
    KNOWN.clear()

    def asked(query, **headers):
        kind = {"Content-Type": "application/octet-stream"}
        return light_client.post(f"{URL}?{query}", content=PICTURES[0], headers={**kind, **headers})

    return asked


@pytest.fixture
def solved(monkeypatch):
    """One item for each request whose parameters the framework has worked out."""
    found, solve = [], routing.solve_dependencies

    async def counting(**given):
        found.append(given["request"].url.query)
        return await solve(**given)

    monkeypatch.setattr(routing, "solve_dependencies", counting)
    return found


def test_each_query_is_worked_out_once(ask, solved):
    queries = ["", "top_k=1", "top_k=2", "version=1", "version=1&top_k=1", "top_k=1&version=1"]
    first, second, third = ([ask(query).json() for query in queries] for _ in range(3))
    assert solved == queries
    assert first == second == third
    assert [len(one["predictions"][0]["scores"]) for one in second] == [3, 1, 2, 3, 1, 1]
    assert [one["version"] for one in second] == [2, 2, 2, 1, 1, 1]


@pytest.mark.parametrize("query", ["top_k=0", "topk=1", "top_k=1&top_k=2", "precision=int4", "version=x", "alias=%00"])
def test_what_is_wrong_is_so_each_time(ask, query):
    assert ask("").status_code == 200
    first, second = (problem(ask(query), 422, "invalid_payload") for _ in range(2))
    assert first["errors"] == second["errors"]
    assert query.encode() not in KNOWN


@pytest.fixture
def looked(monkeypatch):
    """One item for each router that was looked through."""
    found, matches = [], routing.APIRouter.matches

    def counting(self, scope):
        found.append(self)
        return matches(self, scope)

    monkeypatch.setattr(routing.APIRouter, "matches", counting)
    return found


def test_a_known_query_is_not_looked_for_among_routers(ask, looked):
    first = ask("top_k=1")
    assert looked
    looked.clear()
    second = ask("top_k=1")
    assert looked == []
    assert first.json() == second.json()
    assert first.headers.keys() == second.headers.keys()


@pytest.mark.parametrize("path", [f"{URL}/", f"{URL}%0A", URL.replace("tiny", "ti%2Fny"), URL.removeprefix("/api")])
def test_another_path_is_what_it_was(ask, light_client, path):
    before = light_client.post(path, content=PICTURES[0], follow_redirects=False)
    assert ask("").status_code == 200
    after = light_client.post(path, content=PICTURES[0], follow_redirects=False)
    assert (after.status_code, after.content) == (before.status_code, before.content)
    assert after.headers.get("location") == before.headers.get("location")


def test_known_routes_have_no_name(light_client):
    with pytest.raises(NoMatchFound):
        light_client.app.url_path_for("nothing")
    assert light_client.app.url_path_for("predict", name="tiny") == URL


def test_another_method_is_refused_as_before(ask, light_client):
    before = light_client.get(URL)
    assert ask("").status_code == 200
    after = light_client.get(URL)
    assert (before.status_code, before.headers["Allow"]) == (405, "POST")
    assert (after.status_code, after.headers["Allow"], after.content) == (405, "POST", before.content)


@pytest.mark.parametrize("kind", ["predict", "embed"])
def test_a_known_query_opens_nothing(light, tmp_path, kind):
    url = f"/api/v1/models/{NAME}/{kind}"
    with keyed(light) as client:
        state = client.app.state.graft
        own, other = key(state, "predict"), key(state, "predict", project="other")
        weak = key(state, *(set(keys.SCOPES) - {"predict"} - {"admin"}))
        publish(state, tmp_path / "made")

        def status(made):
            headers = {"Content-Type": "image/png", **({} if made is None else bearer(made))}
            return client.post(url, content=PICTURES[0], headers=headers).status_code

        for _ in range(2):
            assert [status(made) for made in (own, weak, other, None)] == [200, 403, 404, 401]


def test_of_many_queries_few_are_remembered(ask, monkeypatch):
    monkeypatch.setattr(direct, "MAX_QUERIES", 8)
    for number in range(1, 31):
        assert ask(f"top_k={number}").status_code == 200
        assert len(KNOWN) <= 8
    assert ask(f"top_k={'0' * 300}1").status_code == 200
    assert max(map(len, KNOWN)) < 256
