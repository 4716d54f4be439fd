"""Lines of the log, for people and for programs, with what they are about."""

import json
import logging
import subprocess
import sys

import pytest

from app import log_lines

EVERYTHING = """
import logging, threading, warnings
from app import log_lines
log_lines.setup("INFO", {form!r})
log = logging.getLogger("there")
with log_lines.bound(request_id="req_1", project="p", job_id="job_1", attempt=2):
    log.info("a %s\\nof two lines", "word")
    try:
        1 / 0
    except ZeroDivisionError:
        log.exception("it failed")
    threading.Thread(target=log_lines.carried(lambda: log.info("below"))).start()
warnings.warn("old")
logging.getLogger("httpx").info("a request of mine")
threading.Thread(target=lambda: 1 / 0, name="t").start()
"""


def said(form):
    done = subprocess.run(
        [sys.executable, "-c", EVERYTHING.format(form=form)], capture_output=True, text=True, check=True
    )
    assert done.stdout == ""
    return done.stderr


def test_every_line_is_an_object_that_says_what_it_is_about():
    lines = [json.loads(line) for line in said("json").splitlines()]
    assert [line["message"].split("\n")[0].partition(":")[0] for line in lines if line["logger"] == "there"] == [
        "a word", "it failed", "below"
    ]  # fmt: skip
    assert all(
        (line["request_id"], line["project"], line["job_id"], line["attempt"]) == ("req_1", "p", "job_1", 2)
        for line in lines
        if line["logger"] == "there"
    )
    assert "ZeroDivisionError" in next(line["trace"] for line in lines if line["message"] == "it failed")
    others = [line for line in lines if line["logger"] != "there"]
    assert {line["logger"] for line in others} == {"py.warnings", "app.log_lines"}
    assert all(line["job_id"] is line["trace_id"] is None for line in others)
    assert "ZeroDivisionError" in others[-1]["trace"]


def test_people_read_the_ids_at_the_end():
    lines = said("text").splitlines()
    assert lines[0].endswith("INFO there: a word")
    assert lines[1] == "of two lines [request_id=req_1 project=p job_id=job_1 attempt=2]"


def test_what_is_bound_ends_with_the_block():
    with log_lines.bound(project="a"):
        with log_lines.bound(job_id="b"):
            assert log_lines.ids() == log_lines.Ids(project="a", job_id="b")
        assert log_lines.ids() == log_lines.Ids(project="a")
    assert log_lines.ids() == log_lines.Ids()


@pytest.fixture
def lines():
    """What this process writes, as JSON."""
    found = []

    class Keeps(logging.Handler):
        def emit(self, record):
            found.append(json.loads(log_lines._Json().format(record)))

    handler = Keeps()
    logging.getLogger().addHandler(handler)
    yield found
    logging.getLogger().removeHandler(handler)


def test_requests_have_an_id_in_answer_and_lines(light_client, lines):
    for good in ("mine-1", "x" * 200):
        assert light_client.get("/livez", headers={"X-Request-Id": good}).headers["x-request-id"] == good
    for bad in ("a b", "x" * 201, "\u00e4".encode("latin-1"), ""):
        found = light_client.get("/livez", headers={"X-Request-Id": bad}).headers["x-request-id"]
        assert found.startswith("req_")
    refused = light_client.get("/api/v1/jobs/job_0/events", headers={"X-Request-Id": "mine-2"})
    assert (refused.status_code, refused.headers["x-request-id"]) == (404, "mine-2")


def test_a_database_that_is_away_is_said_with_the_request(light_client, light, lines):
    (light.home_path / "graft.db").unlink()
    light_client.app.state.graft.database.engine.dispose()
    answer = light_client.get("/api/v1/jobs/job_1", headers={"X-Request-Id": "mine-3"})
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert answer.headers["retry-after"] == "5"
    (line,) = [line for line in lines if line["logger"] == "app.api.problems"]
    assert (line["request_id"], line["project"], line["job_id"], line["level"]) == (
        "mine-3", "default", "job_1", "WARNING"
    )  # fmt: skip
