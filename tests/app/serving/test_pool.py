import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.serving.pool import Pool


class Item:
    """A resource that knows when it was closed."""

    def __init__(self, key, size_bytes=1):
        self.key, self.size_bytes, self.num_closes, self.num_trims = key, size_bytes, 0, 0

    def size_with(self, number):
        return self.size_bytes + number

    def trim(self):
        self.num_trims += 1

    def close(self):
        self.num_closes += 1


class Loader:
    """Makes items and remembers them."""

    def __init__(self):
        self.made = []

    def __call__(self, key, size_bytes=1):
        def load():
            item = Item(key, size_bytes)
            self.made.append(item)
            return item

        return load


def touch(pool, load, key, size_bytes=1):
    with pool.lease(key, load(key, size_bytes)) as item:
        return item


def test_a_second_lease_loads_nothing():
    pool, load = Pool(10), Loader()
    assert touch(pool, load, "a") is touch(pool, load, "a")
    assert len(load.made) == 1
    stats = pool.stats()
    assert (stats.num_entries, stats.size_bytes, stats.num_loads, stats.num_hits, stats.num_evictions) == (
        1,
        1,
        1,
        1,
        0,
    )


def test_the_least_recently_used_goes_first():
    pool, load = Pool(2), Loader()
    a, b = touch(pool, load, "a"), touch(pool, load, "b")
    touch(pool, load, "a")
    touch(pool, load, "c")
    assert (a.num_closes, b.num_closes) == (0, 1)
    assert pool.stats().num_evictions == 1


def test_use_ends_with_the_lease_not_with_its_beginning():
    pool, load = Pool(2), Loader()
    with pool.lease("a", load("a")) as a:
        b = touch(pool, load, "b")
    touch(pool, load, "c")
    assert (a.num_closes, b.num_closes) == (0, 1)


def test_what_is_in_use_stays_open_whatever_the_budget():
    pool, load = Pool(1), Loader()
    with pool.lease("a", load("a")) as a, pool.lease("b", load("b")) as b:
        assert (a.num_closes, b.num_closes) == (0, 0)
        assert pool.stats().size_bytes == 2
        with pool.lease("a", load("a")) as again:
            assert again is a
    assert (a.num_closes, b.num_closes) == (0, 1)
    assert pool.stats().size_bytes == 1


def test_an_item_over_the_budget_stays_until_another_one_is_used(caplog):
    """A model that is asked now and then would else be loaded anew each time."""
    pool, load = Pool(5), Loader()
    a = touch(pool, load, "a", 6)
    assert touch(pool, load, "a") is a
    assert (a.num_closes, pool.stats().size_bytes, pool.stats().num_loads) == (0, 6, 1)
    assert caplog.text.count("raise the budget") == 1
    with pool.lease("b", load("b")):
        assert a.num_closes == 1
    assert pool.stats().size_bytes == 1


def test_room_is_made_before_an_item_grows():
    pool, load = Pool(5), Loader()
    a, b = touch(pool, load, "a", 2), touch(pool, load, "b", 2)
    with pool.lease("b", load("b"), number=1):
        assert (a.num_closes, pool.stats().size_bytes) == (0, 5)
    with pool.lease("b", load("b"), number=2):
        assert (a.num_closes, b.num_closes, pool.stats().size_bytes) == (1, 0, 4)


def test_what_cannot_go_gives_back_what_it_does_not_need():
    pool, load = Pool(5), Loader()
    with pool.lease("a", load("a", 2)) as a:
        with pool.lease("b", load("b", 2), number=1) as b:
            assert (a.num_trims, b.num_trims) == (0, 0)
            touch(pool, load, "c", 2)
            assert (a.num_trims > 0, b.num_trims > 0) == (True, True)
            a.size_bytes = 1
        before = a.num_trims, b.num_trims
        touch(pool, load, "b")
    assert (a.num_trims, b.num_trims) == before


def test_what_grows_with_its_use_counts_as_it_is_at_the_end_of_a_lease(caplog):
    pool, load = Pool(5), Loader()
    a, b = touch(pool, load, "a", 2), touch(pool, load, "b", 2)
    with pool.lease("b", load("b")) as used:
        used.size_bytes = 3
        assert pool.stats().size_bytes == 4
    assert pool.stats().size_bytes == 5
    with pool.lease("b", load("b")) as used:
        used.size_bytes = 5
    assert (a.num_closes, b.num_closes, pool.stats().size_bytes) == (1, 0, 5)
    with pool.lease("b", load("b")) as used:
        used.size_bytes = 6
        pool.discard("b")
    assert (b.num_closes, pool.stats().size_bytes) == (1, 0)
    assert caplog.text.count("raise the budget") == 1


def test_a_failed_load_is_not_kept():
    pool, load = Pool(5), Loader()

    def fail():
        raise OSError("no such file")

    for _ in range(2):
        with pytest.raises(OSError, match="no such file"), pool.lease("a", fail):
            pass
    assert pool.stats().num_entries == 0
    assert touch(pool, load, "a").num_closes == 0
    assert (pool.stats().num_loads, pool.stats().size_bytes) == (3, 1)


def test_a_resource_that_cannot_tell_its_size_fails_the_lease():
    pool = Pool(5)
    with pytest.raises(AttributeError), pool.lease("a", object):
        pass
    assert pool.stats().num_entries == 0


def test_an_error_of_the_user_releases_the_lease():
    pool, load = Pool(1), Loader()
    with pytest.raises(KeyError), pool.lease("a", load("a")) as a:
        raise KeyError
    touch(pool, load, "b")
    assert a.num_closes == 1


def test_discarding_waits_for_the_last_lease():
    pool, load = Pool(5), Loader()
    with pool.lease("a", load("a")) as a:
        with pool.lease("a", load("a")):
            pool.discard("a")
            with pool.lease("a", load("a")) as fresh:
                assert fresh is not a
        assert a.num_closes == 0
    assert (a.num_closes, fresh.num_closes) == (1, 0)
    pool.discard("a")
    pool.discard("a")
    assert fresh.num_closes == 1
    assert pool.stats().size_bytes == 0


def test_clearing_closes_everything_idle():
    pool, load = Pool(5), Loader()
    touch(pool, load, "a")
    with pool.lease("b", load("b")) as b:
        pool.clear()
        assert [item.num_closes for item in load.made] == [1, 0]
    assert b.num_closes == 1
    assert (pool.stats().num_entries, pool.stats().size_bytes) == (0, 0)


def waiters(pool, key, load, num):
    """Starts `num` threads that lease `key` and returns once all of them are inside."""
    executor = ThreadPoolExecutor(num)
    entered = threading.Semaphore(0)

    def call():
        entered.release()
        with pool.lease(key, load) as item:
            return item

    futures = [executor.submit(call) for _ in range(num)]
    for _ in range(num):
        entered.acquire()
    executor.shutdown(wait=False)
    return futures


def test_many_callers_cause_one_load():
    pool, gate, made = Pool(5), threading.Event(), []

    def load():
        assert gate.wait(30)
        made.append(Item("a"))
        return made[-1]

    futures = waiters(pool, "a", load, 8)
    gate.set()
    assert {future.result(30) for future in futures} == set(made)
    assert len(made) == 1


def test_other_keys_do_not_wait_for_a_load():
    pool, gate, load = Pool(5), threading.Event(), Loader()

    def slow():
        assert gate.wait(30)
        return Item("slow")

    futures = waiters(pool, "slow", slow, 1)
    assert touch(pool, load, "quick").key == "quick"
    assert not futures[0].done()
    gate.set()
    assert futures[0].result(30).key == "slow"


def failing(inside, gate):
    """A load that says when it is in it, and fails once it may."""

    def fail():
        inside.set()
        assert gate.wait(30)
        raise OSError("broken")

    return fail


def test_callers_during_a_failing_load_get_its_error_and_the_next_one_loads():
    pool, inside, gate, load = Pool(5), threading.Event(), threading.Event(), Loader()

    first = waiters(pool, "a", failing(inside, gate), 1)
    assert inside.wait(30)
    others = waiters(pool, "a", load("a"), 4)
    while pool.stats().num_hits < 4:
        threading.Event().wait(0.001)
    gate.set()
    for future in first + others:
        with pytest.raises(OSError, match="broken"):
            future.result(30)
    assert load.made == []
    assert touch(pool, load, "a").key == "a"


def test_who_would_load_from_elsewhere_is_not_told_of_a_failure_but_loads_itself():
    pool, inside, gate, load = Pool(5), threading.Event(), threading.Event(), Loader()

    def lease(make, source):
        with pool.lease("a", make, source=source) as item:
            return item

    with ThreadPoolExecutor(4) as threads:
        first = threads.submit(lease, failing(inside, gate), "one")
        assert inside.wait(30)
        same = threads.submit(lease, load("a"), "one")
        others = [threads.submit(lease, load("a"), "another") for _ in range(2)]
        while pool.stats().num_hits < 3:
            threading.Event().wait(0.001)
        gate.set()
        for future in (first, same):
            with pytest.raises(OSError, match="broken"):
                future.result(30)
        assert [future.result(30) for future in others] == load.made * 2


def test_a_discard_during_a_load_closes_what_comes():
    pool, inside, gate = Pool(5), threading.Event(), threading.Event()

    def slow():
        inside.set()
        assert gate.wait(30)
        return Item("a")

    [future] = waiters(pool, "a", slow, 1)
    assert inside.wait(30)
    pool.discard("a")
    gate.set()
    assert future.result(30).num_closes == 1
    assert (pool.stats().num_entries, pool.stats().size_bytes) == (0, 0)


SIZES = {"a": 1, "b": 2, "c": 3, "d": 5, "e": 8}
STEPS = st.lists(st.tuples(st.sampled_from(["open", "close", "discard"]), st.sampled_from(sorted(SIZES))), max_size=40)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 14), STEPS)
def test_the_pool_is_an_lru_cache_with_leases(budget, steps):
    """Against a model written as a list of rules: `kept` in order of use, the last stays; `held` counts leases."""
    pool, load = Pool(budget), Loader()
    kept, held, doomed = OrderedDict(), {}, []
    leases = []

    def shrink():
        for key in list(kept)[:-1]:
            if sum(item.size_bytes for item in [*kept.values(), *doomed]) <= budget:
                return
            if not held[kept[key]]:
                kept.pop(key)

    for action, key in steps:
        if action == "open":
            lease = pool.lease(key, load(key, SIZES[key]))
            item = lease.__enter__()
            assert item is kept.get(key, load.made[-1])
            leases.append((lease, item, key))
            held[item] = held.get(item, 0) + 1
            kept[key] = item
            kept.move_to_end(key)
            shrink()
        elif action == "close" and leases:
            lease, item, used = leases.pop(ord(key) % len(leases))
            lease.__exit__(None, None, None)
            held[item] -= 1
            if kept.get(used) is item:
                kept.move_to_end(used)
                shrink()
            elif not held[item]:
                doomed.remove(item)
        elif action == "discard" and key in kept:
            item = kept.pop(key)
            if held[item]:
                doomed.append(item)
            pool.discard(key)
        alive = {*kept.values(), *doomed}
        for item in load.made:
            assert item.num_closes == (item not in alive)
        stats = pool.stats()
        assert stats.num_entries == len(kept)
        assert stats.size_bytes == sum(item.size_bytes for item in alive)
        assert stats.size_bytes <= budget or len(kept) == 1 or any(held[item] for item in alive)
    for lease, _, _ in leases:
        lease.__exit__(None, None, None)
    assert pool.stats().size_bytes <= budget or pool.stats().num_entries == 1
    pool.clear()
    assert [item.num_closes for item in load.made] == [1] * len(load.made)


def test_many_threads_never_meet_a_closed_item():
    pool, made, lock, keys = Pool(6), [], threading.Lock(), "abcdefgh"
    broken = []

    def load(key, fails):
        if fails:
            raise OSError(key)
        item = Item(key, 1 + keys.index(key) % 3)
        with lock:
            made.append(item)
        return item

    def work(seed):
        rng = np.random.default_rng(seed)
        for _ in range(400):
            key, fails = keys[rng.integers(8)], rng.random() < 0.1
            try:
                with pool.lease(key, lambda key=key, fails=fails: load(key, fails)) as item:
                    if item.key != key or item.num_closes:
                        broken.append(key)
                    if rng.random() < 0.05:
                        pool.discard(key)
                    with pool.lease(
                        keys[(keys.index(key) + 1) % 8], lambda key=key: load(keys[(keys.index(key) + 1) % 8], False)
                    ):
                        pass
                    if item.num_closes:
                        broken.append(key)
            except OSError:
                pass

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert broken == []
    stats = pool.stats()
    assert stats.size_bytes == sum(item.size_bytes for item in made if not item.num_closes) <= 6
    assert stats.num_evictions > 0
    pool.clear()
    assert {item.num_closes for item in made} == {1}
