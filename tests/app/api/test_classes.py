"""A class is added to a model of each kind, on both databases; and each way in which it is refused."""

import base64
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from sqlalchemy import func, select
from starlette.testclient import TestClient

from app.artifact import bundle, card, heads, predicted, preprocess, scores, stored, tensors
from app.artifact.graph import constants
from app.artifact.predicted import Predictions
from app.artifact.spec import load as load_spec
from app.db.models import IdempotencyKey, ModelVersion
from app.db.waste import Waste
from app.main import create_app
from app.services import class_checks
from tests import factories
from tests.app import onnx_factories
from tests.checks import problem
from tests.factories import files_below

URL = "/api/v1/models/tiny/classes"
OLD = {"blue": (30, 40, 220), "green": (30, 200, 40), "red": (220, 30, 30)}
YELLOW = [factories.png((225, 215, 30), seed=900 + number) for number in range(5)]
PINK = [factories.png((230, 40, 210), seed=950 + number) for number in range(3)]
TEMPERATURE = 0.1


def embedded(pictures):
    shape = onnx_factories.preprocess()
    pixels = np.stack([preprocess.load(data, shape) for data in pictures])
    return onnx_factories.backbone_reference(pixels).astype(np.float32)


def labelled(num, first):
    pictures = factories.pictures(num, OLD, first)
    return embedded(pictures.values()), np.repeat(np.arange(3), num)


def head(kind):
    """Graph and arrays of a head of that kind, from ten pictures of each colour."""
    features, labels = labelled(10, 0)
    mean = features.mean(0)
    unit = scores.unit(features - mean)
    centroids = np.stack([unit[labels == label].mean(0) for label in range(3)]).astype(np.float32)
    if kind == "neighbours":
        arrays = {"support": unit.astype(np.float32), "labels": labels, "mean": mean, "sizes": np.array([3, 3])}
        return heads.neighbours(unit, labels, 3, 3, TEMPERATURE, mean), arrays
    if kind == "linear":
        scale = features.std(0) + 0.01
        weight = (2 * centroids).astype(np.float32)
        arrays = {"weight": weight, "bias": np.zeros(3, np.float32), "mean": mean, "scale": scale}
        return heads.linear(weight, arrays["bias"], TEMPERATURE, mean, scale), arrays
    if kind == "network":
        scale = (features.std(0) + 0.01).astype(np.float32)
        both = np.concatenate([np.eye(len(mean)), -np.eye(len(mean))]).astype(np.float32)
        arrays = {"hidden.weight": both, "hidden.bias": np.zeros(len(both), np.float32), "mean": mean, "scale": scale}
        hidden = scores.hidden(arrays, features)
        wide = np.hstack([hidden, np.ones((len(hidden), 1))])
        rows = np.linalg.solve(wide.T @ wide + np.eye(wide.shape[1]), wide.T @ np.eye(3)[labels])
        arrays |= {"weight": np.float32(rows[:-1].T), "bias": np.float32(rows[-1])}
        first, last = (arrays["hidden.weight"], arrays["hidden.bias"]), (arrays["weight"], arrays["bias"])
        return heads.network(*first, *last, TEMPERATURE, mean, scale), arrays
    if kind in ("conse", "combined"):
        rng = np.random.default_rng(1)
        known = rng.normal(size=(40, len(mean)))
        known = np.float32(6 * known / (known @ (features - mean).T).std())
        constants = {"known": known.T, "known_bias": -known @ mean, "top": np.array([10])}
        constants["vectors"] = rng.normal(size=(40, 12)).astype(np.float32)
        meaning = scores.meaning(constants, features)
        arrays = {"classes": np.float32([20 * meaning[labels == label].mean(0) for label in range(3)])}
        arrays |= {"rows": 3 * centroids, "mean": mean} if kind == "combined" else {}
        rows = (arrays["rows"], mean) if kind == "combined" else None
        known_to_words = (known, constants["known_bias"], constants["vectors"])
        return heads.text(*known_to_words, arrays["classes"], 10, rows), arrays
    spread = 0.05
    bias = (-0.5 * (np.square(centroids).sum(1) - spread / 10)).astype(np.float32)
    arrays = {"weight": centroids, "bias": bias, "mean": mean, "spread": np.array([spread], np.float32)}
    return heads.cosine(centroids, bias, TEMPERATURE, mean), arrays


def publish(client, folder, kind="cosine", *, shared=True, test_items=12, without=(), **described):
    state = client.app.state.graft
    names = tuple(OLD)
    graph, arrays = head(kind)
    arrays = {name: array for name, array in arrays.items() if name not in without}
    features, labels = labelled(max(test_items // 3, 1), 500)
    features, labels = features[:test_items], labels[:test_items]
    probabilities = onnx_factories.run(graph, features=features)["probabilities"]
    said = Predictions(
        ids=[f"s{row}" for row in range(len(labels))],
        sha256=[f"{row:064x}" for row in range(len(labels))],
        labels=[names[label] for label in labels],
        predicted=[names[label] for label in probabilities.argmax(1)],
        splits=["test"] * len(labels),
        probabilities=probabilities,
    )
    parts = {"head": graph, "weights": arrays, "predictions": said}
    if test_items:
        parts["features"] = stored.pack(features, said.labels, names)
    is_text = kind in ("conse", "combined")
    described = {"head": "text" if is_text else kind, "temperature": 1.0 if is_text else TEMPERATURE, **described}
    with state.database.write() as session:
        of = factories.model(session, "tiny", 0)
        of.last_version = 1
        factories.published(
            session, state.storage, folder, of, 1, shared=shared, labels=names, parts=parts, described=described
        )


def send(client, label="yellow", pictures=YELLOW, query=None, **headers):
    files = [("file", (f"{place}.png", data)) for place, data in enumerate(pictures)]
    return client.post(URL, params=query or {}, files=files, data={"label": label}, headers=headers)


def asked(client, pictures, **query):
    files = [("file", (f"{place}.png", data)) for place, data in enumerate(pictures)]
    answer = client.post("/api/v1/models/tiny/predict", params=query, files=files)
    assert answer.status_code == 200, answer.text
    return [item["label"] for item in answer.json()["predictions"]]


def num_rows(client):
    with client.app.state.graft.database.read() as session:
        return [session.scalar(select(func.count()).select_from(table)) for table in (ModelVersion, IdempotencyKey)]


HOW = {
    "cosine": "centroid", "linear": "imprinted", "neighbours": "neighbours", "network": "imprinted",
    "conse": "imprinted", "combined": "imprinted",
}  # fmt: skip


@pytest.mark.parametrize("kind", HOW)
def test_a_class_is_there_at_once_and_the_others_stay(client, home, tmp_path, kind):
    publish(client, tmp_path, kind)
    answer = send(client)
    assert answer.status_code == 201, answer.text
    assert answer.json() == {
        "model": "tiny", "version": 2, "base_version": 1, "label": "yellow", "num_images": 5, "how": HOW[kind],
        "old_classes": {"num_samples": 12, "accuracy_before": 1.0, "accuracy_after": 1.0, "reason": None},
        "calibrated": False, "metrics": {}, "served_by_default": True, "warnings": [],
    }  # fmt: skip
    assert answer.headers["Location"] == "/api/v1/models/tiny/versions/2"
    new = [factories.png((225, 215, 30), seed=700 + number) for number in range(4)]
    old = factories.pictures(4, OLD, first=300)
    assert asked(client, new) == ["yellow"] * 4
    assert asked(client, list(old.values())) == [name.partition("/")[0] for name in old]
    assert "yellow" not in asked(client, new, version=1)
    assert files_below(home / "scratch") == []


@pytest.mark.parametrize("kind", HOW)
def test_the_bundle_tells_where_it_comes_from_and_is_whole(client, tmp_path, kind):
    publish(client, tmp_path, kind)
    send(client)
    state = client.app.state.graft
    with state.database.read() as session:
        row = session.scalars(select(ModelVersion).where(ModelVersion.version == 2)).one()
    assert (row.job_id, row.metrics) == (None, {})
    folder = state.storage.fetch(f"{row.prefix}/spec.json").parent
    spec = bundle.verify(folder)
    assert spec == load_spec(json.dumps(row.spec).encode())
    assert spec.labels == ("blue", "green", "red", "yellow")
    assert spec.added.model_dump() == {
        "label": "yellow", "model": "tiny", "version": 1, "num_images": 5, "how": HOW[kind]
    }  # fmt: skip
    assert (spec.metrics, spec.calibrated) == ({}, False)
    assert spec.parity.ok
    assert spec.parity.num_samples == 12 + 5
    report = json.loads((folder / bundle.REPORT).read_text())
    assert report["added"] == spec.added.model_dump()
    assert report["old_classes"]["num_samples"] == 12
    rows = predicted.read(folder / bundle.PREDICTIONS)
    assert rows.ids == [f"s{number}" for number in range(12)]
    assert rows.probabilities.shape == (12, 4)
    assert "added to version 1 of tiny from 5 images" in (folder / bundle.README).read_text()
    assert card.render(spec, report, "tiny") == (folder / bundle.README).read_text()
    detail = client.get("/api/v1/models/tiny/versions/2").json()
    assert (detail["job_id"], detail["metrics"]) == (None, {})
    assert client.get("/api/v1/models/tiny").json()["versions"][0]["job_id"] is None
    whole = client.get("/api/v1/models/tiny/versions/2/files/model.onnx").content
    pictures = onnx_factories.images(3)
    composed = onnx_factories.run(whole, images=pictures)
    features = onnx_factories.backbone_reference(pictures).astype(np.float32)
    arrays = {**constants((folder / bundle.HEAD).read_bytes()), **tensors.load(folder / bundle.WEIGHTS)}
    expected = scores.probabilities(spec.head, arrays, spec.temperature, features)
    np.testing.assert_allclose(composed["probabilities"], expected, atol=1e-5)


def bundle_of(client, number):
    """Folder of a version's files."""
    state = client.app.state.graft
    with state.database.read() as session:
        row = session.scalars(select(ModelVersion).where(ModelVersion.version == number)).one()
    return state.storage.fetch(f"{row.prefix}/{bundle.SPEC}").parent


RED = [factories.png(OLD["red"], seed=800 + number) for number in range(5)]
ADVICE = r"on 30 stored .*version before is (\d+),.*`PUT (/api/v1/\S+)` with (\{.*\}) makes"


@pytest.mark.parametrize("kind", ["cosine", "linear", "network"])
def test_a_class_that_harms_the_others_is_told_of_with_the_way_back(client, tmp_path, kind):
    publish(client, tmp_path, kind, test_items=30)
    # More red, under another name.
    answer = send(client, "crimson", RED).json()
    folder = bundle_of(client, 2)
    rows = predicted.read(folder / bundle.PREDICTIONS)
    after = sum(label == found for label, found in zip(rows.labels, rows.predicted, strict=True)) / 30
    assert after < 0.95
    assert answer["old_classes"]["accuracy_after"] == pytest.approx(after)
    assert answer["served_by_default"] is True
    [warning] = answer["warnings"]
    assert f"fell from 1.000 to {after:.3f} on 30 stored test items, by more than 0.05" in warning
    assert json.loads((folder / bundle.REPORT).read_text())["warnings"] == [warning]
    limits = (folder / bundle.README).read_text().partition("## Limits")[2].partition("## How to call it")[0]
    assert f"- {card.text(warning[0].upper() + warning[1:])}." in limits
    number, path, body = re.search(ADVICE, warning).groups()
    assert number == "1"
    assert client.put(path, json=json.loads(body)).status_code == 200
    reds = [factories.png(OLD["red"], seed=850 + number) for number in range(8)]
    assert set(asked(client, reds)) == {"red"}
    assert "crimson" in asked(client, reds, version=2)


def test_the_bound_itself_is_no_warning():
    def warned(after):
        old = class_checks.OldClasses(20, 1.0, after)
        return class_checks.warn("tiny", 1, 5, 5, old)

    assert (warned(0.95), warned(1.0), len(warned(0.9))) == ([], [], 1)
    assert class_checks.warn("tiny", 1, 5, 5, class_checks.OldClasses(0, None, None)) == []


def test_one_image_comes_with_a_warning(light_client, tmp_path):
    publish(light_client, tmp_path)
    answer = send(light_client, pictures=YELLOW[:1]).json()
    assert answer["num_images"] == 1
    assert ["made from one image" in warning for warning in answer["warnings"]] == [True]
    readme = (bundle_of(light_client, 2) / bundle.README).read_text()
    assert "from 1 image (" in readme
    assert "The class was made from one image" in readme
    assert send(light_client, "pink", PINK[:2]).json()["warnings"] == []


@pytest.mark.parametrize("kind", HOW)
def test_the_same_bytes_count_once(light_client, tmp_path, kind):
    publish(light_client, tmp_path, kind)
    once = send(light_client, pictures=YELLOW[:2], query={"version": 1}).json()
    twice = send(light_client, pictures=[*YELLOW[:2], YELLOW[0], YELLOW[0]], query={"version": 1}).json()
    assert (once["num_images"], once["warnings"]) == (2, [])
    assert twice["num_images"] == 2
    assert ["4 images were given, 2 different" in warning for warning in twice["warnings"]] == [True]
    first, second = (bundle_of(light_client, number) for number in (2, 3))
    arrays = [tensors.load(folder / bundle.WEIGHTS) for folder in (first, second)]
    assert arrays[0].keys() == arrays[1].keys()
    for name, values in arrays[0].items():
        # Batches fall as they may, and the last bit of a feature with them.
        np.testing.assert_allclose(arrays[1][name], values, rtol=1e-5, atol=1e-6)
    spec = bundle.verify(second)
    assert (spec.added.num_images, spec.parity.num_samples) == (2, 12 + 2)


def test_one_image_three_times_is_one_image(light_client, tmp_path):
    publish(light_client, tmp_path)
    answer = send(light_client, pictures=YELLOW[:1] * 3).json()
    assert answer["num_images"] == 1
    assert len(answer["warnings"]) == 2
    found = problem(send(light_client, "pink", [PINK[0], PINK[0], b"x"]), 400, "image_unreadable")
    assert found["index"] == 2, "the place in the request"


def test_a_second_class_goes_on_top_of_the_first(client, tmp_path):
    publish(client, tmp_path)
    send(client)
    assert send(client, "pink", PINK).json()["version"] == 3
    assert asked(client, [PINK[0], YELLOW[0]]) == ["pink", "yellow"]
    spec = client.get("/api/v1/models/tiny/versions/3").json()["spec"]
    assert spec["labels"] == ["blue", "green", "red", "yellow", "pink"]
    assert (spec["added"]["label"], spec["added"]["version"]) == ("pink", 2)


def test_images_in_base64(light_client, tmp_path):
    publish(light_client, tmp_path)
    images = [{"b64": base64.b64encode(data).decode()} for data in YELLOW]
    answer = light_client.post(URL, json={"label": "gelb \u2600", "images": images})
    assert answer.json()["label"] == "gelb \u2600"
    assert asked(light_client, YELLOW) == ["gelb \u2600"] * 5


def test_a_network_of_its_own_outlives_its_base(light_client, tmp_path):
    publish(light_client, tmp_path, shared=False)
    assert send(light_client).status_code == 201
    assert light_client.delete("/api/v1/models/tiny/versions/1").status_code == 204
    assert asked(light_client, YELLOW) == ["yellow"] * 5


def test_a_model_without_stored_features_says_nothing_of_its_old_classes(light_client, tmp_path):
    publish(light_client, tmp_path, test_items=0)
    found = send(light_client).json()["old_classes"]
    assert "no features of labelled test items" in found.pop("reason")
    assert found == {"num_samples": 0, "accuracy_before": None, "accuracy_after": None}
    assert send(light_client, "pink", PINK).json()["old_classes"]["accuracy_after"] is None


def test_production_is_not_moved_and_the_answer_says_so(client, tmp_path):
    publish(client, tmp_path)
    client.put("/api/v1/models/tiny/aliases/production", json={"version": 1})
    assert send(client).json()["served_by_default"] is False
    assert "yellow" not in asked(client, YELLOW)
    # The default is still version 1, so the next class goes beside the first, not on top.
    assert send(client, "pink", PINK).json()["base_version"] == 1
    on_top = send(client, "pink", PINK, query={"version": 2}).json()
    assert (on_top["base_version"], on_top["version"]) == (2, 4)
    client.put("/api/v1/models/tiny/aliases/canary", json={"version": 4})
    assert send(client, "white", PINK, query={"alias": "canary"}).json()["base_version"] == 4
    problem(send(client, "white", PINK, query={"alias": "canary", "version": 1}), 409, "ambiguous_version")


def test_the_same_key_adds_the_class_once(client, home, tmp_path):
    publish(client, tmp_path)
    first = send(client, **{"Idempotency-Key": "a"})
    files = files_below(home / "storage")
    again = send(client, **{"Idempotency-Key": "a"})
    assert (again.status_code, again.json()) == (201, first.json())
    assert again.headers["Location"] == first.headers["Location"]
    assert again.headers["Idempotent-Replayed"] == "true"
    problem(send(client, "pink", PINK, **{"Idempotency-Key": "a"}), 422, "idempotency_mismatch")
    assert files_below(home / "storage") == files
    assert num_rows(client) == [2, 1]


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


def test_rows_of_a_zero_shot_model_made_from_words_get_a_level_bias(light_client, tmp_path):
    _, arrays = head("cosine")
    publish(light_client, tmp_path, "cosine", recipe={"method": "zero_shot"}, without=("spread",))
    answer = send(light_client).json()
    assert answer["how"] == "imprinted"
    state = light_client.app.state.graft
    with state.database.read() as session:
        row = session.scalars(select(ModelVersion).where(ModelVersion.version == 2)).one()
    grown = tensors.load(state.storage.fetch(f"{row.prefix}/{bundle.WEIGHTS}"))
    assert grown["bias"][3] != pytest.approx(arrays["bias"].mean(), abs=1e-3)


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
