"""Keys over gRPC: the same ones as over HTTP, in the metadata that clients can send."""

import threading

import grpc
import pytest

from app.api.oip import proto
from app.api.scopes import GRPC_SCOPES, OPEN
from app.services import keys
from app.settings import Settings
from tests.app.api.callers import bearer, key, keyed
from tests.app.api.oip.test_grpc import Caller, agrees, asked, encoded, infer
from tests.conftest import free_port
from tests.inference import NAME, publish

METHODS = [method.name for method in proto.methods()]
UNARY = [name for name in METHODS if name != "ModelStreamInfer"]
STRANGER = ("authorization", "Bearer graft_00000000_" + "0" * 64)


@pytest.fixture(scope="module")
def service(sqlite_template, tmp_path_factory):
    home = tmp_path_factory.mktemp("grpc")
    (home / "graft.db").write_bytes(sqlite_template.read_bytes())
    settings = Settings(home=home, grpc_port=free_port())
    with keyed(settings) as client:
        state = client.app.state.graft
        publish(state, home / "made")
        options = [("grpc.max_send_message_length", -1)]
        with grpc.insecure_channel(f"127.0.0.1:{settings.grpc_port}", options) as channel:
            yield state, Caller(channel)


def metadata(made):
    return tuple((name.lower(), value) for name, value in bearer(made).items())


def status(call, name, request=None, **options):
    with pytest.raises(grpc.RpcError) as caught:
        call(name, request, **options)
    return caught.value.code().name


def request(name):
    """What a method asks about the model that is there."""
    kind = next(method.input_type.name for method in proto.methods() if method.name == name)
    if name == "ModelInfer":
        return infer([encoded()])
    field = "model_name" if name.startswith("RepositoryModel") else "name"
    return asked(kind, **{field: NAME} if field in proto.message(kind).DESCRIPTOR.fields_by_name else {})


def test_every_method_has_a_scope():
    assert set(METHODS) == GRPC_SCOPES.keys()
    assert {name for name, needed in GRPC_SCOPES.items() if needed == OPEN} == {"ServerLive", "ServerReady"}


@pytest.mark.parametrize("name", UNARY)
def test_each_method_asks_for_a_key_with_a_scope(service, name):
    state, call = service
    needed = GRPC_SCOPES[name]
    if needed == OPEN:
        call(name)
        return
    assert status(call, name, request(name)) == "UNAUTHENTICATED"
    assert status(call, name, request(name), metadata=(STRANGER,)) == "UNAUTHENTICATED"
    for scope in keys.SCOPES:
        sent = {"metadata": metadata(key(state, scope))}
        if scope in needed:
            call(name, request(name), **sent)
        else:
            assert status(call, name, request(name), **sent) == "PERMISSION_DENIED"


def test_another_projects_models_are_as_if_they_were_not(service):
    state, call = service
    ours, theirs = ({"metadata": metadata(key(state, project=name))} for name in ("default", "stranger"))
    agrees(call("ModelInfer", infer([encoded()]), **ours))
    for name in ("ModelInfer", "ModelMetadata", "ModelConfig", "ModelStatistics", "RepositoryModelLoad"):
        assert status(call, name, request(name), **theirs) == "NOT_FOUND"
    assert status(call, "RepositoryModelUnload", request("RepositoryModelUnload"), **theirs) == "NOT_FOUND"
    assert call("ModelReady", request("ModelReady"), **theirs).ready is False
    assert len(call("RepositoryIndex", **ours).models) == 2
    assert len(call("RepositoryIndex", **theirs).models) == 0
    assert len(call("ModelStatistics", **theirs).model_stats) == 0


def test_a_stream_ends_with_its_key(service):
    state, call = service
    made, answered = key(state, "predict"), threading.Event()

    def requests():
        yield infer([encoded()], id="before")
        assert answered.wait(30)
        with state.database.write() as session:
            keys.revoke(session, "default", made.row.id)
        state.keyring.forget(made.row.id)
        yield infer([encoded()], id="after")

    stream = call.method("ModelStreamInfer")(requests(), metadata=metadata(made), timeout=60)
    assert next(stream).error_message == ""
    answered.set()
    assert "revoked" in next(stream).error_message


@pytest.mark.parametrize("name", METHODS)
def test_nothing_is_read_before_the_key_was_looked_at(service, name):
    """A message beyond the limit would end the call with another status once it is read."""
    _, call = service
    (found,) = [method for method in proto.methods() if method.name == name]
    channel = call._channel
    kind = channel.stream_stream if found.client_streaming else channel.unary_unary
    ask, message = kind(f"/{proto.SERVICE}/{name}"), bytes(2**27)
    if GRPC_SCOPES[name] == OPEN:
        assert proto.message(found.output_type.name).FromString(ask(message, timeout=60))
        return
    with pytest.raises(grpc.RpcError) as caught:
        list(ask(iter([message]), timeout=60)) if found.client_streaming else ask(message, timeout=60)
    assert (caught.value.code().name, "API key" in caught.value.details()) == ("UNAUTHENTICATED", True)
