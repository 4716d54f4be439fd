"""Webhooks over HTTP, on both databases: who is told, what was sent, once more. Nothing is sent here."""

import base64

import pytest

from app.db.webhooks import Webhook, WebhookDelivery
from app.outbound import Guard
from app.services import deliveries, webhooks
from app.services.deliveries import Answer
from app.webhooks import EVENTS
from tests import factories
from tests.checks import problem

URL = "/api/v1/webhooks"
PLACE = "https://ci.example.org/graft"


def create(client, **fields):
    made = client.post(URL, json={"url": PLACE, **fields})
    assert made.status_code == 201, made.text
    assert made.headers["location"] == f"{URL}/{made.json()['id']}"
    return made.json()


def test_a_secret_is_shown_once_and_can_be_changed(client):
    made = create(client, description="CI", events=["job.failed", "job.succeeded", "job.failed"])
    secret = made.pop("secret")
    assert secret.startswith("whsec_")
    assert len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) == 32
    assert made["events"] == ["job.failed", "job.succeeded"]
    assert (made["enabled"], made["disabled_reason"], made["failing_since"]) == (True, None, None)
    other = create(client)
    assert (other["events"], other["secret"] != secret) == (list(EVENTS), True)
    listed = client.get(URL).json()
    assert [one["id"] for one in listed["data"]] == [other["id"], made["id"]]
    place = f"{URL}/{made['id']}"
    assert client.get(place).json() == listed["data"][1] == made
    renewed = client.post(f"{place}/secret").json()
    assert renewed["secret"] not in (secret, other["secret"])
    assert "secret" not in client.get(place).json()


def test_changes(client):
    place = f"{URL}/{create(client, description='CI')['id']}"
    before = client.get(place).json()
    changed = client.patch(place, json={"events": ["dataset.ready"], "enabled": False}).json()
    assert {name for name in before if before[name] != changed[name]} == {"events", "enabled", "updated_at"}
    assert client.patch(place, json={"url": "http://a.example:8080/"}).json()["url"] == "http://a.example:8080/"
    problem(client.patch(place, json={"url": "http://10.0.0.1/"}), 400, "webhook_url_refused")
    assert client.get(place).json()["url"] == "http://a.example:8080/"
    assert client.patch(place, json={}).json()["events"] == ["dataset.ready"]
    assert client.delete(place).status_code == 204
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/secret"), ("POST", "/test"), ("GET", "/deliveries")):
        problem(client.request(method, f"{place}{path}"), 404, "not_found")
    problem(client.patch(place, json={"enabled": True}), 404, "not_found")


def test_one_that_graft_disabled_is_enabled_again(client, database):
    place = f"{URL}/{(made := create(client))['id']}"
    with database.write() as session:
        row = session.get_one(Webhook, made["id"])
        row.enabled, row.disabled_reason, row.failing_since = False, "failing", row.created_at
    problem(client.post(f"{place}/test"), 409, "invalid_state")
    assert client.get(place).json()["disabled_reason"] == "failing"
    changed = client.patch(place, json={"enabled": True}).json()
    assert (changed["enabled"], changed["disabled_reason"], changed["failing_since"]) == (True, None, None)
    assert client.post(f"{place}/test").status_code == 202


@pytest.mark.parametrize(
    ("url", "entry"),
    [
        ("http://127.0.0.1:8000/", "127.0.0.1:8000"), ("http://localhost/", "localhost"), ("http://[::1]/", "[::1]"),
        ("http://[::ffff:10.0.0.1]:8080/", "[::ffff:10.0.0.1]:8080"), ("http://169.254.169.254/", "169.254.169.254"),
        ("http://2130706433/", "2130706433"), ("https://100.64.0.1:443/", "100.64.0.1"),
        ("https://100.64.0.1:80/", "100.64.0.1:80"), ("https://A.example:22/", "a.example:22"),
    ],
)  # fmt: skip
def test_private_places_are_refused_and_the_entry_that_would_allow_them_is_named(shared_client, url, entry):
    detail = problem(shared_client.post(URL, json={"url": url}), 400, "webhook_url_refused")["detail"]
    assert detail.endswith(f'have the operator add "{entry}" to GRAFT_WEBHOOK_ALLOWED')
    assert shared_client.get(URL).json()["data"] == []
    webhooks.check_url(Guard((entry,)), url)


@pytest.mark.parametrize(
    "url",
    [
        "https://me:secret@a.example/", "ftp://a.example/", "a.example", "https://", "http://a.example:99999/",
        "http://a..example/", "http://_/", "http://%61.example/", "http://999.1.1.1/",
    ],
)  # fmt: skip
def test_what_no_setting_would_allow_is_to_be_written_otherwise(shared_client, url):
    detail = problem(shared_client.post(URL, json={"url": url}), 400, "webhook_url_refused")["detail"]
    assert detail.endswith("write it as https://HOST/PATH")
    assert shared_client.get(URL).json()["data"] == []


@pytest.mark.parametrize(
    "body",
    [
        {}, {"url": ""}, {"url": 1}, {"url": PLACE, "events": []}, {"url": PLACE, "events": ["job.queued"]},
        {"url": PLACE, "events": "job.failed"}, {"url": PLACE, "enabled": "yes"}, {"url": PLACE, "secret": "whsec_a"},
        {"url": "https://a.example/" + "a" * 2000},
    ],
)  # fmt: skip
def test_malformed_bodies_are_refused(shared_client, body):
    problem(shared_client.post(URL, json=body), 422, "invalid_payload")


def test_there_is_an_end_to_it(light_client, monkeypatch):
    monkeypatch.setattr(webhooks, "MAX_WEBHOOKS", 2)
    for _ in range(2):
        create(light_client)
    problem(light_client.post(URL, json={"url": PLACE}), 409, "too_many_webhooks")


def test_nothing_of_another_project_is_visible(client, database):
    with database.write() as session:
        hook = factories.webhook(session, project_id=factories.project(session, "mine"))
        place, sent = f"{URL}/{hook.id}", factories.delivery(session, hook).id
    own = create(client)
    assert [one["id"] for one in client.get(URL).json()["data"]] == [own["id"]]
    for method, path in (
        ("GET", ""), ("DELETE", ""), ("POST", "/secret"), ("POST", "/test"), ("GET", "/deliveries"),
        ("GET", f"/deliveries/{sent}"), ("POST", f"/deliveries/{sent}/replay"),
    ):  # fmt: skip
        problem(client.request(method, f"{place}{path}"), 404, "not_found")
    problem(client.patch(place, json={"enabled": False}), 404, "not_found")
    problem(client.get(f"{URL}/{own['id']}/deliveries/{sent}"), 404, "not_found")


def test_history_and_replay(client, database):
    made = create(client)
    place = f"{URL}/{made['id']}/deliveries"
    asked = client.post(f"{URL}/{made['id']}/test")
    assert asked.status_code == 202
    first = asked.json()
    assert asked.headers["location"] == f"{place}/{first['id']}"
    assert (first["type"], first["state"], first["num_attempts"], first["status"]) == (
        "webhook.test",
        "pending",
        0,
        None,
    )
    with database.write() as session:
        (claimed,) = deliveries.claim(session, "me", {made["id"]: 1}, 60)
    with database.write() as session:
        deliveries.conclude(session, claimed, "me", Answer(0.25, 500, None, "oh"), 5)
    waits = client.get(f"{place}/{first['id']}").json()
    assert (waits["state"], waits["status"], waits["error"]) == ("pending", 500, None)
    assert waits["payload"]["type"] == "webhook.test"
    assert waits["payload"]["data"] == {"webhook": made["id"]}
    (attempt,) = waits["attempts"]
    assert (attempt["number"], attempt["seconds"], attempt["status"], attempt["answer"]) == (1, 0.25, 500, "oh")
    # One that waits is sent now; no second one is made of it.
    sooner = client.post(f"{place}/{first['id']}/replay").json()
    assert sooner["id"] == first["id"]
    assert sooner["next_attempt_at"] < waits["next_attempt_at"]
    with database.write() as session:
        (claimed,) = deliveries.claim(session, "me", {made["id"]: 1}, 60)
    with database.write() as session:
        deliveries.conclude(session, claimed, "me", Answer(0.1, 200), 5)
    answer = client.post(f"{place}/{first['id']}/replay")
    again = answer.json()
    assert (answer.status_code, answer.headers["location"]) == (202, f"{place}/{again['id']}")
    assert (again["replay_of"], again["event_id"], again["state"]) == (first["id"], first["event_id"], "pending")
    with database.read() as session:
        bodies = {session.get_one(WebhookDelivery, one["id"]).body for one in (first, again)}
    assert len(bodies) == 1
    page = client.get(place, params={"limit": 1}).json()
    assert ([one["id"] for one in page["data"]], page["has_more"]) == ([again["id"]], True)
    rest = client.get(place, params={"limit": 1, "after": again["id"]}).json()
    assert ([one["id"] for one in rest["data"]], rest["has_more"]) == ([first["id"]], False)
    assert [one["id"] for one in client.get(place, params={"state": "delivered"}).json()["data"]] == [first["id"]]
    problem(client.get(place, params={"state": "lost"}), 422, "invalid_payload")
    problem(client.get(f"{place}/whd_none"), 404, "not_found")
    client.patch(f"{URL}/{made['id']}", json={"enabled": False})
    problem(client.post(f"{place}/{first['id']}/replay"), 409, "invalid_state")
