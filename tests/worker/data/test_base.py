"""Child datasets: added, removed, relabelled; nobody leaves the test split."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from worker.data.ingest import BaseDataset, IngestResult
from worker.data.samples import load_index

from .conftest import FolderStore, draw, folders

Run = Callable[..., IngestResult]


def rows(store: FolderStore) -> dict[str, tuple[str, str, str]]:
    """Path -> id, label, split."""
    index = load_index(store.folder)
    paths = index.paths.to_pylist()
    return {
        paths[row]: (index.ids[row].decode(), index.columns[0].text(row), ("train", "val", "test")[index.split[row]])
        for row in range(len(index))
    }


@pytest.fixture
def child(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "child")


def test_add_remove_and_relabel_at_once(run: Run, store: FolderStore, child: FolderStore) -> None:
    parent = run(folders(10))
    old = rows(store)
    gone = [old["cat/0.png"][0], old["dog/3.png"][0]]
    base = BaseDataset("ds_parent", store.folder, tuple(gone), {old["cat/1.png"][0]: "dog", old["cat/2.png"][0]: "owl"})
    new = {f"more/owl/{number}.png": draw(7000 + number) for number in range(4)}
    result = run(new, into=child, base=base, seed=5)
    assert (result.state, result.failure) == ("ready", None)
    assert result.num_samples == 22
    assert result.classes == [
        {"name": "cat", "num_samples": 7},
        {"name": "dog", "num_samples": 10},
        {"name": "owl", "num_samples": 5},
    ]
    found = rows(child)
    assert set(found) == (set(old) - {"cat/0.png", "dog/3.png"}) | {f"more/owl/{number}.png" for number in range(4)}
    for path in set(old) & set(found):
        assert found[path][0] == old[path][0]
        assert found[path][2] == old[path][2]
    assert found["cat/1.png"][1] == "dog"
    assert found["cat/2.png"][1] == "owl"
    assert load_index(child.folder).description["base"] == "ds_parent"
    assert result.digest != parent.digest


def test_only_removing_needs_no_upload(run: Run, store: FolderStore, child: FolderStore) -> None:
    run(folders(5))
    old = rows(store)
    result = run(None, into=child, base=BaseDataset("ds_parent", store.folder, (old["cat/0.png"][0],)))
    assert (result.state, result.num_samples) == ("ready", 9)
    assert rows(child) == {path: row for path, row in old.items() if path != "cat/0.png"}


def test_nothing_changed_keeps_the_digest(run: Run, store: FolderStore, child: FolderStore) -> None:
    parent = run(folders(5))
    result = run(None, into=child, base=BaseDataset("ds_parent", store.folder), seed=9)
    assert result.digest == parent.digest


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 1000))
def test_copies_follow_the_old_and_no_test_item_moves(run: Run, tmp_path: Path, seed: int) -> None:
    parent, child = FolderStore(tmp_path / f"p{seed}"), FolderStore(tmp_path / f"c{seed}")
    files = folders(10)
    run(files, into=parent, seed=seed)
    new = {path.replace("/", "/copy-"): data for path, data in files.items()}
    result = run(new, into=child, base=BaseDataset("ds_parent", parent.folder), seed=seed + 1)
    assert result.num_samples == 40
    old, found = rows(parent), rows(child)
    for path, (_, _, split) in old.items():
        assert found[path][2] == split
        assert found[path.replace("/", "/copy-")][2] == split
    for directory in (parent, child):
        for path in directory.folder.rglob("*.parquet"):
            path.unlink()


def test_a_removed_test_item_does_not_come_back_for_training(run: Run, store: FolderStore, child: FolderStore) -> None:
    files = folders(10)
    run(files)
    old = rows(store)
    tests = [path for path, (_, _, split) in old.items() if split == "test"]
    base = BaseDataset("ds_parent", store.folder, tuple(old[path][0] for path in tests))
    run({f"again/{path}": files[path] for path in tests}, into=child, base=base, seed=3)
    assert all(rows(child)[f"again/{path}"][2] == "test" for path in tests)


def test_what_the_base_has_is_not_added_twice(run: Run, store: FolderStore, child: FolderStore) -> None:
    files = folders(5)
    run(files)
    more = {path: files[path] for path in ("cat/0.png", "dog/1.png")} | {"cat/new.png": draw(8000)}
    result = run(more, into=child, base=BaseDataset("ds_parent", store.folder))
    assert result.num_samples == 11
    assert {(problem.code, problem.path) for problem in result.problems} == {
        ("already_in_base", "cat/0.png"),
        ("already_in_base", "dog/1.png"),
    }


def test_shares_hold_for_the_whole(run: Run, store: FolderStore, child: FolderStore) -> None:
    run(folders(10))
    new = {
        f"new/{label}/{number}.png": draw(6000 + number + 50 * len(label))
        for label in ("cat", "dogs"[:3])
        for number in range(10)
    }
    new = {path: draw(6000 + place) for place, path in enumerate(new)}
    result = run(new, into=child, base=BaseDataset("ds_parent", store.folder))
    assert result.splits == {"train": 28, "val": 4, "test": 8}


@pytest.mark.parametrize(
    ("remove", "relabel", "new", "code"),
    [
        (("s_nope",), {}, None, "unknown_sample"),
        (("s_n\u00f6pe",), {}, None, "unknown_sample"),
        ((), {"s_nope": "cat"}, None, "unknown_sample"),
        (tuple(f"cat/{n}.png" for n in range(4)), {}, None, "class_too_small"),
        (tuple(f"cat/{n}.png" for n in range(5)), {}, None, "one_class"),
        ((), {"cat/0.png": "lonely"}, None, "class_too_small"),
        ((), {}, {"1.png": draw(1)}, "base_mismatch"),
        ((), {}, {"m.jsonl": b'{"file": "1.png", "label": ["a"]}', "1.png": draw(1)}, "base_mismatch"),
    ],
)
def test_refused_changes(
    run: Run,
    store: FolderStore,
    child: FolderStore,
    remove: tuple[str, ...],
    relabel: dict[str, str],
    new: dict[str, bytes] | None,
    code: str,
) -> None:
    run(folders(5))
    ids = {path: row[0] for path, row in rows(store).items()}
    base = BaseDataset(
        "ds_parent",
        store.folder,
        tuple(ids.get(one, one) for one in remove),
        {ids.get(one, one): label for one, label in relabel.items()},
    )
    result = run(new, into=child, base=base)
    assert result.failure is not None
    assert result.failure[0] == code


def test_numbers_and_sets_are_relabelled(run: Run, store: FolderStore, tmp_path: Path) -> None:
    pictures = {f"{number}.png": draw(number) for number in range(8)}
    manifest = "file,label\n" + "".join(f"{number}.png,{number}\n" for number in range(8))
    run({**pictures, "m.csv": manifest.encode()}, task="regression")
    one = rows(store)["3.png"][0]
    child = FolderStore(tmp_path / "numbers")
    run(None, into=child, base=BaseDataset("ds_p", store.folder, (), {one: "2.5"}))
    assert rows(child)["3.png"][1] == "2.5"
    for text in ("tall", "inf", "nan", "1e999"):
        bad = run(None, into=FolderStore(tmp_path / "bad"), base=BaseDataset("ds_p", store.folder, (), {one: text}))
        assert bad.failure is not None
        assert bad.failure[0] == "relabel_invalid"
        assert repr(text) in bad.failure[1]

    sets = FolderStore(tmp_path / "sets")
    manifest = "file,label\n" + "".join(f"{number}.png,{'a|b' if number % 2 else 'b'}\n" for number in range(8))
    run({**pictures, "m.csv": manifest.encode()}, into=sets, task="multi_label")
    one = rows(sets)["2.png"][0]
    child = FolderStore(tmp_path / "sets-child")
    run(None, into=child, base=BaseDataset("ds_p", sets.folder, (), {one: "a"}))
    assert rows(child)["2.png"][1] == "a"
    assert rows(child)["3.png"][1] == "a|b"


@pytest.mark.parametrize("removed", ["test", "train"])
def test_what_is_removed_of_other_classes_fills_no_share(run: Run, tmp_path: Path, removed: str) -> None:
    """The new images of a class are split as if nothing had been removed of the others."""
    parent = FolderStore(tmp_path / "parent")
    run(folders(30, ("cat", "dog", "owl")), into=parent)
    gone = tuple(
        sample for sample, label, split in rows(parent).values() if split == removed and label in ("dog", "owl")
    )
    new = {f"new/cat/{number}.png": draw(6000 + number) for number in range(30)}
    splits = []
    for name, leave in (("whole", ()), ("less", gone)):
        child = FolderStore(tmp_path / name)
        run(new, into=child, base=BaseDataset("ds_parent", parent.folder, leave))
        splits.append({path: split for path, (_, _, split) in rows(child).items() if path.startswith("new/")})
    assert list(splits[1].values()).count("test") == 6
    assert sum(splits[0][path] != splits[1][path] for path in new) <= 2, "a few for the tenth of the whole"


def test_old_items_of_train_do_not_become_a_test_split(run: Run, store: FolderStore, child: FolderStore) -> None:
    run(folders(10))
    gone = tuple(sample for sample, _, split in rows(store).values() if split == "test")
    result = run(None, into=child, base=BaseDataset("ds_parent", store.folder, gone))
    assert result.splits == {"train": 14, "val": 2, "test": 0}
    assert "no_test_items" in {problem.code for problem in result.problems}


def test_old_items_stay_where_they_are_when_nothing_of_train_is_left(run: Run, tmp_path: Path) -> None:
    parent, child = FolderStore(tmp_path / "parent"), FolderStore(tmp_path / "child")
    run(folders(10), into=parent)
    gone = tuple(sample for sample, _, split in rows(parent).values() if split == "train")
    new = {
        f"new/{label}/{number}.png": draw(6000 + number + 100 * place)
        for place, label in enumerate(("cat", "dog"))
        for number in range(5)
    }
    run(new, into=child, base=BaseDataset("ds_parent", parent.folder, gone))
    old, found = rows(parent), rows(child)
    assert all(found[path][2] == split for path, (_, _, split) in old.items() if split != "train")
