"""What teachers have met, by each sign; pictures are looked at only by jobs."""

import numpy as np

from app.artifact.seen import Seen
from tests.worker.advice import samples
from worker.overlap import matches
from worker.overlap.copies import Pictures


def asked(shas: list[int], looks: list[int]) -> Pictures:
    index = samples.index(["a"] * len(shas), ["test"] * len(shas), looks, [f"{one:02x}".ljust(64, "0") for one in shas])
    return Pictures(index, np.arange(len(shas)))


def seen(what: str, shas: list[int], looks: list[int] | None = None, ids: list[int] | None = None) -> Seen:
    num = len(shas)
    wide = np.zeros((num, 32), np.uint8)
    wide[:, 0] = shas
    names = np.zeros((num, 10), np.uint8)
    names[:, 9] = ids or [0] * num
    return Seen(what, f"ds_{what}", "", names, wide, np.array(looks or [0] * num, np.uint64))


def test_items_are_known_by_id_by_bytes_and_by_look() -> None:
    items = asked([1, 2, 3, 4], [0b1, 0b1111 << 20, 0, 2**63])
    met = matches.match(items, [seen("dataset", [2, 7], looks=[0, (0b1111 << 20) | (1 << 40)], ids=[3, 8])], None)
    assert met.by_id_T.tolist() == [False, False, False, True]
    assert met.by_bytes_T.tolist() == [False, True, False, False]
    # One bit apart; a plain area (0) looks like nothing, not even like another one.
    assert met.by_look_T.tolist() == [False, True, False, False]
    assert met.sure_T.sum() == 2
    (row,) = met.seen_in()
    assert (row["id"], row["num_items"], row["num_by_id"], row["num_by_sha256"]) == ("ds_dataset", 2, 1, 1)
    assert (row["num_by_phash"], row["num_look_alike"]) == (1, 0)


def test_a_look_alone_is_counted_and_is_no_fact() -> None:
    met = matches.match(asked([1, 2], [5, 9]), [seen("dataset", [8], looks=[5])], None)
    assert (met.sure_T.sum(), met.counts()["num_look_alike"], met.seen_in()) == (0, 2, [])


def test_looks_agree_with_a_loop_over_all_pairs() -> None:
    rng = np.random.default_rng(0)
    known = rng.integers(1, 2**63, 50).astype(np.uint64)
    flips = np.array(
        [sum(1 << int(bit) for bit in rng.choice(64, num, replace=False)) for num in range(1, 9)], "uint64"
    )
    looks = np.concatenate([known[:8] ^ flips, rng.integers(1, 2**63, 10).astype(np.uint64)])
    met = matches.match(asked(list(range(18)), looks.tolist()), [seen("source", [99] * 50, looks=known.tolist())], None)
    slow = [any(bin(int(one) ^ int(other)).count("1") <= 4 for other in known) for one in looks]
    assert met.by_look_T.tolist() == slow
    assert sum(slow) == 4


def test_what_was_seen_without_labels_is_told_apart() -> None:
    met = matches.match(asked([1, 2, 3], [0] * 3), [seen("unlabelled", [1, 2]), seen("source", [2])], None)
    assert met.of(labelled=True).sure_T.tolist() == [False, True, False]
    assert [row["id"] for row in met.of(labelled=True).seen_in()] == ["ds_source"]
    assert [row["id"] for row in met.of(labelled=False).seen_in()] == ["ds_unlabelled"]
