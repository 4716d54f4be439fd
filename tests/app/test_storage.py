"""One contract for every kind of storage."""

import errno
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from app.errors import NotFound, OutOfSpace, Unavailable
from app.inbox import open_inbox
from app.storage import DRAFTS, FolderStorage, check_key, open_storage, remove_old_copies
from app.storage.base import Stored
from app.storage.copies import UNUSED_SECONDS
from tests.factories import files_below


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.server)])
def kind(request):
    return request.param


@pytest.fixture
def url(kind, request, tmp_path):
    return f"file://{tmp_path}/store" if kind == "folder" else request.getfixturevalue("s3_url")


@pytest.fixture
def store(url, tmp_path):
    return open_storage(url, tmp_path / "cache")


@pytest.fixture
def put(store, tmp_path):
    def write(key, content):
        source = tmp_path / "source"
        source.unlink(missing_ok=True)
        source.write_bytes(content)
        store.put(key, source)

    return write


def test_what_is_put_is_fetched(store, put):
    put("a/b.txt", b"one")
    put("a/c", b"")
    assert store.fetch("a/b.txt").read_bytes() == b"one"
    assert store.fetch("a/c").read_bytes() == b""
    assert isinstance(store.fetch("a/b.txt"), Path)


def test_put_replaces(store, put):
    put("a", b"one")
    assert store.fetch("a").read_bytes() == b"one"
    put("a", b"two")
    assert store.fetch("a").read_bytes() == b"two"


def test_source_stays(store, tmp_path):
    source = tmp_path / "mine"
    source.write_bytes(b"x")
    store.put("a", source)
    assert source.read_bytes() == b"x"
    source.unlink()
    assert store.fetch("a").read_bytes() == b"x"


def test_nothing_there(store, put):
    put("a/b", b"x")
    for key in ("b", "a", "a/b/c"):
        with pytest.raises(NotFound, match="found none"):
            store.fetch(key)
    store.delete("nothing/at/all")
    assert list(store.list("nothing")) == []


def test_list_is_sorted_and_below_the_prefix(store, put):
    for key in ("ds/1/b", "ds/1/a", "ds/10/a", "ds/1/c/d", "other/a", "ds/1-x/a"):
        put(key, b"x")
    assert list(store.list("ds/1")) == ["ds/1/a", "ds/1/b", "ds/1/c/d"]
    assert list(store.list("ds")) == sorted(["ds/1-x/a", "ds/1/a", "ds/1/b", "ds/1/c/d", "ds/10/a"])


def never_missed(store, put, pause=0.0):
    """A writer puts the next state before it removes the last, for two seconds; a reader lists all the time."""
    put("sums/day/a-000000", b"x")
    done = threading.Event()

    def write():
        for number in range(1, 1_000_000):
            time.sleep(pause)
            put(f"sums/day/a-{number:06d}", b"x")
            store.remove(Stored(f"sums/day/a-{number - 1:06d}", 0, 0.0))
            if done.is_set():
                return

    with ThreadPoolExecutor(1) as threads:
        writing = threads.submit(write)
        try:
            end, listed = time.monotonic() + 2, 0
            while time.monotonic() < end:
                assert any("/a-" in key for key in store.list("sums")), f"missed after {listed} listings"
                listed += 1
        finally:
            done.set()
        writing.result()
    assert listed > 10


def test_what_is_replaced_is_never_missed(store, put):
    never_missed(store, put)


@pytest.mark.parametrize("kind", ["folder"], indirect=True)
def test_what_is_replaced_in_a_large_folder_is_not_missed(store, put):
    """It reaches a reader in pieces."""
    for number in range(3_000):
        put(f"sums/day/z-{number:06d}-whose-name-is-about-as-long-as-those-are", b"x")
    never_missed(store, put, pause=0.02)


def test_delete_takes_the_prefix_and_no_sibling(store, put):
    for key in ("ds_1/a", "ds_1/b/c", "ds_10/a", "ds_1.x", "ds_11"):
        put(key, b"x")
    assert store.fetch("ds_1/a").read_bytes() == b"x"
    store.delete("ds_1")
    assert [list(store.list(name)) for name in ("ds_1", "ds_10")] == [[], ["ds_10/a"]]
    for key in ("ds_10/a", "ds_1.x", "ds_11"):
        assert store.fetch(key).read_bytes() == b"x"
    with pytest.raises(NotFound):
        store.fetch("ds_1/a")
    store.delete("ds_11")
    with pytest.raises(NotFound):
        store.fetch("ds_11")


def folders_below(top):
    return sorted(path.relative_to(top).as_posix() for path in top.rglob("*") if path.is_dir())


def test_deleting_leaves_no_empty_folder_and_no_sibling_loses_its_own(tmp_path):
    store = FolderStorage(tmp_path / "store")
    (tmp_path / "source").write_bytes(b"x")
    for key in ("bundles/default/ver_1/added/a", "bundles/default/ver_2/added/a", "probe/a"):
        store.put(key, tmp_path / "source")
    store.delete("bundles/default/ver_1/added")
    store.delete("probe/a")
    store.delete("bundles/default/ver_3/added")
    assert folders_below(tmp_path / "store") == [
        DRAFTS, "bundles", "bundles/default", "bundles/default/ver_2", "bundles/default/ver_2/added"
    ]  # fmt: skip
    store.delete("bundles/default/ver_2/added")
    assert folders_below(tmp_path / "store") == [DRAFTS]


@pytest.mark.parametrize("gone", [1, 3])
def test_a_folder_that_is_removed_while_something_is_put_there_is_made_again(tmp_path, monkeypatch, gone):
    (tmp_path / "source").write_bytes(b"x")
    store, other = (FolderStorage(tmp_path / "store") for _ in range(2))
    replace, calls = Path.replace, []

    def late(path, target):
        calls.append(target)
        if len(calls) <= gone:
            # The only other object of the folder is deleted, and the folder is empty.
            other.delete("a/b/other")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", late)
    store.put("a/b/mine", tmp_path / "source")
    assert store.fetch("a/b/mine").read_bytes() == b"x"
    assert len(calls) == gone + 1
    assert folders_below(tmp_path / "store") == [DRAFTS, "a", "a/b"]
    assert files_below(tmp_path / "store" / DRAFTS) == []


def test_walk_tells_of_every_object_and_remove_takes_that_one(store, put):
    for key in ("ds/1/b", "ds/1/a", "ds/10", "top"):
        put(key, b"12345")
    found = {stored.key: stored for stored in store.walk()}
    assert list(found) == sorted(found, key=lambda key: key.split("/"))
    assert {key: (stored.size_bytes, stored.unfinished) for key, stored in found.items()} == {
        "ds/1/a": (5, ""), "ds/1/b": (5, ""), "ds/10": (5, ""), "top": (5, "")
    }  # fmt: skip
    assert all(abs(stored.stored_at - time.time()) < 60 for stored in found.values())
    assert store.stat("ds/1/a") == found["ds/1/a"]
    assert store.stat("ds/1") is None
    assert store.fetch("ds/1/a").read_bytes() == b"12345"
    store.remove(found["ds/1/a"])
    store.remove(found["ds/1/a"])
    assert store.stat("ds/1/a") is None
    with pytest.raises(NotFound):
        store.fetch("ds/1/a")
    assert [stored.key for stored in store.walk()] == ["ds/1/b", "ds/10", "top"]


def test_what_is_put_has_come_now_however_old_its_source_is(store, tmp_path):
    old = tmp_path / "old"
    old.write_bytes(b"x")
    os.utime(old, (0, 0))
    store.put("graphs/a", old)
    assert time.time() - store.stat("graphs/a").stored_at < 60


def test_what_was_cut_off_in_mid_writing_is_told_of_and_can_be_removed(store, put, kind, tmp_path):
    put("bundles/a", b"x")
    if kind == "folder":
        (tmp_path / "store" / DRAFTS / "abc").write_bytes(b"half")
    else:
        store.client.create_multipart_upload(Bucket=store.bucket, Key=store.name("bundles/b"))
    assert list(store.list("bundles")) == ["bundles/a"]
    (cut_off,) = [stored for stored in store.walk() if stored.unfinished]
    store.remove(cut_off)
    assert [stored.key for stored in store.walk()] == ["bundles/a"]


@pytest.mark.server
def test_local_copies_that_nobody_asks_for_go(s3_url, tmp_path):
    cache = tmp_path / "cache"
    store = open_storage(s3_url, cache)
    (tmp_path / "source").write_bytes(b"x")
    store.put("a", tmp_path / "source")
    store.put("b", tmp_path / "source")
    for key in ("a", "b"):
        os.utime(store.fetch(key), (time.time() - UNUSED_SECONDS - 60,) * 2)
    used = store.fetch("a")
    assert remove_old_copies(cache) == 1
    assert [path for path in cache.rglob("*") if path.is_file()] == [used]
    assert store.fetch("b").read_bytes() == b"x"


BAD_KEYS = ["", "/a", "a/", "a//b", "../a", "a/../b", "a/..", ".", ".a", "a/.b", "a b", "a\\b", "a\n", "\u00e4", "a\0"]


@pytest.mark.parametrize("key", BAD_KEYS)
def test_keys_that_could_leave_the_store_are_refused(store, tmp_path, key):
    (tmp_path / "source").write_bytes(b"x")
    calls = [
        lambda: store.put(key, tmp_path / "source"), lambda: store.fetch(key),
        lambda: store.delete(key), lambda: list(store.list(key)),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(ValueError, match="plain names"):
            call()


@given(st.text(max_size=30))
def test_keys_that_pass_stay_below_the_store(key):
    try:
        check_key(key)
    except ValueError:
        return
    top = "/srv/store"
    assert os.path.normpath(f"{top}/{key}") == f"{top}/{key}"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_full_disk_is_said_and_leaves_nothing(tmp_path, monkeypatch, number):
    def fails(*_):
        raise OSError(number, os.strerror(number))

    (tmp_path / "source").write_bytes(b"x")
    store = FolderStorage(tmp_path / "store")
    store.put("a", tmp_path / "source")
    monkeypatch.setattr("os.link", fails)
    monkeypatch.setattr("shutil.copyfile", fails)
    with pytest.raises(OutOfSpace, match="full"):
        store.put("a", tmp_path / "source")
    with pytest.raises(OutOfSpace):
        store.put("b/c", tmp_path / "source")
    assert store.fetch("a").read_bytes() == b"x"
    assert list(store.list("b")) == []
    assert [path.name for path in (tmp_path / "store").rglob("*") if path.is_file()] == ["a"]


def test_other_failures_stay_what_they_are(tmp_path):
    store = FolderStorage(tmp_path / "store")
    with pytest.raises(FileNotFoundError):
        store.put("a", tmp_path / "nothing")
    assert files_below(tmp_path / "store") == []


def test_what_was_put_outlives_a_loss_of_power(tmp_path, monkeypatch):
    """A row that names it may be on the disk a moment later: its bytes come first, then all names that lead to it."""
    (tmp_path / "source").write_bytes(b"x" * 1000)
    store, sync, synced = FolderStorage(tmp_path / "store"), os.fsync, []

    def noted(handle):
        path = Path(f"/proc/self/fd/{handle}").readlink()
        names = [] if path.is_file() else sorted(one.name for one in path.iterdir())
        synced.append((path.name, names) if names else ("bytes", path.stat().st_size))
        sync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    store.put("a/b/c", tmp_path / "source")
    assert synced == [("bytes", 1000), ("b", ["c"]), ("a", ["b"]), ("store", [DRAFTS, "a"])]
    synced.clear()
    store.put("a/b/d", tmp_path / "source")
    assert synced == [("bytes", 1000), ("b", ["c", "d"])]


def interrupted(*_):
    raise KeyboardInterrupt


def test_half_written_objects_are_not_listed(tmp_path, monkeypatch):
    (tmp_path / "source").write_bytes(b"x")
    store = FolderStorage(tmp_path / "store")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            store.put("a/b", tmp_path / "source")
    assert list(store.list("a")) == []
    # What a killed process leaves is where the sweep looks for it.
    assert [Path(path).parent.name for path in files_below(tmp_path / "store")] == [DRAFTS]


@pytest.mark.server
def test_prefixes_in_one_bucket_do_not_meet(s3_url, tmp_path):
    one, other = open_storage(s3_url, tmp_path / "c1"), open_storage(f"{s3_url}2", tmp_path / "c2")
    bare = open_storage(s3_url.removesuffix("/some/prefix"), tmp_path / "c3")
    (tmp_path / "x").write_bytes(b"1")
    for store in (one, other, bare):
        store.put("a/b", tmp_path / "x")
    assert list(one.list("a")) == list(other.list("a")) == list(bare.list("a")) == ["a/b"]
    one.delete("a")
    assert (list(one.list("a")), list(other.list("a")), list(bare.list("a"))) == ([], ["a/b"], ["a/b"])


@pytest.mark.server
def test_second_fetch_needs_no_download(s3_url, tmp_path):
    store = open_storage(s3_url, tmp_path / "cache")
    (tmp_path / "x").write_bytes(b"1")
    store.put("a", tmp_path / "x")
    first = store.fetch("a")
    stamp = first.stat().st_mtime_ns
    assert store.fetch("a").stat().st_mtime_ns == stamp
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == [first]


@pytest.mark.parametrize("wrong", ["ftp://a/b", "/plain/path", ""])
def test_unknown_scheme(tmp_path, wrong):
    with pytest.raises(ValueError, match="file:// or s3://"):
        open_storage(wrong, tmp_path)


@pytest.mark.server
def test_an_object_store_that_is_away_is_told_from_one_that_refuses(s3_url, tmp_path, monkeypatch):
    monkeypatch.setattr("app.storage.s3.ATTEMPTS", 1)
    with Answering(503) as store:
        monkeypatch.setenv("AWS_ENDPOINT_URL", store)
        found = open_storage(s3_url, tmp_path / "cache")
        for call in (lambda: found.put("a", Path(__file__)), lambda: found.fetch("a"), lambda: found.delete("a"),
                     lambda: list(found.list("a"))):  # fmt: skip
            with pytest.raises(Unavailable, match="expected the object store to answer"):
                call()
    with pytest.raises(Unavailable, match="try again"):
        found.fetch("a")
    assert files_below(tmp_path / "cache") == []
    with Answering(403) as store:
        monkeypatch.setenv("AWS_ENDPOINT_URL", store)
        with pytest.raises(ClientError, match="403"):
            open_storage(s3_url, tmp_path / "cache").fetch("a")


def test_a_store_that_cuts_every_answer_short_is_told_as_one_that_is_away(s3_url, tmp_path, monkeypatch):
    with Answering(200, num_bytes=10, sent=b"half") as store:
        monkeypatch.setenv("AWS_ENDPOINT_URL", store)
        with pytest.raises(Unavailable, match="expected the object store to answer"):
            open_storage(s3_url, tmp_path / "cache").fetch("a")
    assert files_below(tmp_path / "cache") == []


class Answering:
    """A server that has one answer to everything; one that says it has more bytes than it sends is cut off amid it."""

    def __init__(self, status, *, num_bytes=0, sent=b""):
        class Handler(BaseHTTPRequestHandler):
            def answer(self):
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                self.send_response(status)
                self.send_header("Content-Length", str(num_bytes))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(sent)

            do_GET = do_PUT = do_HEAD = do_DELETE = answer

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return f"http://127.0.0.1:{self._server.server_port}"

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()


@pytest.mark.server
def test_an_object_that_goes_while_it_is_read_is_not_found(s3_url, tmp_path):
    """Between the look at its size and its bytes: whoever reads what others replace lists it again."""
    store = open_storage(s3_url, tmp_path / "cache")
    (tmp_path / "source").write_bytes(b"one")
    store.put("a/b", tmp_path / "source")
    store.client.meta.events.register("before-call.s3.GetObject", lambda **_: store.delete("a/b"))
    with pytest.raises(NotFound, match="just gone"):
        list(open_inbox(store).read("a/b"))
