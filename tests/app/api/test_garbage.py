"""What a request has brought goes with its answer, and does not wait until somebody looks for garbage."""

import base64
import gc
import io
import json
import tracemalloc

import grpc
import httpx
import numpy as np
import pytest
from PIL import Image

from tests.app.api.oip import test_grpc
from tests.app.api.oip.requests import binary, elements
from tests.app.api.oip.requests import encoded as oip
from tests.app.api.test_held import begun
from tests.conftest import free_port, wait_until
from tests.inference import NAME, publish
from tests.listening import application

NUM_REQUESTS, MB = 6, 2**20


def noise():
    """An image of more than a megabyte."""
    pixels = np.random.default_rng(0).integers(0, 256, (640, 640, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()


GOOD = noise()
BROKEN = GOOD[: len(GOOD) - 1000]
FOREIGN = b"no image" * (MB // 8)
OCTETS, JSON, LINES = ({"Content-Type": kind} for kind in ("image/png", "application/json", "application/x-ndjson"))


def encoded(data):
    return base64.b64encode(data).decode()


def listed(data, **more):
    return {"content": json.dumps({"images": [{"b64": encoded(data), **more}]}).encode(), "headers": JSON}


def binary_of(data):
    raw = elements(data)
    tensor = {"name": "encoded", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(raw)}}
    return binary({"inputs": [tensor]}, raw)


CASES = {
    "form": (200, {"files": {"file": GOOD}}),
    "raw": (200, {"content": GOOD, "headers": OCTETS}),
    "json": (200, listed(GOOD)),
    "lines": (200, {"content": json.dumps({"b64": encoded(GOOD)}).encode(), "headers": LINES}),
    "broken form": (400, {"files": {"file": BROKEN}}),
    "foreign form": (400, {"files": {"file": FOREIGN}}),
    "foreign": (400, {"content": FOREIGN, "headers": OCTETS}),
    "foreign json": (400, listed(FOREIGN)),
    "both in json": (422, listed(GOOD, url="http://127.0.0.1/a.png")),
    "foreign lines": (200, {"content": json.dumps({"b64": encoded(FOREIGN)}).encode(), "headers": LINES}),
    "another field": (400, {"files": {"files": GOOD}}),
    "no boundary": (400, {"content": GOOD, "headers": {"Content-Type": "multipart/form-data"}}),
    "no form": (400, {"content": GOOD, "headers": {"Content-Type": "multipart/form-data; boundary=x"}}),
    "no json": (422, {"content": b'"' + GOOD, "headers": JSON}),
    "crowded json": (413, {"content": b"{" + GOOD, "headers": JSON}),
    "another type": (415, {"content": GOOD, "headers": {"Content-Type": "text/plain"}}),
    "late": (504, {"files": {"file": GOOD}, "params": {"timeout": 0.0001}}),
    "oip json": (200, {"content": json.dumps({"inputs": [oip(data=[encoded(GOOD)])]}).encode()}),
    "foreign oip json": (400, {"content": json.dumps({"inputs": [oip(data=[encoded(FOREIGN)])]}).encode()}),
    "oip binary": (200, binary_of(GOOD)),
    "foreign oip binary": (400, binary_of(FOREIGN)),
    "no version": (404, {"files": {"file": GOOD}, "params": {"version": 9}}),
}


LARGE = {"smp_" + "0" * 16 + str(number): "x" * 1000 for number in range(MB // 1000)}
# Bodies that are no images, by path and status.
OTHERS = {
    "no dataset": ("/datasets", 404, {"name": "child", "base": "ds_none", "relabel": LARGE}),
    "no upload": ("/datasets", 404, {"name": "child", "upload_id": "up_none", "relabel": LARGE}),
    "no such field": ("/datasets", 422, {"name": "child", "base": "ds_none", "labels": LARGE}),
    "no job": ("/jobs", 422, {"kind": "transfer", "inputs": LARGE}),
    "broken": ("/jobs", 422, '{"a": "' + "x" * MB),
    "deep": ("/jobs", 422, "[" * 90_000),
    "crowded": ("/jobs", 413, "[" * MB),
    "no bundle": ("/models/a/versions", 422, {"upload_id": "up_none", "more": LARGE}),
}


def check(ask):
    """Asks several times, while nobody looks for garbage."""
    ask()
    ask()
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        for _ in range(NUM_REQUESTS):
            ask()
        # The last one's goes a moment after its answer.
        wait_until(lambda: tracemalloc.get_traced_memory()[0] < 2 * MB, "bodies that go with their answers")
    finally:
        tracemalloc.stop()
        gc.enable()


def check_answers(url, status, **request):
    with httpx.Client(trust_env=False, timeout=60) as http:

        def ask():
            found = http.post(url, **request)
            assert found.status_code == status, found.text[:1000]

        check(ask)


@pytest.mark.parametrize("case", CASES)
def test_images_go_with_their_answers(light, tmp_path, case):
    status, request = CASES[case]
    with application(light) as (address, state):
        publish(state, tmp_path / "made", NAME)
        door = f"/v2/models/{NAME}/infer" if "oip" in case else f"/api/v1/models/{NAME}/predict"
        check_answers(address + door, status, **request)


@pytest.mark.parametrize("case", OTHERS)
def test_documents_go_with_their_answers(light, case):
    path, status, document = OTHERS[case]
    body = document if isinstance(document, str) else json.dumps(document)
    with application(light) as (address, _):
        check_answers(f"{address}/api/v1{path}", status, content=body.encode(), headers=JSON)


@pytest.mark.parametrize(("image", "status"), [(GOOD, None), (FOREIGN, grpc.StatusCode.INVALID_ARGUMENT)])
def test_images_over_grpc_go_with_their_answers(light, tmp_path, image, status):
    settings = light.model_copy(update={"grpc_port": free_port()})
    tensor = {"name": "encoded", "datatype": "BYTES", "shape": [1], "contents": {"bytes_contents": [image]}}
    request = test_grpc.infer([tensor])
    with application(settings) as (_, state), grpc.insecure_channel(f"127.0.0.1:{settings.grpc_port}") as channel:
        publish(state, tmp_path / "made", NAME)
        caller = test_grpc.Caller(channel)

        def ask():
            try:
                caller("ModelInfer", request)
                found = None
            except grpc.RpcError as error:
                found = error.code()
            assert found == status

        check(ask)


def test_streams_over_grpc_go_with_their_answers(light, tmp_path):
    settings = light.model_copy(update={"grpc_port": free_port()})
    tensor = {"name": "encoded", "datatype": "BYTES", "shape": [1], "contents": {"bytes_contents": [FOREIGN]}}
    request = test_grpc.infer([tensor])
    with application(settings) as (_, state), grpc.insecure_channel(f"127.0.0.1:{settings.grpc_port}") as channel:
        publish(state, tmp_path / "made", NAME)
        stream = test_grpc.Caller(channel).method("ModelStreamInfer")

        def ask():
            (answer,) = stream(iter([request]), timeout=60)
            assert "image 0" in answer.error_message

        check(ask)


@pytest.mark.parametrize("kind", ["application/x-ndjson", "image/png", "multipart/form-data; boundary=x"])
def test_bodies_that_are_broken_off_go(light, tmp_path, kind):
    with application(light) as (address, state):
        publish(state, tmp_path / "made", NAME)

        def ask():
            begun(address, f"/api/v1/models/{NAME}/predict", 4 * MB, b"x" * MB, kind).close()
            wait_until(lambda: state.held.num_bytes == 0, "the end of the request")

        check(ask)
