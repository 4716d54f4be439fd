"""Bytes over gRPC that are no message: refused in our words, and no trace of ours is in the log."""

import grpc
import pytest
from starlette.testclient import TestClient

from app.api.oip import proto
from app.main import create_app
from app.settings import Settings
from tests.app.api.oip.test_grpc import agrees, encoded, infer
from tests.conftest import free_port
from tests.inference import publish

GARBAGE = b"\xff\xff\xff"
# Those that anybody may call look at no message.
READING = ["ModelInfer", "ModelMetadata", "RepositoryIndex", "RepositoryModelLoad"]


@pytest.fixture(scope="module")
def channel(sqlite_template, tmp_path_factory):
    """To a service with a model."""
    home = tmp_path_factory.mktemp("home")
    (home / "graft.db").write_bytes(sqlite_template.read_bytes())
    settings = Settings(home=home, grpc_port=free_port())
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as client:
        publish(client.app.state.graft, home / "made")
        with grpc.insecure_channel(f"127.0.0.1:{settings.grpc_port}") as channel:
            yield channel


def logged(caplog):
    return [one for one in caplog.records if one.exc_info or one.levelname == "ERROR"]


@pytest.mark.parametrize("method", READING)
def test_what_is_no_message_is_refused(channel, caplog, method):
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(f"/{proto.SERVICE}/{method}")(GARBAGE, timeout=60)
    assert caught.value.code().name == "INVALID_ARGUMENT"
    (kind,) = [found.input_type.name for found in proto.methods() if found.name == method]
    assert caught.value.details().startswith(f"expected a {kind} of the protocol's inference.proto; found 3 bytes")
    assert logged(caplog) == []


def test_a_stream_outlives_what_is_no_message(channel, caplog):
    one, other = (infer([encoded()], id=name).SerializeToString() for name in ("a", "c"))
    stream = channel.stream_stream(f"/{proto.SERVICE}/ModelStreamInfer")(iter([one, GARBAGE, other]), timeout=60)
    answers = [proto.message("ModelStreamInferResponse").FromString(answer) for answer in stream]
    assert [answer.infer_response.id for answer in answers] == ["a", "", "c"]
    assert answers[1].error_message.startswith("expected a ModelInferRequest of the protocol's inference.proto; found")
    agrees(answers[2].infer_response)
    assert logged(caplog) == []
