"""Names over gRPC, which may be as long as a message: none is kept, and none is said back as it came."""

import grpc
import pytest
from starlette.testclient import TestClient

from app.main import create_app
from app.serving.statistics import OTHERS
from app.settings import DEFAULT_PROJECT
from tests.app.api.oip.test_grpc import Caller, asked, encoded, infer, refused
from tests.conftest import free_port
from tests.inference import PICTURES, publish

LONG = "a" * 150_000
# What a client reads of a status, unless it is told to read more.
METADATA_BYTES = 8192
ROOM = 2 * len(PICTURES)


@pytest.fixture
def serving(light, tmp_path):
    """State of a service in which few images have room, and a caller of it."""
    settings = light.model_copy(update={"grpc_port": free_port(), "max_queued_images": ROOM})
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as client:
        publish(client.app.state.graft, tmp_path / "made")
        with grpc.insecure_channel(f"127.0.0.1:{settings.grpc_port}") as channel:
            yield client.app.state.graft, Caller(channel)


@pytest.mark.parametrize("name", [LONG, "a" * 101, "no name", "\0"], ids=len)
def test_a_name_that_no_model_has_is_not_found_and_not_kept(serving, name):
    state, call = serving
    error = refused(call, "ModelInfer", infer([encoded()], model_name=name), "NOT_FOUND", "expected a model of this")
    assert len(error.details()) < 300
    refused(call, "ModelMetadata", asked("ModelMetadataRequest", name=name), "NOT_FOUND", "expected a model of this")
    with state.engine._changed:
        state.engine.room.enter("another", ROOM, DEFAULT_PROJECT)
    refused(call, "ModelInfer", infer([encoded()], model_name=name), "UNAVAILABLE", "expected room")
    (answer,) = call.method("ModelStreamInfer")(iter([infer([encoded()], model_name=name)]), timeout=30)
    assert "expected room" in answer.error_message
    assert state.statistics.total().refused == {DEFAULT_PROJECT: {OTHERS: {"overloaded": 2}}}


PARAMETERS = {
    "domain": ({"domain": {"string_param": LONG}}, "NOT_FOUND", "none named 'aaa"),
    "precision": ({"precision": {"string_param": LONG}}, "INVALID_ARGUMENT", "found 'aaa"),
}


@pytest.mark.parametrize("case", PARAMETERS)
def test_a_long_parameter_is_said_back_cut_short(serving, case):
    _, call = serving
    parameters, code, words = PARAMETERS[case]
    error = refused(call, "ModelInfer", infer([encoded()], parameters=parameters), code, words)
    assert len(error.details()) < METADATA_BYTES


def test_what_is_asked_of_an_output_is_said_back_cut_short(serving):
    _, call = serving
    for parameter in ("classification", "binary_data"):
        request = infer([encoded()])
        request.outputs.add(name="features", parameters={parameter: {"string_param": LONG}})
        assert len(refused(call, "ModelInfer", request, "INVALID_ARGUMENT", "found 'aaa").details()) < METADATA_BYTES
    request = infer([encoded()])
    for _ in range(10_000):
        request.outputs.add(name="features")
    assert len(refused(call, "ModelInfer", request, "INVALID_ARGUMENT", "each output once").details()) < METADATA_BYTES
