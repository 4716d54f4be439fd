"""The short form of `make chaos`: kill -9 at some of the durable writes, on both stacks, and nothing is lost."""

import pytest

from app import failpoints
from benchmarks.chaos import points, prepare, scenarios
from benchmarks.chaos.lab import Lab
from benchmarks.chaos.stack import running

pytestmark = pytest.mark.server

# One in each process and on each side of a commit; the scenario is the cheapest that gets there.
SOME = {
    "local": ["request_tidied", "claim_committed", "bundle_file_stored"],
    "team": ["outcome_commit", "outcome_committed", "result_told"],
}


def test_every_failpoint_has_something_that_reaches_it():
    assert set(points.REACHED_BY) == set(failpoints.POINTS)
    assert set(points.REACHED_BY.values()) <= set(scenarios.SCENARIOS)


@pytest.mark.parametrize("kind", SOME)
def test_a_kill_at_a_durable_write_loses_nothing(kind, tmp_path):
    folder = prepare.backbones(tmp_path)
    with running(kind, folder) as service:
        rows = list(points.run(Lab(service), SOME[kind]))
    assert [row for row in rows if row["wrong"]] == []
    assert [row["what"] for row in rows] == SOME[kind]
