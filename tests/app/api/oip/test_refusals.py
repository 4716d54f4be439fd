"""Whatever is wrong with a request over HTTP: one clear answer, and nothing left behind."""

import gzip
import json
import tracemalloc

import pytest

from tests.app.api.oip.requests import BASE64, LENGTH, URL, binary, elements, encoded, images
from tests.checks import inference_error
from tests.inference import PICTURES, pixels

RAW = elements(*PICTURES)
REFUSED = {
    "no JSON": ({"content": b"{"}, 400, "as JSON"),
    "nothing": ({"content": b""}, 400, "as JSON"),
    "no UTF-8": ({"content": b'{"inputs": "\xff"}'}, 400, "UTF-8"),
    "deep": ({"content": b'{"inputs":' + b"[" * 100_000}, 400, "as JSON"),
    "endless number": ({"content": b'{"inputs":' + b"9" * 5000 + b"}"}, 400, "found a number that is too long"),
    "deep data": ({"json": {"inputs": [images(data=json.loads("[" * 200 + "]" * 200))]}}, 400, "flat, or nested"),
    "a list": ({"json": []}, 400, "/: "),
    "no inputs": ({"json": {}}, 400, "/inputs: Field required"),
    "empty inputs": ({"json": {"inputs": []}}, 400, "expected one input"),
    "both inputs": ({"json": {"inputs": [encoded(), images()]}}, 400, "expected one input"),
    "unknown input": ({"json": {"inputs": [encoded(name="input")]}}, 400, "expected input encoded or images"),
    "unknown field": ({"json": {"inputs": [encoded()], "output": []}}, 400, "/output"),
    "wrong datatype": ({"json": {"inputs": [images(datatype="FP32")]}}, 400, "expected images as UINT8"),
    "wrong datatype of files": ({"json": {"inputs": [encoded(datatype="UINT8")]}}, 400, "encoded as BYTES"),
    "wrong size": ({"json": {"inputs": [images(shape=[5, 9, 8, 3])]}}, 400, "resize"),
    "wrong rank": ({"json": {"inputs": [images(shape=[8, 8, 3])]}}, 400, "of shape"),
    "no shape": ({"json": {"inputs": [images(shape=[])]}}, 400, "of shape"),
    "negative": ({"json": {"inputs": [images(shape=[-1, 8, 8, 3])]}}, 400, "of shape"),
    "no images": ({"json": {"inputs": [encoded([])]}}, 400, "send at least one image"),
    "no pixels": ({"json": {"inputs": [images(shape=[0, 8, 8, 3], data=[])]}}, 400, "send at least one image"),
    "wrong rank of files": ({"json": {"inputs": [encoded(shape=[5, 1])]}}, 400, "one element for each image"),
    "fraction": ({"json": {"inputs": [encoded(shape=[5.5])]}}, 400, "/inputs/0/shape/0"),
    "huge count": ({"json": {"inputs": [encoded(shape=[10**18])]}}, 400, "at most 256"),
    "huge images": ({"json": {"inputs": [images(shape=[10**30, 8, 8, 3])]}}, 400, "at most 256"),
    "too many": ({"json": {"inputs": [encoded(["a"] * 257)]}}, 400, "at most 256"),
    "more than said": ({"json": {"inputs": [encoded(shape=[4])]}}, 400, "expected 4 elements"),
    "less than said": ({"json": {"inputs": [images(shape=[6, 8, 8, 3])]}}, 400, "flat, or nested"),
    "less than said, nested": ({"json": {"inputs": [images(data=pixels().tolist()[1:])]}}, 400, "found lists of 4 ele"),
    "ragged": (
        {"json": {"inputs": [images(data=[*pixels().tolist()[1:], [[[1, 2]]]])]}}, 400,
        "flat, or nested as its shape [5, 8, 8, 3] says; found lists of 1, 8 elements in place of 8; send all",
    ),
    "lists beside numbers": (
        {"json": {"inputs": [images(data=[*pixels().tolist()[1:], 1])]}}, 400, "found lists beside values in place of 8"
    ),
    "numbers beside lists": ({"json": {"inputs": [images(data=[1, *pixels().tolist()[1:]])]}}, 400, "flat, or nested"),
    "lists among numbers": (
        {"json": {"inputs": [images(data=[*pixels().ravel().tolist()[1:], [1]])]}}, 400, "values of type list among"
    ),
    "empty data": ({"json": {"inputs": [images(data=[])]}}, 400, "found lists of 0 elements in place of 960"),
    "fractions": ({"json": {"inputs": [images(data=[0.5] * pixels().size)]}}, 400, "found values of type float among"),
    "truth": ({"json": {"inputs": [images(data=[True] * pixels().size)]}}, 400, "found values of type bool among"),
    "truth among numbers": (
        {"json": {"inputs": [images(data=[*pixels().ravel().tolist()[:-1], False])]}}, 400,
        "expected data of images as whole numbers from 0 to 255; found values of type bool among them; send the",
    ),
    "truth deep inside": ({"json": {"inputs": [images(data=(pixels() > 0).tolist())]}}, 400, "type bool among"),
    "truth in UTF-16": (
        {"content": json.dumps({"inputs": [images(data=[True] * pixels().size)]}).encode("utf-16")}, 400,
        "found values of type bool among"
    ),
    "nulls and objects": (
        {"json": {"inputs": [images(data=[None, *pixels().ravel().tolist()[2:], {}])]}}, 400, "NoneType, dict among"
    ),
    "truth as a file": ({"json": {"inputs": [encoded([True])]}}, 400, "found bool at 0"),
    "texts": ({"json": {"inputs": [images(data=["1"] * pixels().size)]}}, 400, "whole numbers"),
    "too bright": ({"json": {"inputs": [images(data=[256] * pixels().size)]}}, 400, "found 256 to 256"),
    "too dark": ({"json": {"inputs": [images(data=[-1] * pixels().size)]}}, 400, "found -1 to -1"),
    "huge numbers": ({"json": {"inputs": [images(data=[10**40] * pixels().size)]}}, 400, "whole numbers"),
    "no base64": ({"json": {"inputs": [encoded(["***"])]}}, 400, "in base64"),
    "lines of base64": (
        {"json": {"inputs": [encoded([BASE64[0][:76] + "\n" + BASE64[0][76:]])]}}, 400,
        "send the file's bytes in base64, without a line break or a prefix, or as binary data"
    ),
    "no text": ({"json": {"inputs": [encoded([1])]}}, 400, "found int at 0"),
    "not ASCII": ({"json": {"inputs": [encoded(["\u00e4"])]}}, 400, "in base64"),
    "other content type": (
        {"json": {"inputs": [encoded(parameters={"content_type": "str"})]}}, 400, "content_type base64"
    ),
    "no image": ({"json": {"inputs": [encoded(["aGVsbG8="])]}}, 400, "image 0: expected one of JPEG"),
    "no data": ({"json": {"inputs": [{"name": "encoded", "datatype": "BYTES", "shape": [1]}]}}, 400, "found neither"),
    "shared memory": (
        {"json": {"inputs": [encoded(parameters={"shared_memory_region": "a"})]}}, 501, "shared memory"
    ),
    "unknown output": ({"json": {"inputs": [encoded()], "outputs": [{"name": "scores"}]}}, 400, "found 'scores'"),
    "output twice": (
        {"json": {"inputs": [encoded()], "outputs": [{"name": "features"}, {"name": "features"}]}}, 400, "once"
    ),
    "no classes": (
        {"json": {"inputs": [encoded()], "outputs": [{"name": "features", "parameters": {"classification": 0}}]}},
        400, "from 1 on",
    ),
    "timeout in words": ({"json": {"inputs": [encoded()], "parameters": {"timeout": "1s"}}}, 400, "microseconds"),
    "timeout as text": (
        {"json": {"inputs": [encoded()], "parameters": {"timeout": "1000"}}}, 400,
        "as a whole number of microseconds, at most 3600 s; found '1000'; send",
    ),
    "timeout beyond": ({"json": {"inputs": [encoded()], "parameters": {"timeout": 10**12}}}, 400, f"found {10**12};"),
    "timeout below zero": ({"json": {"inputs": [encoded()], "parameters": {"timeout": -1}}}, 400, "microseconds"),
    "too late": ({"json": {"inputs": [encoded()], "parameters": {"timeout": 1}}}, 504, "deadline"),
    "unknown domain": ({"json": {"inputs": [encoded()], "parameters": {"domain": "mars"}}}, 404, "mars"),
    "domain of a kind": ({"json": {"inputs": [encoded()], "parameters": {"domain": 1}}}, 400, "as text"),
    "header of words": ({"content": b"{}", "headers": {LENGTH: "many"}}, 400, LENGTH),
    "header beyond the body": ({"content": b"{}", "headers": {LENGTH: "3"}}, 400, LENGTH),
    "header below zero": ({"content": b"{}", "headers": {LENGTH: "-1"}}, 400, LENGTH),
    "empty body as an image": ({"content": b"", "headers": {LENGTH: "0"}}, 400, "image 0"),
    "unknown encoding": ({"content": b"{}", "headers": {"Content-Encoding": "br"}}, 501, "gzip or deflate"),
    "broken gzip": ({"content": b"{}", "headers": {"Content-Encoding": "gzip"}}, 400, "in gzip"),
    "cut gzip": (
        {"content": gzip.compress(b"{}" * 99)[:-9], "headers": {"Content-Encoding": "gzip"}}, 400, "cut off"
    ),
    "gzip and more": (
        {"content": gzip.compress(b"{}") + b"a", "headers": {"Content-Encoding": "gzip"}}, 400, "behind its end"
    ),
}  # fmt: skip


UNSPOKEN = [
    ("GET", "logging"), ("POST", "logging"), ("GET", "trace/setting"), ("POST", "models/tiny/trace/setting"),
    ("GET", "systemsharedmemory/status"), ("POST", "systemsharedmemory/region/a/register"),
    ("POST", "systemsharedmemory/unregister"), ("GET", "cudasharedmemory/region/a/status"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path"), UNSPOKEN)
def test_extensions_that_are_not_spoken_say_so(served, method, path):
    assert "not spoken here" in inference_error(served.request(method, f"/v2/{path}"), 501)


@pytest.mark.parametrize("case", REFUSED)
def test_refused(served, home, case):
    arguments, status, words = REFUSED[case]
    assert words in inference_error(served.post(URL, **arguments), status)
    assert list((home / "scratch").glob("*")) == []
    assert served.app.state.graft.engine.num_images == 0


@pytest.mark.parametrize(
    ("data", "words"),
    [
        # Of the right number: numpy would make each of them as long as the longest, 19 MB of 15 KB.
        (["a" * 5000, *["b"] * 959], "found values of type str among them"),
        # Of another number, whatever they are.
        (["a" * 5000, *["b"] * 2000], "found lists of 2001 elements in place of 960"),
    ],
)
def test_what_is_refused_takes_no_memory(served, data, words):
    asked = json.dumps({"inputs": [images(data=data)]})
    served.post(URL, content=asked)
    tracemalloc.start()
    try:
        assert words in inference_error(served.post(URL, content=asked), 400)
        assert tracemalloc.get_traced_memory()[1] < 2**21
    finally:
        tracemalloc.stop()


def test_truth_elsewhere_is_none_of_the_data(served):
    """Parameters may be true, and so may a text that is no datum."""
    asked = {
        "id": "true",
        "inputs": [images()],
        "outputs": [{"name": "features", "parameters": {"binary_data": False}}],
    }
    assert served.post(URL, json=asked).status_code == 200


BINARY = {
    "less than it says": (encoded(parameters={"binary_data_size": len(RAW)}), RAW[:-1], "binary_data_size"),
    "more than it says": (encoded(parameters={"binary_data_size": len(RAW)}), RAW + b"a", "as many bytes"),
    "below zero": (encoded(parameters={"binary_data_size": -1}), RAW, "binary_data_size"),
    "a text": (encoded(parameters={"binary_data_size": "9"}), RAW, "as a whole number within the"),
    "a number as text": (encoded(parameters={"binary_data_size": "5522"}), RAW, "behind the JSON; found '5522'"),
    "huge": (encoded(parameters={"binary_data_size": 10**30}), RAW, "binary_data_size"),
    "element cut off": (encoded(parameters={"binary_data_size": 3}), b"abc", "element 0 cut off"),
    "lying length": (encoded(parameters={"binary_data_size": 5}), b"\xff\xff\xff\xffa", "element 0 cut off"),
    "too few elements": (encoded(parameters={"binary_data_size": 5}), elements(b"a"), "expected 5 elements"),
    "elements beyond the shape": (
        # Not looked at: of a large body they would be millions, empty ones.
        encoded(shape=[1], parameters={"binary_data_size": len(RAW) - 1}), RAW[:-1],
        "expected 1 elements of encoded, as its shape says; found more",
    ),
    "too few pixels": (images(parameters={"binary_data_size": 5}), b"abcde", "bytes of images"),
    "none behind": (images(parameters={"binary_data_size": 0}), b"", "bytes of images"),
}  # fmt: skip


@pytest.mark.parametrize("case", BINARY)
def test_binary_refused(served, case):
    tensor, raw, words = BINARY[case]
    tensor = {key: value for key, value in tensor.items() if key != "data"}
    assert words in inference_error(served.post(URL, **binary({"inputs": [tensor]}, raw)), 400)


def test_data_twice_is_refused(served):
    tensor = encoded(parameters={"binary_data_size": len(RAW)})
    assert "found both" in inference_error(served.post(URL, **binary({"inputs": [tensor]}, RAW)), 400)
