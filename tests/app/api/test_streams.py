"""NDJSON: predictions line by line, and images line by line."""

import asyncio
import base64
import json

import numpy as np
import pytest

from tests.app.api.test_predictions import LABELS, PICTURES, URL, multipart, prepare, reference
from tests.checks import problem

NDJSON = "application/x-ndjson"
READS = {"Accept": NDJSON}


@pytest.fixture
def served(light_client, tmp_path):
    prepare(light_client, tmp_path, 2)
    return light_client


def lines(answer):
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == NDJSON
    assert answer.text.endswith("\n")
    found = [json.loads(line) for line in answer.text.splitlines()]
    assert [item["index"] for item in found] == list(range(len(found)))
    return found


def sent(pictures, gap=b"\n"):
    return gap.join(json.dumps({"b64": base64.b64encode(data).decode()}).encode() for data in pictures)


def check(found, pictures, version=2):
    assert len(found) == len(pictures)
    for row, item in zip(reference(pictures, version), found, strict=True):
        assert item["label"] == LABELS[int(row.argmax())]
        assert item["score"] == pytest.approx(row.max(), abs=1e-5)


def test_predictions_come_as_lines(served):
    answer = served.post(URL, headers=READS, **multipart(PICTURES))
    check(lines(answer), PICTURES)
    assert answer.headers["X-Graft-Version"] == "2"


@pytest.mark.parametrize("accepted", [f"{NDJSON}, application/json", f"{NDJSON};q=1, */*;q=0.1"])
def test_lines_may_be_one_of_several_types(served, accepted):
    check(lines(served.post(URL, headers={"Accept": accepted}, **multipart(PICTURES))), PICTURES)


@pytest.mark.parametrize("gap", [b"\n", b"\r\n", b"\n\n \n"])
def test_images_come_as_lines_too(served, gap):
    found = served.post(
        URL, params={"version": 1, "top_k": 1}, content=sent(PICTURES, gap), headers={"Content-Type": NDJSON}
    )
    check(lines(found), PICTURES, 1)
    assert [len(item["scores"]) for item in lines(found)] == [1] * len(PICTURES)


def test_more_images_than_one_request_may_bring_otherwise(served):
    pictures = [PICTURES[number % 5] for number in range(300)]
    problem(served.post(URL, **multipart(pictures)), 413, "too_many_images")
    check(lines(served.post(URL, content=sent(pictures), headers={"Content-Type": NDJSON})), pictures)


def test_a_line_of_very_many_values_is_refused_in_its_place(served):
    crowded = b'{"b64": "", ' + b", ".join(b'"a%d": 0' % number for number in range(20_000)) + b"}"
    found = lines(served.post(URL, content=b"\n".join((crowded, sent(PICTURES[:1]))), headers={"Content-Type": NDJSON}))
    assert (found[0]["problem"]["status"], found[0]["problem"]["index"]) == (413, 0)
    assert found[0]["problem"]["detail"].startswith("line 1: expected one image as JSON of at most 10000 values")
    check(found[1:], PICTURES[:1])


def test_a_bad_image_is_a_line_of_its_own(served):
    body = b"\n".join(
        (sent(PICTURES[:1]), sent([b"text"]), b'{"b64": "***"}', b'{"image": 1}', b"{", sent(PICTURES[1:2]))
    )
    found = lines(served.post(URL, content=body, headers={"Content-Type": NDJSON}))
    check([found[0], found[5]], PICTURES[:2])
    codes = ["image_unreadable", "invalid_payload", "invalid_payload", "invalid_payload"]
    assert [item["problem"]["code"] for item in found[1:5]] == codes
    assert [item["problem"]["index"] for item in found[1:5]] == [1, 2, 3, 4]


@pytest.mark.parametrize("chunk", [1 << 20, 7])
def test_what_is_wrong_with_a_line_names_the_line_and_the_field(served, chunk):
    """By the number that an editor shows; pointers and `index` count images, so blank lines are left out."""
    body = b"\n".join(
        (
            sent(PICTURES[:1]),
            b"",
            b'{"b64": "***"}',
            b'{"b64": 3}',
            b'{"b64": ""}',
            b"{",
            b"\xff",
            b'{"url": "ftp://a/b"}',
        )
    )
    chunks = (body[start : start + chunk] for start in range(0, len(body), chunk))
    found = [item.get("problem") for item in lines(served.post(URL, content=chunks, headers={"Content-Type": NDJSON}))]
    assert found[0] is None
    assert [[error["pointer"] for error in item.get("errors", ())] for item in found[1:]] == [
        ["/body/1/b64"], ["/body/2/b64"], [], ["/body/4"], ["/body/5"], []
    ]  # fmt: skip
    details = [item["detail"] for item in found[1:]]
    assert [detail.partition(":")[0] for detail in details if detail.startswith("line ")] == [
        "line 3", "line 4", "line 6", "line 7", "line 8"
    ]  # fmt: skip
    assert details[0].startswith("line 3: expected base64 at /body/1/b64; found ")
    assert [item["code"] for item in found[1:]] == [
        *["invalid_payload"] * 2, "image_unreadable", *["invalid_payload"] * 2, "image_url_refused"
    ]  # fmt: skip
    assert [item["index"] for item in found[1:]] == [1, 2, 3, 4, 5, 6]


def test_a_number_of_very_many_digits_is_no_matter_of_python(served):
    number = b"9" * 5000
    (found,) = lines(served.post(URL, content=b'{"b64": ' + number + b"}", headers={"Content-Type": NDJSON}))
    json_answer = served.post(URL, content=b'{"images": ' + number + b"}", headers={"Content-Type": "application/json"})
    for told in (found["problem"]["detail"], problem(json_answer, 422, "invalid_payload")["detail"]):
        assert "found a number that is too long" in told
        assert "sys." not in told


def test_a_line_without_end_is_an_error(served):
    settings = served.app.state.graft.settings
    body = sent(PICTURES[:1]) + b"\n" + b"x" * (settings.max_predict_bytes + 1)
    found = lines(served.post(URL, content=body, headers={"Content-Type": NDJSON}))
    check(found[:1], PICTURES[:1])
    assert found[1]["problem"]["code"] == "body_too_large"
    assert found[1]["problem"]["detail"].startswith("line 2: expected a line of at most ")


def test_what_is_wrong_with_the_whole_request_comes_before_the_first_line(served):
    problem(served.post(URL.replace("tiny", "none"), headers=READS, **multipart(PICTURES)), 404, "not_found")
    problem(served.post(URL, headers=READS, files={"photo": b"a"}), 400, "file_missing")
    assert served.post(URL, content=b"", headers={"Content-Type": NDJSON}).content == b""


def test_features_stand_beside_the_scores(served):
    found = served.post(URL, params={"features": True}, **multipart(PICTURES)).json()["predictions"]
    rows = np.array([item["features"] for item in found])
    assert rows.shape == (5, 6)
    streamed = lines(served.post(URL, params={"features": True}, headers=READS, **multipart(PICTURES)))
    np.testing.assert_allclose([item["features"] for item in streamed], rows, atol=1e-6)
    assert "features" not in lines(served.post(URL, headers=READS, **multipart(PICTURES)))[0]


def test_a_line_goes_out_before_the_next_image_has_come(served):
    """A client that waits for each answer before it sends the next image gets it."""
    first, second = (line + b"\n" for line in sent(PICTURES[:2]).split(b"\n"))
    turns = []

    async def run():
        answered = asyncio.Event()

        async def receive():
            if not turns:
                turns.append("first image")
                return {"type": "http.request", "body": first, "more_body": True}
            if "second image" not in turns:
                # Nudges the stream: the first answer may be ready only a moment later.
                while not answered.is_set():
                    await asyncio.sleep(0.01)
                    return {"type": "http.request", "body": b"\n", "more_body": True}
                turns.append("second image")
                return {"type": "http.request", "body": second, "more_body": False}
            return await asyncio.Event().wait()

        async def send(message):
            if message["type"] == "http.response.body" and message["body"]:
                turns.append(json.loads(message["body"])["index"])
                answered.set()

        await asyncio.wait_for(served.app(_scope(NDJSON), receive, send), 20)

    served.portal.call(run)
    assert turns == ["first image", 0, "second image", 1]


def test_whoever_goes_away_is_not_computed_for(served):
    body, kind = b"\x89PNG", "image/png"
    engine = served.app.state.graft.engine

    async def run():
        messages = [{"type": "http.request", "body": body, "more_body": False}, {"type": "http.disconnect"}]

        async def receive():
            return messages.pop(0)

        found = []

        async def send(message):
            found.append(message)

        with engine._changed:
            # Nothing moves while this is held.
            await asyncio.wait_for(served.app(_scope(kind), receive, send), 20)
        return found

    found = served.portal.call(run)
    assert found[0]["status"] == 499
    assert engine.num_images == 0


def _scope(kind):
    return {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": URL, "raw_path": URL.encode(), "query_string": b"", "root_path": "",
        "headers": [(b"host", b"127.0.0.1"), (b"content-type", kind.encode())],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
    }  # fmt: skip
