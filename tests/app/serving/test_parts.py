"""Sums in storage: the parts of any number of processes are read as one, and joined without loss or doubles."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pytest

from app import failpoints
from app.errors import NotFound, Unavailable
from app.serving import parts as names
from app.serving.moments import Moments, total
from app.serving.parts import Parts
from app.serving.slots import DAY, HOUR, TEN_MINUTES, Key, Series, Span
from app.storage import FolderStorage, open_storage
from tests.factories import files_below

KEY, OTHER = Key("default", "ver_1", None), Key("default", "ver_1", "aln_1")
MIDNIGHT = 20_000 * DAY
LATER = MIDNIGHT + 2 * DAY
RNG = np.random.default_rng(0)
FEATURES = (RNG.normal(size=(600, 4)) * 3 + 100).astype(np.float32)
PROBABILITIES = RNG.dirichlet(np.ones(3), 600).astype(np.float32)


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.server)])
def url(request, tmp_path):
    return f"file://{tmp_path}/storage" if request.param == "folder" else request.getfixturevalue("s3_url")


@pytest.fixture
def store(url, tmp_path):
    return open_storage(url, tmp_path / "cache")


@pytest.fixture
def parts(store, tmp_path):
    return Parts(store, tmp_path / "scratch")


def seen(first, end):
    return Moments.of(FEATURES[first:end], PROBABILITIES[first:end])


def put(parts, start, series, first, end, seconds=TEN_MINUTES, key=KEY):
    span = Span(int(start), seconds, series * 32, end - first)
    parts.put(key, span, seen(first, end))
    return span


def day_of(parts, store):
    """Three processes in a day; one stored its newest states beside older ones, and one its hour beside its slots."""
    put(parts, MIDNIGHT, "a", 0, 10)
    put(parts, MIDNIGHT, "a", 0, 25)
    put(parts, MIDNIGHT + HOUR, "a", 25, 100)
    put(parts, MIDNIGHT, "b", 100, 110)
    put(parts, MIDNIGHT + TEN_MINUTES, "b", 110, 150)
    put(parts, MIDNIGHT, "b", 100, 150, HOUR)
    put(parts, MIDNIGHT + 23 * HOUR, "c", 150, 300)
    put(parts, MIDNIGHT + 23 * HOUR, "c", 300, 500, key=OTHER)
    return list(store.list("observed"))


def same(states, first, end):
    found = total(states.values())
    assert found.num_images == end - first
    np.testing.assert_allclose(found.mean_D, FEATURES[first:end].mean(0, dtype=np.float64), rtol=1e-9)
    np.testing.assert_allclose(found.variance_D, FEATURES[first:end].var(0, ddof=1, dtype=np.float64), rtol=1e-5)
    assert found.labels_C.tolist() == np.bincount(PROBABILITIES[first:end].argmax(1), minlength=3).tolist()


def tidy(parts, now=LATER, keep_days=30, kept=lambda _: True):
    parts.tidy(kept, keep_days * DAY, now)


def test_every_image_is_read_once(parts, store, tmp_path):
    day_of(parts, store)
    same(parts.read(KEY, 0, {}), 0, 300)
    same(parts.read(OTHER, 0, {}), 300, 500)
    same(parts.read(KEY, MIDNIGHT + HOUR, {}), 150, 300)
    assert parts.read(Key("default", "ver_2", None), 0, {}) == {}
    assert files_below(tmp_path / "scratch") == []


def test_what_a_process_holds_is_not_counted_beside_what_it_has_stored(parts, store):
    """Its slots in memory may be newer than those in storage, or older where they come from a board."""
    series = Series(4, 3)
    for number in range(6):
        series.open(MIDNIGHT + number * TEN_MINUTES).add(seen(10 * number, 10 * number + 10))
    board = series.states(0)
    for slot, span in series.due():
        parts.put(KEY, span, slot.moments)
    put(parts, MIDNIGHT, "a", 60, 90)
    same(parts.read(KEY, 0, board), 0, 90)
    series.open(MIDNIGHT + HOUR - 1).add(seen(90, 95))
    same(parts.read(KEY, 0, series.states(0)), 0, 95)
    series.tidy(MIDNIGHT + 2 * HOUR)
    ((slot, span),) = series.due()
    same(parts.read(KEY, 0, series.states(0)), 0, 95)
    parts.put(KEY, span, slot.moments)
    for states in ({}, series.states(0), board):
        same(parts.read(KEY, 0, states), 0, 95)


def test_a_day_that_is_over_becomes_one_object(parts, store):
    before = day_of(parts, store)
    tidy(parts, LATER - 1)
    assert list(store.list("observed")) == before
    tidy(parts)
    # Who has listed the parts may read them for a while.
    assert set(store.list("observed")) > set(before)
    same(parts.read(KEY, 0, {}), 0, 300)
    stored_at = store.stat(next(one for one in store.list("observed") if "whole" in one)).stored_at
    tidy(parts, stored_at + names.READ_SECONDS - 1, keep_days=1e6)
    assert set(store.list("observed")) > set(before)
    for _ in range(2):
        tidy(parts, stored_at + names.READ_SECONDS + 10, keep_days=1e6)
        assert [name.split("/", 3)[3] for name in store.list("observed")] == [
            "aln_1/2024-10-04/whole.safetensors", "plain/2024-10-04/whole.safetensors",
        ]  # fmt: skip
        same(parts.read(KEY, 0, {}), 0, 300)
        same(parts.read(OTHER, 0, {}), 300, 500)
    # A process that was frozen before it could store cannot double what it had stored in part, nor stay.
    put(parts, MIDNIGHT + HOUR, "a", 25, 120)
    same(parts.read(KEY, 0, {}), 0, 300)
    tidy(parts, stored_at + names.READ_SECONDS + 10, keep_days=1e6)
    assert len(list(store.list("observed"))) == 2


@pytest.mark.parametrize("reached", range(0, 10, 2))
def test_a_join_that_is_cut_short_is_made_by_the_next(tmp_path, reached):
    """Whatever it had stored or removed by then."""

    class CutShort(FolderStorage):
        left = reached

        def step(self):
            if self.left == 0:
                raise Unavailable("expected the object store to answer; found nothing; try again")
            self.left -= 1

        def put(self, key, source):
            self.step()
            super().put(key, source)

        def remove(self, stored):
            self.step()
            super().remove(stored)

    store = FolderStorage(tmp_path / "storage")
    parts, cut = Parts(store, tmp_path / "scratch"), CutShort(tmp_path / "storage")
    day_of(parts, store)
    far = 1e11
    for now in (LATER, far):
        with suppress(Unavailable):
            tidy(Parts(cut, tmp_path / "scratch"), now, keep_days=1e7)
        same(parts.read(KEY, 0, {}), 0, 300)
    for _ in range(2):
        tidy(parts, far, keep_days=1e7)
        same(parts.read(KEY, 0, {}), 0, 300)
    assert len(list(store.list("observed"))) == 2


def test_many_join_and_read_at_once(parts, store, monkeypatch):
    """No reader sees an image twice or misses one, and no two joins differ."""
    monkeypatch.setattr(names, "READ_SECONDS", 0.0)
    day_of(parts, store)
    done = threading.Event()

    def read():
        while not done.is_set():
            same(parts.read(KEY, 0, {}), 0, 300)

    with ThreadPoolExecutor(5) as threads:
        reading = [threads.submit(read) for _ in range(2)]
        try:
            for _ in range(5):
                for joining in [threads.submit(tidy, parts, 1e11, 1e7) for _ in range(3)]:
                    joining.result()
        finally:
            done.set()
        for one in reading:
            one.result()
    assert len(list(store.list("observed"))) == 2


def test_what_is_over_and_what_is_of_no_version_goes(parts, store, tmp_path):
    put(parts, MIDNIGHT, "a", 0, 10)
    put(parts, MIDNIGHT + DAY, "a", 10, 20)
    put(parts, MIDNIGHT + DAY, "a", 10, 20, key=Key("default", "ver_2", None))
    (tmp_path / "x").write_text("x")
    for name in ("of-somebody-else", "a/b/c/2024-10-04/d", "default/ver_1/plain/2024-13-45/d"):
        store.put(f"observed/{name}", tmp_path / "x")
    tidy(parts, MIDNIGHT + 4 * DAY - 1, keep_days=3)
    same(parts.read(KEY, 0, {}), 0, 20)
    tidy(parts, MIDNIGHT + 4 * DAY, keep_days=3, kept=lambda version_id: version_id == "ver_1")
    same(parts.read(KEY, 0, {}), 10, 20)
    left = list(store.list("observed"))
    assert {name.split("/")[2] for name in left if "/ver_" in name} == {"ver_1"}
    assert sum("ver_" not in name for name in left) == 2
    assert "observed/default/ver_1/plain/2024-13-45/d" in left


def test_a_damaged_part_harms_no_other(parts, store, tmp_path, caplog):
    put(parts, MIDNIGHT, "a", 0, 10)
    put(parts, MIDNIGHT, "b", 10, 30)
    (tmp_path / "x").write_bytes(b"no arrays")
    damaged = next(name for name in store.list("observed") if "/aaa" in name)
    store.put(damaged, tmp_path / "x")
    same(parts.read(KEY, 0, {}), 10, 30)
    assert "sums are left out" in caplog.text
    tidy(parts)
    same(parts.read(KEY, 0, {}), 10, 30)


def test_parts_that_are_replaced_while_they_are_read_are_listed_again(tmp_path):
    store = FolderStorage(tmp_path / "storage")
    parts = Parts(store, tmp_path / "scratch")
    older = put(parts, MIDNIGHT, "a", 0, 10)
    put(parts, MIDNIGHT, "b", 10, 20)

    class Busy(FolderStorage):
        num_replaced, most = 0, 2

        def fetch(self, key):
            """Its owner has just replaced it."""
            nonlocal older
            if self.num_replaced < self.most and "/aaa" in key:
                self.num_replaced += 1
                newer = put(parts, MIDNIGHT, "a", 0, 10 - self.num_replaced)
                parts.remove(KEY, older)
                older = newer
                raise NotFound("expected an object; found none")
            return super().fetch(key)

    busy = Busy(tmp_path / "storage")
    assert total(Parts(busy, tmp_path / "scratch").read(KEY, 0, {}).values()).num_images == 8 + 10
    busy.num_replaced, busy.most = 0, 100
    with pytest.raises(Unavailable, match="replaced 5 times"):
        Parts(busy, tmp_path / "scratch").read(KEY, 0, {})


def test_a_full_disk_leaves_nothing_half_done(tmp_path, monkeypatch):
    monkeypatch.setattr(failpoints, "_folder", str(tmp_path / "armed"))
    (tmp_path / "armed").mkdir()
    (tmp_path / "armed" / "file_linked").write_text("full")
    store = FolderStorage(tmp_path / "storage")
    parts = Parts(store, tmp_path / "scratch")
    with pytest.raises(Exception, match="disk is full"):
        put(parts, MIDNIGHT, "a", 0, 10)
    assert files_below(tmp_path / "storage", tmp_path / "scratch") == []
    put(parts, MIDNIGHT, "a", 0, 10)
    same(parts.read(KEY, 0, {}), 0, 10)
