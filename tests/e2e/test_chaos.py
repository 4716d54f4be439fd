"""The short form of `make chaos`: kill -9 at some of the durable writes, on both stacks, and nothing is lost."""

import json
import signal
import subprocess
import sys

import pytest

from app import failpoints
from benchmarks.chaos import code, parts, points, prepare, registry
from benchmarks.chaos.lab import Lab
from benchmarks.chaos.stack import ROOT, running
from tests import processes
from tests.conftest import wait_until

pytestmark = pytest.mark.server

# One in each process and on each side of a commit; the scenario is the cheapest that gets there.
SOME = {
    "local": ["request_tidied", "claim_committed", "bundle_file_stored"],
    "team": ["outcome_commit", "outcome_committed", "result_told"],
}


def test_every_failpoint_has_something_that_reaches_it():
    assert set(points.REACHED_BY) == set(failpoints.POINTS)
    assert set(points.REACHED_BY.values()) <= set(registry.SCENARIOS)


def test_lanes_hold_every_part_once():
    assert sorted(part for lane in parts.lanes([]) for part in lane) == sorted(parts.PARTS)
    assert parts.lanes(["disk", "slow_kills", "failpoints", "kills"]) == [
        ("failpoints", "slow_kills"),
        ("kills", "disk"),
    ]
    assert parts.lanes(["disk"]) == [("disk",)]


@pytest.mark.parametrize("kind", SOME)
def test_a_kill_at_a_durable_write_loses_nothing(kind, tmp_path):
    folder = prepare.backbones(tmp_path)
    with running(kind, folder) as service:
        rows = list(points.run(Lab(service), SOME[kind]))
    assert [row for row in rows if row["wrong"]] == []
    assert [row["what"] for row in rows] == SOME[kind]


def chaos(part, results, *arguments):
    """`make chaos P=PART` on one stack, as a shell starts it in the background: SIGINT is ignored."""
    command = [sys.executable, "-m", "benchmarks.chaos", part, "--stack", "local", "--results", results, *arguments]
    ignoring = ["sh", "-c", "trap '' INT; exec \"$@\"", "sh"]
    return subprocess.Popen([*ignoring, *command], cwd=ROOT, stderr=subprocess.PIPE, text=True)


def test_one_signal_ends_it_and_what_was_measured_stands(tmp_path):
    results, work = tmp_path / "chaos.json", tmp_path / "work"
    work.mkdir()
    with chaos("failpoints", results, "--folder", work) as process:
        # The first line tells of what cannot happen on this stack; then the service starts.
        assert next(iter(process.stderr)).startswith("ok")
        wait_until(lambda: any(map(processes.members, work.glob("*/local-*/home"))), "a process of the service", 120)
        (home,) = work.glob("*/local-*/home")
        process.send_signal(signal.SIGINT)
        assert "told to end" in process.stderr.read()
    assert process.returncode == 130
    assert processes.members(home) == []
    assert list(work.iterdir()) == []
    found = json.loads(results.read_text())["parts"]["failpoints"]["local"]
    assert (found["complete"], found["num_wrong"], len(found["cannot_happen"])) == (False, 0, 2)


def test_what_other_code_met_is_told_apart():
    old = {"what": ["a", "b"], "wrong": [], "num_faults": 2, "measured_at": {"0ld": {"commit": "c", "num_faults": 1}}}
    found = parts.document(old, [{"what": "tune: api", "wrong": []}, {"what": "x", "wrong": [], "missed": True}])
    assert found["measured_at"] == old["measured_at"] | {code.digest(): {"commit": code.commit(), "num_faults": 1}}
    assert (found["num_faults"], parts.num_of_other_code(found)) == (3, 2)


def test_a_part_of_other_code_is_begun_anew(tmp_path):
    today = parts.document({}, [{"what": "x", "wrong": [], "losses": 2}]) | {"complete": True}
    other = {**today, "measured_at": {"0ld": {"commit": "c", "num_faults": 1}}}
    found = {"parts": {"disk": {"local": today, "team": other}}}
    assert [parts.so_far(found, "disk", stack) for stack in ("local", "team")] == [today, {}]
    assert (today["num_faults"], today["num_losses"]) == (1, 2)
    results = tmp_path / "chaos.json"
    results.write_text(json.dumps(found))
    with chaos("disk", results, "--no-again") as process:
        assert "disk on local: complete with this code" in process.stderr.read()
    assert process.returncode == 0
    # Without the word it is measured again: there is nothing else to do.
    with chaos("disk", results, "--minutes", "0") as process:
        assert "complete with this code" not in process.stderr.read()
    assert process.returncode == 0
