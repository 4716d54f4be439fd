"""The Open Inference Protocol over gRPC: the service in this process, called through its own messages."""

import time

import grpc
import numpy as np
import pytest
from sqlalchemy.exc import OperationalError
from starlette.testclient import TestClient
from tritonclient.grpc import model_config_pb2, service_pb2

from app.api.oip import proto
from app.artifact.precisions import SECOND
from app.main import create_app
from tests.app import second_graphs
from tests.app.api.oip.requests import elements
from tests.conftest import free_port, wait_until
from tests.inference import LABELS, NAME, PICTURES, features, pixels, probabilities, publish


class Caller:
    """Calls a service's methods by name."""

    def __init__(self, channel):
        self._channel = channel

    def method(self, name):
        (found,) = [method for method in proto.methods() if method.name == name]
        kind = self._channel.stream_stream if found.client_streaming else self._channel.unary_unary
        request, response = proto.message(found.input_type.name), proto.message(found.output_type.name)
        return kind(f"/{proto.SERVICE}/{name}", request.SerializeToString, response.FromString)

    def __call__(self, name, request=None, **options):
        (found,) = [method for method in proto.methods() if method.name == name]
        asked = proto.message(found.input_type.name)() if request is None else request
        return self.method(name)(asked, timeout=options.pop("timeout", 30), **options)


@pytest.fixture
def settings(light):
    return light.model_copy(update={"grpc_port": free_port(), "max_predict_bytes": 200_000})


@pytest.fixture
def state(settings, tmp_path):
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as client:
        publish(client.app.state.graft, tmp_path / "made")
        yield client.app.state.graft


@pytest.fixture
def call(state, settings):
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(f"127.0.0.1:{settings.grpc_port}", options) as channel:
        yield Caller(channel)


def asked(kind, /, **fields):
    return proto.message(kind)(**fields)


def infer(inputs, **fields):
    request = asked("ModelInferRequest", **{"model_name": NAME, **fields})
    for tensor in inputs:
        request.inputs.add(**tensor)
    return request


def encoded(**fields):
    contents = {"bytes_contents": PICTURES}
    return {"name": "encoded", "datatype": "BYTES", "shape": [len(PICTURES)], "contents": contents, **fields}


def images(**fields):
    contents = {"uint_contents": pixels().ravel().tolist()}
    return {"name": "images", "datatype": "UINT8", "shape": pixels().shape, "contents": contents, **fields}


def agrees(answer, version=2):
    (output,) = answer.outputs
    assert (output.name, output.datatype) == ("probabilities", "FP32")
    found = np.frombuffer(answer.raw_output_contents[0], "<f4").reshape(output.shape)
    np.testing.assert_allclose(found, probabilities(version), atol=1e-5)


def refused(call, name, request, code, words):
    with pytest.raises(grpc.RpcError) as raised:
        call(name, request)
    assert (raised.value.code().name, words in raised.value.details()) == (code, True), raised.value.details()
    return raised.value


def test_messages_are_those_of_the_protocol():
    """Every message and field that is declared has the name, number and type that clients use."""
    package = service_pb2.DESCRIPTOR
    for method in proto.methods():
        theirs = package.services_by_name["GRPCInferenceService"].methods_by_name[method.name]
        assert (theirs.input_type.full_name, theirs.output_type.full_name) == (
            method.input_type.full_name,
            method.output_type.full_name,
        )
        assert (theirs.client_streaming, theirs.server_streaming) == (method.client_streaming, method.server_streaming)
    (file,) = {method.input_type.file for method in proto.methods()}
    for name, ours in file.message_types_by_name.items():
        module = service_pb2 if name in package.message_types_by_name else model_config_pb2
        same(ours, module.DESCRIPTOR.message_types_by_name[name])
    (kind,) = file.enum_types_by_name.values()
    theirs = model_config_pb2.DESCRIPTOR.enum_types_by_name["DataType"]
    assert {item.name: item.number for item in kind.values} == {item.name: item.number for item in theirs.values}


def same(ours, theirs):
    for field in ours.fields:
        other = theirs.fields_by_name[field.name]
        assert (field.number, field.type, field.is_repeated) == (other.number, other.type, other.is_repeated), (
            field.full_name
        )
        kinds = [(one.message_type or one.enum_type) for one in (field, other)]
        assert len({kind.full_name if kind else None for kind in kinds}) == 1, field.full_name
        assert (field.containing_oneof and field.containing_oneof.name) == (
            other.containing_oneof and other.containing_oneof.name
        )
    for nested in ours.nested_types:
        same(nested, theirs.nested_types_by_name[nested.name])


def test_the_descriptor_is_compiled_from_the_text(tmp_path):
    from importlib import resources

    from grpc_tools import protoc

    folder = resources.files("app.api.oip")
    out = tmp_path / proto.COMPILED
    assert protoc.main(["", f"-I{folder}", f"--descriptor_set_out={out}", f"{folder}/inference.proto"]) == 0
    assert out.read_bytes() == folder.joinpath(proto.COMPILED).read_bytes(), "out of date: run `make proto`"


def test_health_and_metadata(call):
    assert call("ServerLive").live
    assert call("ServerReady").ready
    assert call("ModelReady", asked("ModelReadyRequest", name=NAME)).ready
    assert call("ModelReady", asked("ModelReadyRequest", name=NAME, version="1")).ready
    assert not call("ModelReady", asked("ModelReadyRequest", name=NAME, version="9")).ready
    assert not call("ModelReady", asked("ModelReadyRequest", name="nothing")).ready
    server = call("ServerMetadata")
    assert (server.name, "binary_tensor_data" in server.extensions) == ("graft", True)
    found = call("ModelMetadata", asked("ModelMetadataRequest", name=NAME))
    assert [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in found.inputs] == [
        ("encoded", "BYTES", [-1]),
        ("images", "UINT8", [-1, *pixels().shape[1:]]),
    ]
    assert list(found.versions) == ["1", "2"]
    config = call("ModelConfig", asked("ModelConfigRequest", name=NAME)).config
    assert (config.name, list(config.output[0].dims)) == (NAME, [-1, len(LABELS)])
    index = call("RepositoryIndex").models
    assert [(row.name, row.version, row.state) for row in index] == [(NAME, "1", "READY"), (NAME, "2", "READY")]


@pytest.mark.parametrize("version", [1, 2])
def test_typed_and_raw(call, version):
    fields = {"id": "a1", "model_version": str(version)}
    for request in (
        infer([encoded()], **fields),
        infer([images()], **fields),
        infer([images(contents=None)], raw_input_contents=[pixels().tobytes()], **fields),
    ):
        answer = call("ModelInfer", request)
        agrees(answer, version)
        assert (answer.model_name, answer.model_version, answer.id) == (NAME, str(version), "a1")


def test_outputs_that_are_asked_for(call):
    request = infer([encoded()])
    request.outputs.add(name="features")
    request.outputs.add(name="probabilities").parameters["classification"].int64_param = 1
    answer = call("ModelInfer", request)
    assert [output.datatype for output in answer.outputs] == ["FP32", "BYTES"]
    found = np.frombuffer(answer.raw_output_contents[0], "<f4").reshape(answer.outputs[0].shape)
    np.testing.assert_allclose(found, features(), atol=1e-5)
    assert LABELS[int(probabilities(2)[0].argmax())].encode() in answer.raw_output_contents[1][:40]


INVALID = {
    "both inputs": (lambda: infer([encoded(), images()]), "expected one input"),
    "no input": (lambda: infer([]), "expected one input"),
    "another datatype": (lambda: infer([images(datatype="FP32")]), "UINT8"),
    "too bright": (lambda: infer([images(contents={"uint_contents": [300] * pixels().size})]), "300"),
    "pixels as another type": (
        lambda: infer([images(contents={"int_contents": pixels().ravel().tolist()})]),
        "expected the contents of 'images' in uint_contents, as datatype UINT8 says; found int_contents; put them into",
    ),
    "files as numbers beside": (
        lambda: infer([encoded(contents={"bytes_contents": PICTURES, "fp32_contents": [1.0], "int_contents": [1]})]),
        "in bytes_contents, as datatype BYTES says; found int_contents, fp32_contents",
    ),
    "raw and typed": (lambda: infer([encoded()], raw_input_contents=[elements(*PICTURES)]), "found both"),
    "raw for one only": (lambda: infer([encoded(contents=None)], raw_input_contents=[b"a", b"b"]), "raw_input"),
    "raw cut off": (lambda: infer([encoded(contents=None)], raw_input_contents=[b"abc"]), "cut off"),
    "no image": (lambda: infer([encoded(shape=[1], contents={"bytes_contents": [b"hello"]})]), "image 0"),
    "no contents": (lambda: infer([encoded(contents=None)]), "expected 5 elements"),
    "huge shape": (lambda: infer([images(shape=[2**62, 8, 8, 3])]), "at most 256"),
    "an id that cannot be stored": (lambda: infer([encoded()], id="a\0"), "expected an id in UTF-8; found 'a\\x00'"),
    "version in words": (lambda: infer([encoded()], model_version="x"), "'x'"),
}


@pytest.mark.parametrize("case", INVALID)
def test_invalid(call, state, case):
    make, words = INVALID[case]
    refused(call, "ModelInfer", make(), "INVALID_ARGUMENT", words)
    assert state.engine.num_images == 0


def test_refused(call, state):
    refused(call, "ModelMetadata", asked("ModelMetadataRequest", name="nothing"), "NOT_FOUND", "nothing")
    refused(call, "ModelMetadata", asked("ModelMetadataRequest", name="a\0"), "NOT_FOUND", "expected a model")
    shared = encoded(parameters={"shared_memory_region": {"string_param": "a"}})
    refused(call, "ModelInfer", infer([shared]), "UNIMPLEMENTED", "shared")
    late = infer([encoded()])
    late.parameters["timeout"].int64_param = 1
    refused(call, "ModelInfer", late, "DEADLINE_EXCEEDED", "deadline")
    load = asked("RepositoryModelLoadRequest", model_name=NAME)
    load.parameters["config"].string_param = "{}"
    refused(call, "RepositoryModelLoad", load, "UNIMPLEMENTED", "config")
    assert state.engine.num_images == 0


def test_overload_says_when_to_come_again(call, state):
    with state.engine._changed:
        state.engine.room.enter("another", 2000, "default")
    error = refused(call, "ModelInfer", infer([encoded()]), "UNAVAILABLE", "expected room")
    assert int(dict(error.trailing_metadata())["grpc-retry-pushback-ms"]) >= 1000
    with state.engine._changed:
        state.engine.room.leave("another", 2000, "default")
    agrees(call("ModelInfer", infer([encoded()])))


def test_a_database_that_is_away_is_no_mistake_of_ours(call, state, monkeypatch):
    def away(*_):
        raise OperationalError("SELECT 1", None, Exception("nothing there"))

    monkeypatch.setattr(state.database.engine, "connect", away)
    monkeypatch.setattr(state.database, "_watcher", None)
    for name, request in (
        ("ModelInfer", infer([encoded()])),
        ("ModelMetadata", asked("ModelMetadataRequest", name=NAME)),
    ):
        refused(call, name, request, "UNAVAILABLE", "expected the database to answer")


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
def test_messages_have_a_limit_also_when_they_are_packed(call, compression):
    agrees(call("ModelInfer", infer([encoded()]), compression=compression))
    large = infer([encoded(shape=[1], contents={"bytes_contents": [bytes(5_000_000)]})])
    with pytest.raises(grpc.RpcError) as raised:
        call("ModelInfer", large, compression=compression)
    assert raised.value.code().name == "RESOURCE_EXHAUSTED"
    agrees(call("ModelInfer", infer([encoded()])))


def test_what_is_broken_off_is_not_computed(call, state):
    with state.engine._changed:
        pending = call.method("ModelInfer").future(infer([encoded()]))
        time.sleep(0.1)
        pending.cancel()
    wait_until(lambda: state.engine.num_images == 0, "an empty engine")
    with state.engine._changed:
        start = time.monotonic()
        with pytest.raises(grpc.RpcError) as raised:
            call("ModelInfer", infer([encoded()]), timeout=0.2)
        assert raised.value.code().name == "DEADLINE_EXCEEDED"
        assert time.monotonic() - start < 5
    wait_until(lambda: state.engine.num_images == 0, "an empty engine")


def test_statistics_load_and_unload(call, state):
    call("RepositoryModelLoad", asked("RepositoryModelLoadRequest", model_name=NAME))
    assert state.engine.pool.stats().num_entries >= 2  # the backbone, for batches and for an image alone, and the head
    call("ModelInfer", infer([encoded()]))
    (row,) = call("ModelStatistics", asked("ModelStatisticsRequest", name=NAME, version="2")).model_stats
    assert (row.name, row.version, row.inference_count) == (NAME, "2", len(PICTURES))
    assert (row.inference_stats.success.count, row.inference_stats.success.ns > 0) == (1, True)
    assert len(call("ModelStatistics").model_stats) == 2
    call("RepositoryModelUnload", asked("RepositoryModelUnloadRequest", model_name=NAME))
    assert state.engine.pool.stats().num_entries == 0


def test_methods_that_are_not_spoken(call, settings):
    with grpc.insecure_channel(f"127.0.0.1:{settings.grpc_port}") as channel:
        method = channel.unary_unary(f"/{proto.SERVICE}/TraceSetting")
        with pytest.raises(grpc.RpcError) as raised:
            method(b"", timeout=10)
    assert raised.value.code().name == "UNIMPLEMENTED"


def test_two_services_do_not_share_a_port(state, settings, tmp_path):
    other = settings.model_copy(update={"home": tmp_path / "other"})
    with pytest.raises(RuntimeError, match="bind"), TestClient(create_app(other)):
        raise AssertionError("it listens")


def test_without_a_port_nothing_listens(light):
    with TestClient(create_app(light), base_url="http://127.0.0.1") as client:
        assert client.get("/v2").status_code == 200
    assert light.grpc_port == 0


def test_the_graph_that_was_asked_for_answers_and_says_so(call, state, tmp_path):
    second_graphs.publish(state, tmp_path, *SECOND, name="double")
    for precision in SECOND:
        request = asked("ModelInferRequest", model_name="double", model_version="1")
        request.inputs.add(**images())
        request.parameters["precision"].string_param = precision
        answer = call("ModelInfer", request)
        assert answer.parameters["precision"].string_param == precision
        found = np.frombuffer(answer.raw_output_contents[0], "<f4").reshape(-1, 3)
        np.testing.assert_allclose(found, second_graphs.scores(1, precision), atol=1e-5)
    request.model_version = "2"
    refused(call, "ModelInfer", request, "NOT_FOUND", "half precision")
    request.parameters["precision"].string_param = "int4"
    refused(call, "ModelInfer", request, "INVALID_ARGUMENT", "fp32 or int8 or fp16")
