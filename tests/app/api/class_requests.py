"""Models that a class can be added to, and calls that add one."""

import numpy as np
from sqlalchemy import func, select

from app.artifact import heads, preprocess, scores, stored
from app.artifact.predicted import Predictions
from app.db.models import IdempotencyKey, ModelVersion
from tests import factories
from tests.app import onnx_factories

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


def num_rows(client):
    with client.app.state.graft.database.read() as session:
        return [session.scalar(select(func.count()).select_from(table)) for table in (ModelVersion, IdempotencyKey)]
