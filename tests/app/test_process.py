"""The manager of `graft up`, with commands that are easy to watch."""

import os
import signal
import subprocess
import sys

import psutil
import pytest

from app import process
from tests.conftest import wait_until
from tests.processes import ROOT, alive, wait_for_end

MANAGER = """
import sys
from app import process
process.RESTART_SECONDS = 0.05
process.STOP_SECONDS = 1.0
one, two = (process.Child([sys.executable, "-c", code]) for code in sys.argv[1:])
sys.exit(process.supervise({"one": one, "two": two}, "hello"))
"""
PATIENT = "import time; time.sleep(600)"
# Ends only when its manager does.
LINKED = "import time; from app import process; process.end_with_parent(); time.sleep(600)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); " + PATIENT


@pytest.fixture
def manage():
    started = []

    def start(one=PATIENT, two=PATIENT):
        command, pipe = [sys.executable, "-c", MANAGER, one, two], subprocess.PIPE
        manager = subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True)
        started.append(manager)
        assert manager.stdout.readline() == "hello\n"
        return manager, psutil.Process(manager.pid).children()

    yield start
    for manager in started:
        children = psutil.Process(manager.pid).children() if manager.poll() is None else []
        manager.kill()
        for child in children:
            child.kill()
        manager.communicate()


@pytest.mark.server
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_stops_all(manage, number):
    manager, children = manage()
    assert len(children) == 2
    manager.send_signal(number)
    assert manager.wait(30) == 0
    assert not any(map(alive, children))


@pytest.mark.server
def test_child_that_ends_is_started_again(manage):
    manager, children = manage()
    children[0].kill()
    assert "one ended with status -9; starting it again" in manager.stderr.readline()
    wait_until(lambda: len(psutil.Process(manager.pid).children()) == 2, "two children")
    fresh = psutil.Process(manager.pid).children()
    assert children[1] in fresh
    assert children[0] not in fresh


@pytest.mark.server
def test_child_that_does_not_listen_is_killed(manage):
    manager, children = manage(one=STUBBORN)
    assert manager.stdout.readline() == "deaf\n"
    manager.terminate()
    assert manager.wait(30) == 0
    assert not any(map(alive, children))


@pytest.mark.server
def test_children_end_with_a_manager_that_was_killed(manage):
    manager, children = manage(one=LINKED, two=LINKED)
    manager.kill()
    wait_for_end(children)


def test_gpu_is_asked_for_only_where_it_is_wanted(monkeypatch, tmp_path):
    tool = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert process.gpu_name("auto") is None
    for script, found in (("echo NVIDIA H200", "NVIDIA H200"), ("exit 9", None), ("", None)):
        tool.write_text(f"#!/bin/sh\n{script}\n")
        tool.chmod(0o755)
        assert process.gpu_name("auto") == process.gpu_name("cuda") == found
    tool.write_text("#!/bin/sh\necho one; echo two\n")
    assert process.gpu_name("auto") == "one"
    assert process.gpu_name("cpu") is None
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert process.gpu_name("auto") is None


def test_process_without_a_manager_goes_on(monkeypatch):
    monkeypatch.delenv(process.PARENT_PIPE, raising=False)
    process.end_with_parent()
    assert os.getpid()


@pytest.mark.server
def test_child_that_never_gets_going_ends_all(manage):
    manager, children = manage(one="raise SystemExit(7)")
    _, found = manager.communicate(timeout=30)
    assert manager.returncode == 1
    assert found.count("starting it again") == 2
    assert "one to run; found it ended 3 times in a row" in found
    assert "status 7" in found
    wait_for_end(children)


def test_it_gives_way_to_others():
    code = "import os; from app import process; process.give_way(3); print(os.nice(0))"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(found.stdout) == min(os.nice(0) + 3, 19)
