"""Classes that cannot be added: each call says why, and leaves nothing."""

from dataclasses import replace

import pytest
from sqlalchemy import select
from starlette.testclient import TestClient

from app.db.models import ModelVersion
from app.db.waste import Waste
from app.main import create_app
from tests import factories
from tests.app.api.class_requests import PINK, URL, YELLOW, num_rows, publish, send
from tests.checks import problem
from tests.factories import files_below


class Meanwhile:
    """A storage during whose first write something else happens."""

    def __init__(self, storage, then):
        self._storage = storage
        self._then = [then]

    def __getattr__(self, name):
        return getattr(self._storage, name)

    def put(self, key, source):
        while self._then:
            self._then.pop()()
        self._storage.put(key, source)


def interrupted(client, then):
    state = client.app.state.graft
    client.app.state.graft = replace(state, storage=Meanwhile(state.storage, then))


def test_of_two_at_once_the_second_is_told_unless_it_names_its_version(client, home, tmp_path):
    publish(client, tmp_path)
    # While `yellow` is stored, `pink` is added and done.
    interrupted(client, lambda: send(client, "pink", PINK))
    problem(send(client), 409, "version_moved")
    assert num_rows(client) == [2, 0]
    folders = {path.name for path in (home / "storage" / "bundles" / "default").iterdir()}
    with client.app.state.graft.database.read() as session:
        named = {prefix.split("/")[2] for prefix in session.scalars(select(ModelVersion.prefix))}
    assert folders == named, "the one that was refused left nothing, not even a folder"
    interrupted(client, lambda: send(client, "white", PINK, query={"version": 2}))
    answer = send(client, query={"version": 2}).json()
    assert (answer["version"], answer["base_version"]) == (4, 2)
    assert answer["served_by_default"] is True


def test_a_full_disk_is_said_and_leaves_nothing(light_client, light, tmp_path, fill_disk):
    publish(light_client, tmp_path)
    before = files_below(light.home_path / "storage", light.home_path / "scratch")
    fill_disk()
    problem(send(light_client), 507, "insufficient_storage")
    assert files_below(light.home_path / "storage", light.home_path / "scratch") == before
    with light_client.app.state.graft.database.read() as session:
        assert session.query(Waste).all() == []


def test_a_base_that_is_deleted_meanwhile_leaves_nothing(client, home, tmp_path):
    publish(client, tmp_path)
    interrupted(client, lambda: client.delete("/api/v1/models/tiny"))
    problem(send(client), 404, "not_found")
    assert num_rows(client) == [0, 0]
    assert files_below(home / "storage" / "bundles", home / "scratch") == []


REFUSED = {
    "name that is there": (("red", YELLOW), 409, "label_exists"),
    "another case": (("Red", YELLOW), 409, "label_exists"),
    "blanks around": ((" red\u00a0", YELLOW), 409, "label_exists"),
    "case and blanks": (("Red ", YELLOW), 409, "label_exists"),
    "full width": (("\uff32\uff45\uff44", YELLOW), 409, "label_exists"),
    "empty name": (("", YELLOW), 422, "invalid_payload"),
    "spaces": (("  ", YELLOW), 422, "invalid_payload"),
    "long name": (("x" * 101, YELLOW), 422, "invalid_payload"),
    "control character": (("a\nb", YELLOW), 422, "invalid_payload"),
    "NUL": (("a\0b", YELLOW), 422, "invalid_payload"),
    "no image": (("yellow", []), 400, "file_missing"),
    "text": (("yellow", [b"hello"]), 400, "image_unreadable"),
    "cut off": (("yellow", [YELLOW[0][:200]]), 400, "image_truncated"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_without_a_trace(light_client, home, tmp_path, case):
    publish(light_client, tmp_path)
    before = files_below(home / "storage")
    arguments, status, code = REFUSED[case]
    if arguments[1]:
        answer = send(light_client, *arguments)
    else:
        answer = light_client.post(URL, files={"other": ("a", b"a")}, data={"label": arguments[0]})
    problem(answer, status, code)
    assert files_below(home / "storage", home / "scratch") == before
    assert num_rows(light_client) == [1, 0]


@pytest.mark.parametrize(
    ("first", "second", "alike"),
    [
        ("caf\u00e9", "Cafe\u0301", True), ("Stra\u00dfe", "STRASSE", True), ("\u00c5land", "\u212bland", True),
        ("cafe", "caf\u00e9", False), ("sea gull", "seagull", False), ("yellow", "yellow 2", False),
    ],
)  # fmt: skip
def test_names_that_read_alike_are_one(light_client, tmp_path, first, second, alike):
    publish(light_client, tmp_path)
    assert send(light_client, first).json()["label"] == first
    answer = send(light_client, second, PINK)
    if alike:
        assert repr(first) in problem(answer, 409, "label_exists")["detail"]
    else:
        assert answer.status_code == 201, answer.text


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"label": "yellow"}, 422), ({"label": "yellow", "images": []}, 422), ({"images": [{"b64": ""}]}, 422),
        ({"label": 3, "images": [{"b64": ""}]}, 422), ({"label": "a", "images": [{"b64": "***"}]}, 422),
        ({"label": "a", "images": [{"b64": "aGVsbG8="}]}, 400), ({"label": "a", "images": [{"b64": ""}], "x": 1}, 422),
        ([], 422),
    ],
)  # fmt: skip
def test_json_of_another_shape(light_client, tmp_path, body, status):
    publish(light_client, tmp_path)
    found = problem(
        light_client.post(URL, json=body), status, "invalid_payload" if status == 422 else "image_unreadable"
    )
    assert "beside the file" not in found["detail"]
    other = light_client.post(URL, content=b"a", headers={"Content-Type": "image/png"})
    assert "multipart/form-data" in problem(other, 415, "unsupported_media_type")["detail"]
    assert num_rows(light_client) == [1, 0]


@pytest.mark.parametrize(
    ("fields", "pointer"), [({"label": ["yellow", "pink"]}, "/label"), ({"label": "yellow", "images": "a"}, "/images")]
)
def test_no_field_of_a_form_is_dropped_without_a_word(light_client, tmp_path, fields, pointer):
    publish(light_client, tmp_path)
    answer = light_client.post(URL, files={"file": ("a.png", YELLOW[0])}, data=fields)
    assert [one["pointer"] for one in problem(answer, 422, "invalid_payload")["errors"]] == [pointer]
    assert num_rows(light_client) == [1, 0]


def test_a_bad_image_among_good_ones_is_named(light_client, tmp_path):
    publish(light_client, tmp_path)
    assert problem(send(light_client, "yellow", [YELLOW[0], b"x", YELLOW[1]]), 400, "image_unreadable")["index"] == 1


def test_unknown_models_and_other_tasks(light_client, tmp_path):
    problem(send(light_client), 404, "not_found")
    publish(light_client, tmp_path, task="multi_label")
    problem(send(light_client), 400, "unsupported_task")
    problem(send(light_client, query={"version": 7}), 404, "not_found")


def test_limits(light, tmp_path):
    changed = light.model_copy(update={"max_predict_images": 2, "max_predict_bytes": 9000, "max_predict_pixels": 500})
    with TestClient(create_app(changed), base_url="http://127.0.0.1") as client:
        publish(client, tmp_path)
        small = [factories.png(seed=number, size=20) for number in range(3)]
        problem(send(client, "yellow", small), 413, "too_many_images")
        problem(send(client, "yellow", [factories.png(size=23)]), 400, "image_too_large")
        problem(send(client, "yellow", [bytes(9001)]), 413, "body_too_large")
        assert send(client, "yellow", small[:2]).status_code == 201


def test_a_bundle_that_does_not_fit_together_is_not_grown(light_client, home, tmp_path):
    publish(light_client, tmp_path, temperature=3.0)
    # The graph was made with another temperature: it does not say what its arrays say.
    problem(send(light_client), 500, "bundle_invalid")
    assert num_rows(light_client) == [1, 0]
