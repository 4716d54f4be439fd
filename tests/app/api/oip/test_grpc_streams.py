"""Streams over gRPC: their requests are computed side by side, and answered in order."""

import gc
import json
import threading

import grpc
import pytest
from starlette.testclient import TestClient

from app.api.oip import grpc_server, proto
from app.main import create_app
from app.services import logs
from tests import factories
from tests.app.api.oip.test_grpc import Caller, agrees, asked, encoded, images, infer
from tests.conftest import free_port, wait_until
from tests.inference import NAME, PICTURES, publish, publish_heavy


@pytest.fixture
def serving(light, tmp_path):
    """State of a service in which few images have room, and a caller of it."""
    settings = light.model_copy(update={"grpc_port": free_port(), "max_queued_images": 2 * len(PICTURES)})
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as client:
        publish(client.app.state.graft, tmp_path / "made")
        with grpc.insecure_channel(f"127.0.0.1:{settings.grpc_port}") as channel:
            yield client.app.state.graft, Caller(channel)


def streamed(call, requests, **options):
    return call.method("ModelStreamInfer")(iter(requests), **{"timeout": 120, **options})


def test_a_stream_answers_in_order_and_outlives_a_bad_request(serving):
    _, call = serving
    requests = [infer([encoded()], id="a"), infer([], id="b"), infer([images()], id="c")]
    answers = list(streamed(call, requests))
    assert [answer.infer_response.id for answer in answers] == ["a", "b", "c"]
    assert "expected one input" in answers[1].error_message
    for answer in (answers[0], answers[2]):
        assert not answer.error_message
        agrees(answer.infer_response)


def test_requests_of_a_stream_share_batches(serving, tmp_path):
    """While one batch runs the next requests are read: one after the other, each would be a batch of its own."""
    state, call = serving
    publish_heavy(state, tmp_path / "heavy", "heavy", num_layers=120)
    one = encoded(shape=[1], contents={"bytes_contents": PICTURES[:1]})
    requests = [infer([one], model_name="heavy", id=str(number)) for number in range(60)]
    answers = list(streamed(call, requests))
    assert [(answer.infer_response.id, answer.error_message) for answer in answers] == [
        (request.id, "") for request in requests
    ]
    (found,) = call("ModelStatistics", asked("ModelStatisticsRequest", name="heavy")).model_stats
    assert found.inference_count == 60
    assert found.execution_count < 50


def test_a_stream_does_not_shut_itself_out(serving):
    state, call = serving
    answers = list(streamed(call, [infer([encoded()])] * 40))
    assert [answer.error_message for answer in answers] == [""] * 40
    agrees(answers[-1].infer_response)
    room, number = state.engine.room, 2 * len(PICTURES)
    room.enter("another", number, "default")
    (refusal,) = streamed(call, [infer([encoded()], id="a")])
    room.leave("another", number, "default")
    assert "expected room" in refusal.error_message
    # Once, however often it was looked at.
    assert state.statistics.total().refused == {"default": {NAME: {"overloaded": 1}}}


def test_what_is_left_of_a_stream_goes_with_its_client(serving):
    state, call = serving
    stream = streamed(call, [infer([encoded()])] * 40)
    agrees(next(stream).infer_response)
    stream.cancel()
    wait_until(lambda: state.engine.is_idle and not state.held.num_bytes, "nothing left of it")


def test_requests_that_were_computed_are_let_go_before_anybody_reads_their_answers(light, tmp_path):
    """Those that were refused too. The answers are larger than what is sent ahead of a reader."""
    settings = light.model_copy(update={"grpc_port": free_port()})
    pixels = images(shape=[200, 8, 8, 3], contents={"uint_contents": [0] * 200 * 8 * 8 * 3})
    whole = infer([pixels], id="unread")
    whole.outputs.add(name="probabilities").parameters["classification"].int64_param = 100
    # As bytes, so that every such message in this process is the service's.
    sent = [whole.SerializeToString(), infer([pixels, pixels], id="unread").SerializeToString()] * 10
    del whole
    labels = [f"{number} {'x' * 100}" for number in range(100)]
    with (
        TestClient(create_app(settings)) as client,
        grpc.insecure_channel(f"127.0.0.1:{settings.grpc_port}") as channel,
    ):
        state, over = client.app.state.graft, threading.Event()
        with state.database.write() as session:
            of = factories.model(session, NAME, 0)
            factories.published(session, state.storage, tmp_path / "made", of, 1, labels=labels)

        def asked():
            yield from sent
            over.wait(60)

        def is_computed():
            counters = state.statistics.total().counters.values()
            return sum(one.inference_count for one in counters) == 10 * 200 and not state.held.num_bytes

        stream = channel.stream_stream(f"/{proto.SERVICE}/ModelStreamInfer")(asked(), timeout=120)
        try:
            wait_until(is_computed, "all images")
            wait_until(lambda: not in_memory("unread"), "no request in memory", seconds=5)
        finally:
            over.set()
        assert len(list(stream)) == 20


def in_memory(name):
    """Requests with that id in this process, those included that only a collection would find."""
    kind = proto.message("ModelInferRequest")
    return sum(type(one) is kind and one.id == name for one in gc.get_objects())


def test_a_request_of_a_stream_has_an_id_where_it_is_computed(serving):
    state, call = serving
    with state.database.write() as session:
        logs.keep(session, factories.PROJECT, NAME, 1.0, 2, images=False)
    assert not any(answer.error_message for answer in streamed(call, [infer([encoded()])] * 2))
    state.observation.logbook.flush()
    rows = [json.loads(line) for line in logs.lines(state.storage, [*state.storage.list("predictions")])]
    assert len(rows) == 2 * len(PICTURES)
    ids = {row["request_id"] for row in rows}
    assert len(ids) == 2
    assert all(one and one.startswith("req_") for one in ids)


def test_calls_at_once_have_a_bound(monkeypatch, light):
    monkeypatch.setattr(grpc_server, "MAX_CALLS", 2)
    settings = light.model_copy(update={"grpc_port": free_port()})
    with TestClient(create_app(settings)), grpc.insecure_channel(f"127.0.0.1:{settings.grpc_port}") as channel:
        call, over = Caller(channel), threading.Event()

        def waits():
            yield infer([])
            over.wait(60)

        streams = [call.method("ModelStreamInfer")(waits(), timeout=60) for _ in range(2)]
        assert all(next(stream).error_message for stream in streams)
        with pytest.raises(grpc.RpcError) as caught:
            call("ServerLive")
        assert caught.value.code().name == "RESOURCE_EXHAUSTED"
        over.set()
        assert [list(stream) for stream in streams] == [[], []]
        assert call("ServerLive").live
