"""One trace, from the request of a client to the stages of the runner."""

import pytest

from tests import collectors, factories
from tests.conftest import wait_until

pytestmark = pytest.mark.server

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
STAGES = ["load", "features", "train", "evaluate", "assemble", "publish"]


def test_one_trace_from_the_request_to_the_stages_of_the_runner(up, tmp_path):
    with collectors.collecting() as collector:
        service = up(otlp_endpoint=collector.url)
        archive = tmp_path / "colours.zip"
        archive.write_bytes(factories.pack(factories.pictures(6)))
        dataset = service.client.wait_dataset(service.client.upload_dataset(archive, "colours")["id"])
        wish = {
            "dataset": dataset["id"], "backbone": factories.BACKBONE, "model": "m", "recipe": {"method": "linear_probe"}
        }  # fmt: skip
        answer = service.request("POST", "/api/v1/jobs", json=wish, headers={"traceparent": f"00-{TRACE}-{CALLER}-01"})
        job = service.client.wait_job(answer.json()["id"])
        assert job["state"] == "succeeded", job["failure"]
        # The request, the attempt, its claim, its stages and its conclusion; two processes send them.
        wait_until(lambda: len(collector.of(TRACE)) >= 4 + len(STAGES), "all spans of the trace")
    request, attempt, *below = collector.of(TRACE)
    assert (request.name, request.parent, request.service) == ("POST /api/v1/jobs", CALLER, "graft-api")
    assert request.attributes["http.response.status_code"] == 202
    assert (attempt.name, attempt.parent, attempt.service) == ("attempt", request.id, "graft-worker")
    told = {name: attempt.attributes[f"graft.{name}"] for name in ("job", "kind", "attempt", "outcome")}
    assert told == {"job": job["id"], "kind": "transfer", "attempt": 1, "outcome": "succeeded"}
    assert [span.name for span in below] == ["claim", *STAGES, "conclude"]
    assert {span.parent for span in below} == {attempt.id}
    assert all(attempt.begin <= span.begin <= span.end <= attempt.end for span in below)
    assert len({span.attributes["process.pid"] for span in below[1:-1]}) == 1
    assert not any(span.failed for span in collector.of(TRACE))
    # The upload began a trace of its own, and who only asks whether all is well none.
    names = {span.name for span in collector.spans if span.trace != TRACE}
    assert {"POST /api/v1/datasets", "attempt", "claim", "conclude"} <= names
    assert not any("readyz" in str(span.attributes.get("url.path")) for span in collector.spans)
    lines = [line for line in service.log.read_text().splitlines() if f"trace_id={TRACE}" in line]
    assert any(f"job {job['id']} attempt 1 started" in line for line in lines)
