"""A version is tried beside another: who answers, and what is compared."""

import time
from collections import Counter

import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.artifact import bundle
from app.services import models
from tests.app.api.test_predictions import PICTURES, URL, check, multipart, prepare
from tests.app.api.test_streams import NDJSON, sent

ALIAS = "/api/v1/models/tiny/aliases/production"
INFER = "/v2/models/tiny/infer"
RAW = {"Inference-Header-Content-Length": "0", "Content-Type": "application/octet-stream"}


@pytest.fixture
def served(light_client, tmp_path):
    prepare(light_client, tmp_path, 3)
    return light_client


def compared(client):
    found = {}
    for family in text_string_to_metric_families(client.get("/metrics").text):
        for sample in family.samples:
            if sample.name == "graft_shadow_images_total":
                assert (sample.labels["version"], sample.labels["shadow"]) == ("1", "2")
                found[sample.labels["outcome"]] = sample.value
    return found


def until_compared(client, number):
    end = time.monotonic() + 20
    while sum(compared(client).values()) < number:
        assert time.monotonic() < end
        time.sleep(0.01)
    return compared(client)


def answered(client, num, **query):
    counts = Counter()
    for _ in range(num):
        answer = client.post(URL, params=query, **multipart(PICTURES[:1]))
        check(answer, PICTURES[:1], int(answer.headers["X-Graft-Version"]))
        counts[int(answer.headers["X-Graft-Version"])] += 1
    return counts


def test_a_canary_answers_its_share(served):
    served.put(ALIAS, json={"version": 1, "canary": 2, "share": 0.5})
    counts = answered(served, 60)
    # By chance outside this once in 60,000 runs.
    assert counts.keys() == {1, 2}
    assert 14 <= counts[2] <= 46
    assert answered(served, 20, version=1) == {1: 20}
    assert answered(served, 20, version=3) == {3: 20}
    through_v2 = Counter(
        served.post(INFER, content=PICTURES[0], headers=RAW).headers["X-Graft-Version"] for _ in range(60)
    )
    assert through_v2.keys() == {"1", "2"}
    # Both see images with the same network.
    embedded = Counter(
        served.post(URL.replace("predict", "embed"), **multipart(PICTURES[:1])).headers["X-Graft-Version"]
        for _ in range(60)
    )
    assert embedded.keys() == {"1", "2"}
    served.put(ALIAS, json={"version": 2})
    assert answered(served, 20) == {2: 20}


def test_a_shadow_is_asked_and_compared_and_never_answers(served):
    served.put(ALIAS, json={"version": 1, "shadow": 2})
    answer = served.post(URL, **multipart(PICTURES))
    check(answer, PICTURES, 1)
    found = until_compared(served, 5)
    one, other = (
        [
            item["label"]
            for item in served.post(URL, params={"version": number}, **multipart(PICTURES)).json()["predictions"]
        ]
        for number in (1, 2)
    )
    same = sum(first == second for first, second in zip(one, other, strict=True))
    assert (found.get("same", 0), found.get("different", 0)) == (same, 5 - same)
    assert served.post(INFER, content=PICTURES[0], headers=RAW).headers["X-Graft-Version"] == "1"
    assert sum(until_compared(served, 6).values()) == 6


def test_an_image_of_a_stream_is_compared_too(served):
    """One that is alone in the engine; beside others of its stream the shadow is left out, and no image is missing."""
    served.put(ALIAS, json={"version": 1, "shadow": 2})
    for number, picture in enumerate(PICTURES, 1):
        served.post(URL, content=sent([picture]), headers={"Content-Type": NDJSON})
        until_compared(served, number)
    found = compared(served)
    assert (found.keys() <= {"same", "different"}, sum(found.values())) == (True, 5)
    served.post(URL, content=sent([*PICTURES, b"no image"]), headers={"Content-Type": NDJSON})
    assert sum(until_compared(served, 10).values()) == 10


def test_a_shadow_does_not_stand_in_the_way(served):
    """While others wait it is left out; one that cannot be loaded harms nobody."""
    state = served.app.state.graft
    with state.database.read() as session:
        prefix = models.version(session, "default", "tiny", 2).prefix
    served.put(ALIAS, json={"version": 1, "shadow": 2})
    engine = state.engine
    with engine._changed:
        engine.room.enter("another", 1, "default")
    check(served.post(URL, **multipart(PICTURES)), PICTURES, 1)
    with engine._changed:
        engine.room.leave("another", 1, "default")
    assert compared(served) == {"dropped": 5}
    # An alias is not moved to what does not load; this one was damaged afterwards.
    state.storage.fetch(f"{prefix}/{bundle.HEAD}").write_bytes(b"no graph")
    engine.pool.clear()
    for number in (10, 15):
        # The second time the engine refuses the shadow at once.
        check(served.post(URL, **multipart(PICTURES)), PICTURES, 1)
        assert until_compared(served, number) == {"dropped": 5, "failed": number - 5}
