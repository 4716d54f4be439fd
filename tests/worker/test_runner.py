"""The runner as its supervisor sees it: one document in, JSON lines out, and no trace when it is over."""

import errno
import json
import os
import subprocess
import sys

import psutil
import pytest

from app.settings import Settings
from app.storage import FolderStorage
from tests import factories, processes
from tests.conftest import SMALL_DISK_BYTES, wait_until
from tests.factories import files_below
from worker.attempt.progress import ABANDONED
from worker.runner import unforeseen

pytestmark = pytest.mark.server

# What `worker.supervision.runner_process` does in a process of its own: the document, a pipe to it, a pipe from it.
ATTEMPT = """
import sys
import time
from multiprocessing.connection import Connection
from worker import runner
runner.main(sys.stdin.readline(), time.monotonic(), Connection(0), Connection(1))
"""


class Runner:
    """One attempt at a job in a process of its own."""

    def __init__(self, home, tmp_path, **settings):
        self.home, self.folder = home, tmp_path
        self.storage = FolderStorage(home / "storage")
        self.settings = {"prepared": tmp_path / "prepared", **settings}

    def document(self, kind="ingest", archive=None, **changes):
        key = None
        if archive is not None:
            key = "incoming/default/ds_1"
            (self.folder / "archive").write_bytes(archive)
            self.storage.put(key, self.folder / "archive")
        dataset = {
            "id": "ds_1", "prefix": "datasets/default/ds_1", "task": "classification", "digest": "d" * 64, "seed": 0,
            "classes": [], "splits": {},
        }  # fmt: skip
        inputs = {"archive": key, "filename": "a.zip", "format": "auto", "task": None, "remove": [], "relabel": {}}
        return {
            "id": "job_1", "project": "default", "attempt": 2, "kind": kind, "recipe": {"method": "linear_probe"},
            "seed": 0, "report_mode": "fast", "model_name": "m", "backbone": factories.BACKBONE, "user_backbones": [],
            "dataset": dataset, "inputs": inputs, **changes,
        }  # fmt: skip

    def start(self):
        return subprocess.Popen(
            [sys.executable, "-c", ATTEMPT], cwd=processes.ROOT, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=processes.environment(self.home, **self.settings),
        )  # fmt: skip

    def run(self, document):
        """(exit status, messages, log)."""
        process = self.start()
        process.stdin.write(json.dumps(document) + "\n")
        process.stdin.flush()
        messages = [json.loads(line) for line in process.stdout]
        log = process.stderr.read()
        status = process.wait(60)
        for pipe in (process.stdin, process.stdout, process.stderr):
            pipe.close()
        assert files_below(self.home / "scratch") == []
        assert list((self.home / "scratch").iterdir()) == []
        return status, messages, log


@pytest.fixture
def runner(home, tmp_path):
    factories.prepared(tmp_path / "prepared")
    return Runner(home, tmp_path)


def last(messages, kind):
    """The last message, which is the only one of its kind."""
    assert [message.keys() & {"result", "failure"} for message in messages].count({kind}) == 1
    return messages[-1][kind]


def test_ingestion_and_transfer(runner):
    status, messages, log = runner.run(runner.document(archive=factories.pack(factories.pictures(8))))
    result = last(messages, "result")
    assert (status, result["failure"], result["num_samples"]) == (0, None, 24), log
    assert all(0 <= message["progress"]["fraction"] <= 1 for message in messages if "progress" in message)
    dataset = {**runner.document()["dataset"], "classes": result["classes"], "splits": result["splits"]}
    status, messages, log = runner.run(runner.document("transfer", dataset=dataset))
    result = last(messages, "result")
    assert status == 0, log
    assert result.keys() == {"prefix", "spec", "metrics", "report"}
    # This attempt's own place.
    assert result["prefix"] == "bundles/default/job_1/attempt-2"
    assert json.loads(runner.storage.fetch(f"{result['prefix']}/spec.json").read_text()) == result["spec"]


def test_refused_data_is_a_result_with_a_reason(runner, home):
    pictures = factories.pictures(4, {"red": factories.COLOURS["red"]})
    status, messages, _ = runner.run(runner.document(archive=factories.pack(pictures)))
    result = last(messages, "result")
    assert status == 0
    assert result["failure"]["code"]
    assert result["problems"]
    assert files_below(home / "storage" / "datasets") == []


def test_weights_that_nobody_has(runner):
    runner.run(runner.document(archive=factories.pack(factories.pictures(8))))
    status, messages, _ = runner.run(runner.document("transfer", backbone="torchvision/resnet18"))
    failure = last(messages, "failure")
    assert (status, failure["code"]) == (0, "weights_unavailable")
    assert "GRAFT_OFFLINE" in failure["message"]


def test_deleted_dataset(runner):
    _, messages, _ = runner.run(runner.document("transfer", dataset=None))
    assert last(messages, "failure")["code"] == "dataset_invalid"


def test_mistake_of_ours_goes_to_the_log_and_not_to_the_owner(runner):
    status, messages, log = runner.run(runner.document("ingest", dataset=None))
    failure = last(messages, "failure")
    assert (status, failure["code"]) == (0, "internal")
    assert "AssertionError" in failure["message"]
    assert "runner.py" not in failure["message"]
    assert "Traceback" in log


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MemoryError(), "out_of_memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "out_of_memory"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"), "out_of_memory"),
        (RuntimeError("std::bad_alloc"), "out_of_memory"),
        (ImportError("libtorch.so: failed to map segment from shared object"), "out_of_memory"),
        (RuntimeError("shapes do not match"), "internal"),
        (OSError(errno.ENOENT, "No such file"), "internal"),
    ],
)
def test_memory_that_ends_is_told_from_mistakes(error, code):
    assert unforeseen(error)["failure"]["code"] == code


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_told_whoever_writes(error):
    failure = unforeseen(error)["failure"]
    assert failure["code"] == "internal"
    assert "the disk is full" in failure["message"]


def test_document_that_is_none(runner, home):
    process = runner.start()
    out, log = process.communicate("{}\n", timeout=60)
    assert process.returncode != 0
    assert out == ""
    assert "JobDocument" in log
    assert files_below(home) == []


def test_it_does_not_outlive_its_supervisor(runner):
    document = runner.document(archive=factories.pack(factories.pictures(8)))
    process = runner.start()
    # The pipe closes with the document: whoever sent it is gone.
    out, _ = process.communicate(json.dumps(document) + "\n", timeout=60)
    assert process.returncode == ABANDONED
    assert "result" not in out


def test_it_gives_way_to_whoever_answers_requests(runner):
    process = runner.start()
    process.stdin.write(json.dumps(runner.document(archive=factories.pack(factories.pictures(8)))) + "\n")
    process.stdin.flush()
    wait_until(lambda: psutil.Process(process.pid).nice() == min(os.nice(0) + Settings().runner_nice, 19), "its turn")
    process.communicate(timeout=60)


def test_full_disk_is_said(tmp_path, request):
    files = {f"{name}/{number}.png": factories.png(seed=number, size=512) for name in "ab" for number in range(9)}
    archive = factories.pack(files)
    assert len(archive) > SMALL_DISK_BYTES
    runner = Runner(tmp_path, tmp_path, storage_url=f"file://{tmp_path}/storage")
    document = runner.document(archive=archive)
    runner.home = request.getfixturevalue("small_disk")
    status, messages, log = runner.run(document)
    failure = last(messages, "failure")
    assert (status, failure["code"]) == (0, "internal"), log
    assert "disk is full" in failure["message"]
    assert list(runner.storage.list("datasets")) == []
