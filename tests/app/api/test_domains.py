"""Domains: bind, predict through, rebind, look back, take away."""

import numpy as np
import pytest

from app.artifact import preprocess
from app.artifact.alignment import MovingBackbone
from app.artifact.bundle import entry
from tests import factories
from tests.app import onnx_factories
from tests.checks import problem

MODEL = "/api/v1/models/tiny"
DOMAINS = f"{MODEL}/domains"
LABELS = ["cat", "dog", "owl"]
PICTURES = [factories.png((40 * number, 250 - 40 * number, 90), seed=number) for number in range(5)]
RNG = np.random.default_rng(9)
SCALE, SHIFT = RNG.uniform(-2, 2, 6), RNG.normal(size=6)
MATRIX = RNG.normal(size=(6, 6))
WIDE = RNG.normal(size=(9, 6))


@pytest.fixture
def served(light_client, tmp_path):
    """A model of two versions (the second is a network of its own), two alignments for it and one for another."""
    state = light_client.app.state.graft
    with state.database.write() as session:
        of = factories.model(session, "tiny", 0)
        folder = tmp_path / "made"
        factories.published(session, state.storage, folder, of, 1)
        factories.published(session, state.storage, folder, of, 2, shared=False)
        light_client.diagonal = factories.fitted(session, state.storage, folder, SCALE, SHIFT, number=1).id
        light_client.matrix = factories.fitted(session, state.storage, folder, MATRIX, SHIFT, number=2).id
        light_client.foreign = factories.fitted(
            session, state.storage, folder, SCALE, SHIFT, number=3, backbone_digest="c" * 64
        ).id
        light_client.fitting = factories.alignment(session, number=4, state="fitting").id
    light_client.put(f"{MODEL}/aliases/production", json={"version": 1})
    return light_client


def bind(client, domain, alignment):
    return client.put(f"{DOMAINS}/{domain}", json={"alignment": alignment})


def predict(client, **query):
    files = [("file", (f"{number}.png", data)) for number, data in enumerate(PICTURES)]
    return client.post(f"{MODEL}/predict", params=query, files=files)


def reference(alpha=None, offset=0.0, num_features=6, side=8, seed=0):
    """Scores of version 1 in numpy, with an affine map before the head."""
    shape = onnx_factories.preprocess(side)
    pixels = np.stack([preprocess.load(data, shape) for data in PICTURES])
    features = onnx_factories.backbone_reference(pixels, num_features, seed)
    if alpha is not None:
        features = (features * alpha if alpha.ndim == 1 else features @ alpha) + offset
    weight_CD, bias_C = factories.head_weights(1, 3)
    return onnx_factories.softmax(features @ weight_CD.T + bias_C)


def check(answer, expected, domain, alignment):
    body = answer.json()
    assert (answer.status_code, body.get("domain"), body.get("alignment")) == (200, domain, alignment), body
    assert answer.headers.get("X-Graft-Alignment") == alignment
    for row, found in zip(expected, body["predictions"], strict=True):
        scores = {item["label"]: item["score"] for item in found["scores"]}
        np.testing.assert_allclose([scores[label] for label in LABELS], row, atol=1e-5)


def test_the_alignment_stands_between_backbone_and_head(served):
    assert bind(served, "night", served.diagonal).json()["alignment"] == served.diagonal
    check(predict(served, domain="night"), reference(SCALE, SHIFT), "night", served.diagonal)
    check(predict(served), reference(), None, None)
    # Refitting is a new alignment and a new binding; the version stays.
    assert bind(served, "night", served.matrix).status_code == 200
    answer = predict(served, domain="night")
    check(answer, reference(MATRIX, SHIFT), "night", served.matrix)
    assert answer.headers["X-Graft-Version"] == "1"


def test_history_and_listing(served):
    for alignment in (served.diagonal, served.diagonal, served.matrix):
        bind(served, "night", alignment)
    bound = bind(served, "day", served.diagonal).json()
    found = served.get(f"{DOMAINS}/day").json()
    # One moment, wherever it is looked up.
    assert bound["updated_at"] == found["updated_at"] == found["history"][0]["at"]
    listed = served.get(DOMAINS).json()["data"]
    assert [(row["domain"], row["number"], row["method"]) for row in listed] == [
        ("day", 1, "z_score"), ("night", 2, "z_score"),
    ]  # fmt: skip
    assert served.delete(f"{DOMAINS}/night").status_code == 204
    found = served.get(f"{DOMAINS}/night").json()
    assert found["alignment"] is None
    assert [row["alignment"] for row in found["history"]] == [None, served.matrix, served.diagonal]
    assert [row["domain"] for row in served.get(DOMAINS).json()["data"]] == ["day"]


def test_an_unknown_domain_names_those_that_there_are(served):
    assert problem(predict(served, domain="night"), 404, "unknown_domain")["domains"] == []
    bind(served, "day", served.diagonal)
    for answer in (predict(served, domain="night"), served.get(f"{DOMAINS}/night"), served.delete(f"{DOMAINS}/night")):
        assert problem(answer, 404, "unknown_domain")["domains"] == ["day"]
    problem(predict(served, domain="no/name"), 422, "invalid_payload")
    problem(served.get("/api/v1/models/none/domains"), 404, "not_found")


def test_what_does_not_fit_is_not_bound(served):
    problem(bind(served, "night", served.foreign), 409, "alignment_mismatch")
    problem(bind(served, "night", served.fitting), 409, "alignment_not_ready")
    problem(bind(served, "night", "aln_0"), 404, "not_found")
    problem(served.put(f"{DOMAINS}/night", json={}), 422, "invalid_payload")
    problem(served.put("/api/v1/models/none/domains/a", json={"alignment": served.diagonal}), 404, "not_found")
    assert served.get(DOMAINS).json()["data"] == []
    # A version with a network of its own has features that no alignment is keyed to.
    served.put(f"{MODEL}/aliases/production", json={"version": 2})
    problem(bind(served, "night", served.diagonal), 409, "alignment_mismatch")


def test_another_version_under_a_bound_domain_is_refused_at_the_call(served):
    bind(served, "night", served.diagonal)
    found = problem(predict(served, domain="night", version=2), 409, "alignment_mismatch")
    assert "send `version`" in found["detail"]
    check(predict(served, domain="night", version=1), reference(SCALE, SHIFT), "night", served.diagonal)


def test_a_bound_alignment_stays(served):
    bind(served, "night", served.diagonal)
    url = f"/api/v1/alignments/{served.diagonal}"
    assert problem(served.delete(url), 409, "in_use")["users"] == ["tiny/night"]
    served.delete(f"{DOMAINS}/night")
    assert served.delete(url).status_code == 204
    assert served.get(f"{DOMAINS}/night").json()["history"][1]["alignment"] == served.diagonal


def test_deleting_the_model_takes_its_domains_along(served):
    bind(served, "night", served.diagonal)
    assert served.delete(MODEL).status_code == 204
    assert served.delete(f"/api/v1/alignments/{served.diagonal}").status_code == 204


def test_images_of_another_backbone_run_through_its_graph(served, tmp_path):
    state = served.app.state.graft
    graph = tmp_path / "wide.onnx"
    graph.write_bytes(onnx_factories.backbone_bytes(9, side=4, seed=5))
    key = "graphs/wide/backbone.onnx"
    state.storage.put(key, graph)
    moving = MovingBackbone(
        name="test/wide", digest="e" * 64, graph=entry(graph, key), preprocess=onnx_factories.preprocess(4)
    )
    with state.database.write() as session:
        row = factories.fitted(
            session, state.storage, tmp_path / "made", WIDE, SHIFT, number=5,
            moving_backbone=moving.model_dump(mode="json"),
        )  # fmt: skip
    bind(served, "old", row.id)
    expected = reference(WIDE, SHIFT, num_features=9, side=4, seed=5)
    check(predict(served, domain="old"), expected, "old", row.id)
    check(predict(served), reference(), None, None)
