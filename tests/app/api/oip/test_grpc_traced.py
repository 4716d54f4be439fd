"""Calls over gRPC in the trace of whoever makes them, sent to a real collector."""

import grpc
import pytest
from starlette.testclient import TestClient

from app.api.oip import proto
from app.main import create_app
from tests import collectors
from tests.app.api.oip.test_grpc import Caller, asked
from tests.conftest import free_port

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
METADATA = (("traceparent", f"00-{TRACE}-{CALLER}-01"),)


def test_a_call_goes_on_from_the_clients_trace(light):
    with collectors.collecting() as collector:
        settings = light.model_copy(update={"grpc_port": free_port(), "otlp_endpoint": collector.url})
        # Its end sends what is left.
        with (
            TestClient(create_app(settings), base_url="http://127.0.0.1"),
            grpc.insecure_channel(f"127.0.0.1:{settings.grpc_port}") as channel,
        ):
            call = Caller(channel)
            call("ServerMetadata", metadata=METADATA)
            call("ServerLive", metadata=METADATA)
            with pytest.raises(grpc.RpcError, match="missing"):
                call("ModelMetadata", asked("ModelMetadataRequest", name="missing"), metadata=METADATA)
    good, refused = collector.of(TRACE)
    assert [one.name.rpartition("/")[2] for one in (good, refused)] == ["ServerMetadata", "ModelMetadata"]
    assert {one.name.rpartition("/")[0] for one in (good, refused)} == {proto.SERVICE}
    assert (good.parent, good.service, good.failed) == (CALLER, "graft-api", False)
    assert "rpc.response.status_code" not in good.attributes
    assert (refused.attributes["rpc.response.status_code"], refused.failed) == ("NOT_FOUND", False)
    assert refused.attributes["graft.project"] == "default"
