"""The Open Inference Protocol as `tritonclient` speaks it: a service of its own, the unmodified client."""

import asyncio
import base64
import json
import queue
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio
from tritonclient.utils import InferenceServerException

from app.main import make_state
from app.settings import Settings
from tests.conftest import free_port
from tests.e2e.conftest import serve
from tests.inference import LABELS, NAME, PICTURES, features, pixels, probabilities, publish
from tests.processes import ROOT

pytestmark = pytest.mark.server
WIRES = {"http": tritonclient.http, "grpc": tritonclient.grpc}


@pytest.fixture(scope="module")
def addresses(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Any) -> Iterator[dict[str, str]]:
    """A service that predicts, with one model of two versions."""
    home = tmp_path_factory.mktemp("protocol") / "home"
    home.mkdir()
    (home / "graft.db").write_bytes(sqlite_template.read_bytes())
    state = make_state(Settings(home=home))
    publish(state, home.parent / "made")
    state.engine.close()
    state.database.dispose()
    port = free_port()
    with serve(home, ["serve"], grpc_port=port) as service:
        yield {"http": service.url.removeprefix("http://"), "grpc": f"127.0.0.1:{port}"}


@pytest.fixture(params=WIRES)
def wire(request: pytest.FixtureRequest, addresses: dict[str, str]) -> Iterator[Any]:
    """The client of one wire, with the module that it is from."""
    module: Any = WIRES[request.param]
    client = module.InferenceServerClient(addresses[request.param])
    yield SimpleNamespace(
        name=request.param,
        client=client,
        module=module,
        InferInput=module.InferInput,
        Output=module.InferRequestedOutput,
    )
    client.close()


def encoded(module: Any, pictures: list[bytes] = PICTURES, **options: Any) -> Any:
    tensor = module.InferInput("encoded", [len(pictures)], "BYTES")
    tensor.set_data_from_numpy(np.array(pictures, dtype=np.object_), **options)
    return tensor


def images(module: Any, **options: Any) -> Any:
    tensor = module.InferInput("images", list(pixels().shape), "UINT8")
    tensor.set_data_from_numpy(pixels(), **options)
    return tensor


def agrees(result: Any, version: int = 2) -> None:
    np.testing.assert_allclose(result.as_numpy("probabilities"), probabilities(version), atol=1e-5)


def test_health_and_metadata(wire: Any) -> None:
    client = wire.client
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(NAME)
    assert client.is_model_ready(NAME, "1")
    assert not client.is_model_ready("nothing")
    as_json = {"as_json": True} if wire.name == "grpc" else {}
    server = client.get_server_metadata(**as_json)
    assert (server["name"], "binary_tensor_data" in server["extensions"]) == ("graft", True)
    found = client.get_model_metadata(NAME, **as_json)
    assert [tensor["name"] for tensor in found["inputs"]] == ["encoded", "images"]
    assert found["versions"] == ["1", "2"]
    config = client.get_model_config(NAME, **as_json)
    config = config.get("config", config)
    assert json.loads(config["parameters"]["labels"]["string_value"]) == LABELS
    index = client.get_model_repository_index(**as_json)
    index = index["models"] if wire.name == "grpc" else index
    assert [(row["name"], row["version"], row["state"]) for row in index] == [
        (NAME, "1", "READY"),
        (NAME, "2", "READY"),
    ]


@pytest.mark.parametrize("make", [encoded, images])
def test_as_the_client_does_by_default(wire: Any, make: Callable[..., Any]) -> None:
    result = wire.client.infer(NAME, [make(wire.module)], request_id="a1")
    agrees(result)
    response = result.get_response()
    found = response["id"] if wire.name == "http" else response.id
    assert found == "a1"
    agrees(wire.client.infer(NAME, [make(wire.module)], model_version="1"), 1)


def test_outputs_that_are_asked_for(wire: Any) -> None:
    outputs = [wire.Output("features"), wire.Output("probabilities", class_count=2)]
    result = wire.client.infer(NAME, [encoded(wire.module)], outputs=outputs)
    np.testing.assert_allclose(result.as_numpy("features"), features(), atol=1e-5)
    best = result.as_numpy("probabilities")
    assert best.shape == (len(PICTURES), 2)
    for row, texts in zip(probabilities(2), best, strict=True):
        value, place, label = texts[0].decode().split(":")
        assert (int(place), label) == (row.argmax(), LABELS[row.argmax()])
        assert abs(float(value) - row.max()) < 1e-5


def test_statistics_load_and_unload(wire: Any) -> None:
    client = wire.client
    as_json = {"as_json": True} if wire.name == "grpc" else {}

    def counted() -> int:
        (row,) = client.get_inference_statistics(NAME, "1", **as_json)["model_stats"]
        return int(row.get("inference_count", 0))

    before = counted()
    client.load_model(NAME)
    client.unload_model(NAME)
    agrees(client.infer(NAME, [encoded(wire.module)], model_version="1"), 1)
    assert counted() == before + len(PICTURES)


def test_errors(wire: Any) -> None:
    client, module = wire.client, wire.module
    with pytest.raises(InferenceServerException, match="none named 'nothing'"):
        client.infer("nothing", [encoded(module)])
    with pytest.raises(InferenceServerException, match="image 0: expected one of JPEG"):
        client.infer(NAME, [encoded(module, [b"hello"])])
    with pytest.raises(InferenceServerException, match="found 'scores'"):
        client.infer(NAME, [encoded(module)], outputs=[wire.Output("scores")])
    with pytest.raises(InferenceServerException, match="expected one input"):
        client.infer(NAME, [encoded(module), images(module)])
    with pytest.raises(InferenceServerException, match="deadline"):
        client.infer(NAME, [encoded(module)], timeout=1)
    with pytest.raises(InferenceServerException, match="published by jobs"):
        client.load_model(NAME, config="{}")
    agrees(client.infer(NAME, [encoded(module)]))


def test_json_alone(addresses: dict[str, str]) -> None:
    client = tritonclient.http.InferenceServerClient(addresses["http"])
    texts = [base64.b64encode(data) for data in PICTURES]
    output = tritonclient.http.InferRequestedOutput("probabilities", binary_data=False)
    for tensor in (
        encoded(tritonclient.http, texts, binary_data=False),
        images(tritonclient.http, binary_data=False),
    ):
        result = client.infer(NAME, [tensor], outputs=[output])
        assert result.get_response()["outputs"][0]["data"]
        agrees(result)
    client.close()


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compression(addresses: dict[str, str], algorithm: str) -> None:
    for name, options in {
        "http": {"request_compression_algorithm": algorithm, "response_compression_algorithm": algorithm},
        "grpc": {"compression_algorithm": algorithm},
    }.items():
        client = WIRES[name].InferenceServerClient(addresses[name])  # type: ignore[attr-defined]
        many = [*PICTURES] * 10
        outputs = [WIRES[name].InferRequestedOutput("features")]  # type: ignore[attr-defined]
        result = client.infer(NAME, [encoded(WIRES[name], many)], outputs=outputs, **options)
        np.testing.assert_allclose(result.as_numpy("features"), np.tile(features(), (10, 1)), atol=1e-5)
        client.close()


@pytest.mark.parametrize("name", WIRES)
def test_asynchronous_clients(addresses: dict[str, str], name: str) -> None:
    module: Any = {"http": tritonclient.http.aio, "grpc": tritonclient.grpc.aio}[name]

    async def many() -> None:
        client = module.InferenceServerClient(addresses[name])
        try:
            assert await client.is_server_ready()
            found = await asyncio.gather(*(client.infer(NAME, [encoded(module)]) for _ in range(8)))
            for result in found:
                agrees(result)
            with pytest.raises(InferenceServerException, match="none named 'nothing'"):
                await client.infer("nothing", [encoded(module)])
        finally:
            await client.close()

    asyncio.run(many())


def test_streams(addresses: dict[str, str]) -> None:
    client = tritonclient.grpc.InferenceServerClient(addresses["grpc"])
    found: list[Any] = []
    ended = threading.Event()

    def take(result: Any, error: Any) -> None:
        found.append(error or result)
        if len(found) == 3:
            ended.set()

    client.start_stream(take)
    for model in (NAME, "nothing", NAME):
        client.async_stream_infer(model, [encoded(tritonclient.grpc)])
    assert ended.wait(30)
    client.stop_stream()
    client.close()
    agrees(found[0])
    assert "none named 'nothing'" in str(found[1])
    agrees(found[2])


def test_the_only_response_of_a_streamed_request_is_its_final_one(addresses: dict[str, str]) -> None:
    found: queue.Queue[tuple[Any, Any]] = queue.Queue()
    with tritonclient.grpc.InferenceServerClient(addresses["grpc"]) as client:
        client.start_stream(lambda result, error: found.put((result, error)))
        for name in "ab":
            client.async_stream_infer(
                NAME, [encoded(tritonclient.grpc)], request_id=name, enable_empty_final_response=True
            )
        for name in "ab":
            result, error = found.get(timeout=30)
            assert error is None
            agrees(result)
            answer = result.get_response()
            assert (answer.id, answer.parameters["triton_final_response"].bool_param) == (name, True)
        client.stop_stream()
    assert found.empty()


def test_every_door_says_the_same(addresses: dict[str, str]) -> None:
    """One picture through multipart, raw body, JSON, the protocol's JSON, its binary form and gRPC."""
    picture, url = PICTURES[1], f"http://{addresses['http']}"
    text = base64.b64encode(picture).decode()
    native = f"{url}/api/v1/models/{NAME}/predict"
    found = {}
    with httpx.Client(trust_env=False) as client:
        answers = {
            "multipart": client.post(native, files={"file": picture}),
            "raw": client.post(native, content=picture, headers={"Content-Type": "image/png"}),
            "JSON": client.post(native, json={"images": [{"b64": text}]}),
        }
        for door, answer in answers.items():
            scores = {score["label"]: score["score"] for score in answer.json()["predictions"][0]["scores"]}
            found[door] = [scores[label] for label in LABELS]
        tensor = {"name": "encoded", "datatype": "BYTES", "shape": [1], "data": [text]}
        answer = client.post(f"{url}/v2/models/{NAME}/infer", json={"inputs": [tensor]})
        found["protocol's JSON"] = answer.json()["outputs"][0]["data"]
    for name, module in WIRES.items():
        with made(module, addresses[name]) as triton:
            result = triton.infer(NAME, [encoded(module, [picture])])
            found[f"tritonclient {name}"] = result.as_numpy("probabilities")[0]
    assert len(found) == 6
    for door, scores in found.items():
        np.testing.assert_allclose(scores, probabilities(2)[1], atol=1e-4, err_msg=door)


def test_the_example_of_the_docs_runs(addresses: dict[str, str], tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "protocols.md").read_text(), re.DOTALL)
    (tmp_path / "photo.jpg").write_bytes(PICTURES[0])
    for name in WIRES:
        code = example.replace("127.0.0.1:8000", addresses[name]).replace('"NAME"', f'"{NAME}"')
        code = code.replace("tritonclient.http as", f"tritonclient.{name} as")
        shown = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
        assert LABELS[probabilities(2)[0].argmax()] in shown.stdout


@contextmanager
def made(module: Any, address: str) -> Iterator[Any]:
    client = module.InferenceServerClient(address)
    yield client
    client.close()
