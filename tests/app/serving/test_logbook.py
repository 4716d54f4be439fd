"""The log's queue: bounded, never in the way of whoever answers, and written in whole files."""

import json
import threading
from concurrent.futures import Future
from datetime import UTC, datetime

import numpy as np
import pyarrow.parquet as pq
import pytest

from app.errors import BadRequest
from app.services import logs
from app.serving import logbook
from app.serving.call import Result, Timing
from app.serving.log_records import Asked, Policy
from app.serving.logbook import Logbook
from app.storage import FolderStorage, open_storage
from tests.conftest import wait_until

POLICY = Policy("default", "mdl_1", "tiny", 1.0, images=False)
LABELS = ("cat", "dog", "owl")


class Ledger:
    """Of some models with room for so many bytes; what the database says is tested with its limits."""

    def __init__(self, wanted, room):
        self._wanted, self.room = wanted, room

    def wanted(self, model_ids):
        return self._wanted & set(model_ids)

    def reserve(self, _key, size_bytes):
        fits = size_bytes <= self.room
        self.room -= size_bytes * fits
        return fits

    def keep(self, _key, _model_id, _size_bytes):
        """Nothing to do."""

    def give_back(self, _key):
        """Likewise."""


@pytest.fixture
def started(storage, tmp_path):
    books = []

    def start(into=storage, wanted=frozenset({"mdl_1", "mdl_2"}), room=2**30):
        counts = {}

        def count(outcome, number):
            counts[outcome] = counts.get(outcome, 0) + number

        books.append(Logbook(into, tmp_path / "scratch", Ledger(wanted, room), count))
        return books[-1], counts

    yield start
    for book in books:
        book.close()


def answered(book, number, policy=POLICY, size_bytes=10, images=None):
    images = images if images is not None else [bytes([index % 256]) * size_bytes for index in range(number)]
    asked = Asked(images, 3, LABELS, "production", None, None, "r-1")
    future = Future()
    book.watch(policy, asked, future)
    rows = np.tile(np.array([[0.125, 0.625, 0.25]], np.float32), (number, 1))
    future.set_result(Result(rows, np.zeros((number, 4), np.float32), Timing()))


def written(storage, model_id="mdl_1"):
    keys = list(storage.list(f"predictions/default/{model_id}"))
    return keys, [row for key in keys for row in pq.read_table(storage.fetch(key)).to_pylist()]


def test_one_file_for_each_model_and_flush(started, storage, tmp_path):
    book, counts = started()
    answered(book, 2)
    answered(book, 1, Policy("default", "mdl_2", "other", 1.0, images=True))
    book.flush()
    answered(book, 1)
    book.flush()
    keys, rows = written(storage)
    assert len(keys) == 2
    assert {key.split("/")[3] for key in keys} <= {f"{datetime.now(UTC):%Y-%m-%d}", rows[0]["at"].date().isoformat()}
    assert sorted(row["index"] for row in rows) == [0, 0, 1]
    assert len({row["id"] for row in rows}) == 3
    assert (rows[0]["model"], rows[0]["version"]) == ("tiny", 3)
    assert (rows[0]["alias"], rows[0]["request_id"]) == ("production", "r-1")
    assert (rows[0]["predicted"], rows[0]["score"]) == ("dog", 0.625)
    assert [one["label"] for one in rows[0]["scores"]] == ["dog", "owl", "cat"]
    assert all(row["image"] is None for row in rows)
    (other,) = written(storage, "mdl_2")[1]
    assert other["image"] == {"bytes": bytes(10), "path": other["sha256"]}
    assert counts == {"written": 4}
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_project_that_may_store_no_more_gets_no_files(started, storage):
    book, counts = started(room=100)
    answered(book, 3)
    book.flush()
    assert written(storage) == ([], [])
    assert counts == {"refused": 3}


def test_the_graph_that_answered_and_files_from_before_it_was_told(started, storage, tmp_path):
    book, _ = started()
    future = Future()
    book.watch(POLICY, Asked([b"x"], 3, LABELS, None, None, None, None, "int8"), future)
    future.set_result(Result(np.full((1, 3), 1 / 3, np.float32), np.zeros((1, 4), np.float32), Timing()))
    book.flush()
    (key,), (row,) = written(storage)
    assert row["precision"] == "int8"
    pq.write_table(pq.read_table(storage.fetch(key)).drop_columns(["precision"]), tmp_path / "old")
    storage.put("predictions/default/mdl_1/old.parquet", tmp_path / "old")
    keys = ["predictions/default/mdl_1/old.parquet", key]
    assert [json.loads(line)["precision"] for line in logs.lines(storage, keys)] == [None, "int8"]
    (tmp_path / "both").write_bytes(b"".join(logs.parquet(storage, keys)))
    assert pq.read_table(tmp_path / "both")["precision"].to_pylist() == [None, "int8"]


def test_pixels_have_no_bytes_to_keep(started, storage):
    book, _ = started()
    answered(book, 2, Policy("default", "mdl_1", "tiny", 1.0, images=True), images=[None, None])
    book.flush()
    assert [(row["sha256"], row["image"]) for row in written(storage)[1]] == [(None, None)] * 2


def test_what_failed_and_what_was_not_drawn_is_not_written(started, storage):
    book, counts = started()
    for _ in range(200):
        answered(book, 1, Policy("default", "mdl_1", "tiny", 0.5, images=False))
    asked, future = Asked([b"x"], 3, LABELS, None, None, None, None), Future()
    book.watch(POLICY, asked, future)
    future.set_exception(BadRequest("expected an image; found none"))
    book.flush()
    # By chance outside this once in ten million runs.
    assert 60 <= len(written(storage)[1]) <= 140
    assert counts == {"written": len(written(storage)[1])}


def test_what_does_not_fit_is_dropped_and_nobody_waits(started, storage, tmp_path):
    """The disk hangs: the queue fills up, and what comes then is counted."""
    hanging, begun = threading.Event(), threading.Event()

    class Hangs(FolderStorage):
        def put(self, key, source):
            begun.set()
            assert hanging.wait(30)
            super().put(key, source)

    book, counts = started(Hangs(tmp_path / "home" / "storage"))
    answered(book, 2000)
    assert begun.wait(30)
    answered(book, logbook.MAX_WAITING)
    answered(book, 7)
    answered(book, 1)
    assert counts == {"dropped": 8}
    hanging.set()
    book.close()
    assert counts == {"dropped": 8, "written": 2000 + logbook.MAX_WAITING}


def test_bytes_are_bounded_too(started):
    book, counts = started()
    with book._writing:
        answered(book, 3, size_bytes=logbook.MAX_WAITING_BYTES // 3)
        answered(book, 1, size_bytes=1000)
        assert counts == {"dropped": 1}


def test_a_store_that_is_away_is_counted_and_the_next_file_is_written(started, storage, tmp_path):
    class Away(FolderStorage):
        away = True

        def put(self, key, source):
            if self.away:
                raise OSError("expected a store; found none")
            super().put(key, source)

    away = Away(tmp_path / "home" / "storage")
    book, counts = started(away)
    answered(book, 3)
    book.flush()
    assert counts == {"failed": 3}
    away.away = False
    answered(book, 2)
    book.flush()
    assert counts == {"failed": 3, "written": 2}
    assert len(written(storage)[1]) == 2


def test_what_cannot_be_written_of_one_model_takes_nothing_of_others(started, storage):
    book, counts = started()
    asked, future = Asked([b"x", b"y"], 3, LABELS, None, None, None, "half of a pair: \ud800"), Future()
    book.watch(POLICY, asked, future)
    future.set_result(Result(np.full((2, 3), 1 / 3, np.float32), np.zeros((2, 4), np.float32), Timing()))
    answered(book, 3, Policy("other", "mdl_2", "other", 1.0, images=False))
    book.flush()
    assert counts == {"failed": 2, "written": 3}
    (key,) = storage.list("predictions")
    assert key.startswith("predictions/other/mdl_2/")


def test_a_model_that_keeps_no_log_any_more_is_left_out(started, storage):
    book, counts = started(wanted=frozenset({"mdl_2"}))
    answered(book, 3)
    book.flush()
    assert written(storage) == ([], [])
    assert counts == {}


def test_it_is_written_without_being_asked(started, storage):
    book, counts = started()
    answered(book, logbook.FLUSH_AT)
    wait_until(lambda: counts == {"written": logbook.FLUSH_AT}, "a file of a full queue")
    assert len(written(storage)[0]) == 1


def test_processes_write_side_by_side_into_an_object_store(started, s3_url, tmp_path):
    remote = open_storage(s3_url, tmp_path / "cache")
    books = [started(remote)[0] for _ in range(2)]
    for book in books:
        answered(book, 2)
        book.flush()
    keys, rows = written(remote)
    assert (len(keys), len(rows)) == (2, 4)
