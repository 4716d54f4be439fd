"""What lies in storage and no row names goes, and nothing else: in a folder and in an object store."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
from sqlalchemy import select

from app import cli
from app.artifact import bundle
from app.db.base import new_id, now
from app.db.collections import Collection
from app.db.logs import PredictionLog
from app.db.models import ModelVersion, UserBackbone
from app.db.studies import Ranking
from app.errors import Collected, Conflict, NotFound
from app.inbox import open_inbox
from app.services import collections, models, references, shared
from app.services.collector import Collector
from app.storage import DRAFTS, open_storage
from tests import factories

SHA256 = "ab" * 32
SPACE = "cd" * 20
# Nothing is written anew here: tests/worker/supervision/test_collect.py has chunks of which some rows go.
SCRATCH = Path("/nowhere")


@pytest.fixture
def store(database_kind, request, home):
    """A folder beside SQLite, an object store beside PostgreSQL."""
    url = f"file://{home}/storage" if database_kind == "sqlite" else request.getfixturevalue("s3_url")
    return open_storage(url, home / "cache")


@pytest.fixture
def put(tmp_path):
    source = tmp_path / "source"
    source.write_bytes(b"12345")

    def write(store, *keys):
        for key in keys:
            store.put(key, source)

    return write


def collect(database, store, *, before=None, removes=True, **options):
    """A pass that takes everything for old enough, unless told otherwise; and what it has told of."""
    told = []
    collector = Collector(
        database, store, open_inbox(store), SCRATCH, before or now() + timedelta(hours=1), removes=removes,
        told=lambda stored, what: told.append((what, stored.key)), **options,
    )  # fmt: skip
    return collector.run(), sorted(told)


def keys(store):
    return sorted(stored.key for stored in store.walk())


def named(session):
    """One key of every room that a row names."""
    dataset, other = factories.dataset(session), factories.dataset(session)
    waits = factories.job(session, kind="ingest", inputs={"archive": f"incoming/default/{dataset.id}"})
    checks = factories.job(session, kind="backbone", inputs={"file": f"incoming/other/{'0' * 32}"})
    asks = factories.job(session, kind="predict", inputs={"archive": f"incoming/default/{new_id('up')}"})
    runs = factories.job(session, state="running")
    # May be tried again; and one that may not, since its dataset is gone.
    failed = factories.job(session, state="failed", dataset_id=other.id)
    predicted = factories.job(session, kind="predict", state="succeeded")
    predicted.inputs = {"file": f"bundles/default/{predicted.id}/attempt-2/predictions.parquet"}
    upload = factories.upload(session)
    model = factories.model(session)
    version = session.scalars(select(ModelVersion)).one()
    version.spec = {**version.spec, "files": {bundle.BACKBONE: {"key": bundle.shared_key(SHA256)}}}
    imported = factories.version(session, model, 2, job_id=None)
    imported.prefix = f"bundles/default/{imported.id}/imported"
    fit = factories.job(session, kind="align", state="succeeded")
    moving = {"graph": {"key": bundle.shared_key("ef" * 32)}}
    factories.alignment(session, prefix=f"bundles/default/{fit.id}/attempt-1", moving_backbone=moving)
    session.add(PredictionLog(model_id=model.id, project_id="default", share=1.0, keep_days=1, images=False))
    study = Ranking(id=new_id("rnk"), project_id="default", state="ready", request={})
    session.add(study)
    own, checked = new_id("bb"), new_id("bb")
    for backbone_id, state in ((own, "ready"), (checked, "checking")):
        fields = {"id": backbone_id, "name": f"user/{state}", "state": state, "document": {}}
        session.add(UserBackbone(project_id="default", **fields))
    return [
        f"datasets/default/{dataset.id}/data/train-00000.parquet",
        waits.inputs["archive"], checks.inputs["file"], asks.inputs["archive"], f"incoming/default/{upload.id}",
        f"uploads/default/{upload.id}/tail-1",
        f"bundles/default/{runs.id}/attempt-1/head.onnx", f"checkpoints/default/{runs.id}/000000001.safetensors",
        f"checkpoints/default/{failed.id}/000000001.safetensors", predicted.inputs["file"],
        f"{version.prefix}/spec.json", f"{imported.prefix}/spec.json", f"bundles/default/{fit.id}/attempt-1/a.onnx",
        bundle.shared_key(SHA256), bundle.shared_key("ef" * 32),
        f"predictions/default/{model.id}/2026-11-27/a.parquet", f"studies/default/{study.id}/a.parquet",
        f"observed/default/{version.id}/plain/2026-11-27/whole.safetensors",
        f"backbones/default/{own}/record.json", f"backbones/default/{checked}/record.json",
    ]  # fmt: skip


def orphans(session):
    """Keys of the same rooms, whose rows are gone or never were; and other places of rows that are there."""
    gone = factories.job(session, state="failed")
    gone.inputs = {"deleted_dataset": "ds_1"}
    # Predictions of an upload, which is gone: nobody can try them again.
    unread = factories.job(session, kind="predict", state="failed")
    unread.inputs = {"archive": f"incoming/default/{new_id('up')}"}
    done = factories.job(session, state="succeeded")
    invalid = factories.dataset(session, state="invalid")
    model = factories.model(session, "silent")
    version = session.scalars(select(ModelVersion).where(ModelVersion.model_id == model.id)).one()
    other = version.prefix.replace("attempt-1", "attempt-2")
    return [
        f"datasets/default/{new_id('ds')}/index.parquet", f"datasets/default/{invalid.id}/index.parquet",
        f"incoming/default/{uuid4().hex}", f"incoming/default/{new_id('up')}", f"uploads/default/{new_id('up')}/tail",
        f"{other}/spec.json", f"bundles/default/{new_id('ver')}/added/spec.json",
        f"checkpoints/default/{gone.id}/1.safetensors", f"checkpoints/default/{done.id}/1.safetensors",
        unread.inputs["archive"], f"checkpoints/default/{unread.id}/predictions/1.parquet",
        f"predictions/default/{model.id}/2026-11-27/a.parquet", f"studies/default/{new_id('evl')}/a.parquet",
        f"observed/default/{new_id('ver')}/plain/2026-11-27/whole.safetensors",
        f"backbones/other/{new_id('bb')}/record.json", bundle.shared_key("34" * 32), "health/probe",
        f"features/default/{SPACE}/{uuid4().hex}.npy",
    ]  # fmt: skip


FOREIGN = ["readme.txt", "datasets/of-somebody-else/table.parquet", "graphs/tiny/backbone.onnx", "backups/graft.dump"]


def test_what_rows_name_stays_and_all_else_goes(database, store, put):
    with database.write() as session:
        kept, waste = named(session), orphans(session)
    assert {key.split("/")[0] for key in kept} | {"features", "health"} == references.ROOMS.keys()
    assert {key.split("/")[0] for key in waste} == references.ROOMS.keys()
    put(store, *kept, *waste, *FOREIGN)
    before = keys(store)

    shown, told = collect(database, store, removes=False)
    assert told == sorted(("orphan", key) for key in waste)
    assert keys(store) == before
    young, told = collect(database, store, before=now() - timedelta(hours=1))
    assert (told, young.young.objects, young.removed.objects) == ([], len(waste), 0)
    assert keys(store) == before

    report, told = collect(database, store)
    assert told == sorted(("orphan", key) for key in waste)
    assert keys(store) == sorted([*kept, *FOREIGN])
    assert report.is_whole
    assert report.seen.objects == len(before)
    assert (report.removed.objects, report.removed.size_bytes) == (len(waste), 5 * len(waste))
    assert report.freed_bytes == 5 * len(waste)
    assert report.foreign.objects == len(FOREIGN)
    assert shown.removed == report.removed
    again, told = collect(database, store)
    assert (told, again.removed.objects) == ([], 0)


def test_what_was_cut_off_goes_and_an_upload_in_parts_stays(database, store, put, home):
    put(store, "graphs/tiny/backbone.onnx")
    with database.write() as session:
        row = factories.upload(session)
        name = f"incoming/default/{row.id}"
        if hasattr(store, "client"):
            made = [store.client.create_multipart_upload(Bucket=store.bucket, Key=store.name(key))["UploadId"]
                    for key in (name, f"bundles/default/{new_id('job')}/attempt-1/head.onnx")]  # fmt: skip
            row.remote_id = made[0]
    if not hasattr(store, "client"):
        (home / "storage" / DRAFTS / "abc").write_bytes(b"half")
    report, told = collect(database, store)
    assert [what for what, _ in told] == ["unfinished"]
    assert report.removed.objects == 1
    left = [stored.key for stored in store.walk() if stored.unfinished]
    assert left == ([name] if hasattr(store, "client") else [])


def test_a_pass_ends_when_it_has_removed_enough_or_is_told_to(database, store, put):
    put(store, *(f"studies/default/{new_id('evl')}/a" for _ in range(3)))
    stopping = threading.Event()
    stopping.set()
    collector = Collector(database, store, open_inbox(store), SCRATCH, now() + timedelta(hours=1), removes=True)
    assert not collector.run(stopping).is_whole
    put(store, *(f"studies/default/{new_id('evl')}/a" for _ in range(3)))
    report, _ = collect(database, store, max_removed=1)
    assert not report.is_whole


def test_a_graph_is_neither_removed_under_a_version_nor_named_when_it_is_gone(database, store, put):
    """Many publish versions on one graph and delete them, while collections take it whenever nobody names it."""
    key = bundle.shared_key(SHA256)
    with database.write() as session:
        model = factories.model(session, num_versions=0)
    done, numbers, refused = threading.Event(), iter(range(1, 1000)), []

    def publish(rounds):
        for _ in range(rounds):
            # As a runner does it: what is there is not stored again, and named later.
            if store.stat(key) is None:
                put(store, key)
            try:
                with database.write() as session:
                    shared.keep(session, store, [key])
                    row = factories.version(session, model, next(numbers))
                    row.spec = {**row.spec, "files": {bundle.BACKBONE: {"key": key}}}
                with database.read() as session:
                    assert session.get(ModelVersion, row.id) is not None
                assert store.stat(key) is not None
                with database.write() as session:
                    session.delete(session.get_one(ModelVersion, row.id))
            except Collected as error:
                refused.append(error.extra["retry_after_seconds"])

    def sweep():
        # With a pause, in which others get SQLite's lock.
        while not done.wait(0.02):
            collect(database, store)

    with ThreadPoolExecutor(3) as threads:
        sweeping = threads.submit(sweep)
        try:
            for publishing in [threads.submit(publish, 10) for _ in range(2)]:
                publishing.result()
        finally:
            done.set()
        sweeping.result()
    # Nobody names it any more.
    collect(database, store)
    assert store.stat(key) is None


def test_what_a_check_has_stored_stays_when_it_is_tried_again_at_that_moment(database, store, put, monkeypatch):
    """Its rooms are the same at every try, and its row may name them again after a collection has looked."""
    with database.write() as session:
        fields = {"name": "user/mine", "state": "invalid", "document": {}}
        row = UserBackbone(id=new_id("bb"), project_id="default", **fields)
        session.add(row)
    put(store, f"backbones/default/{row.id}/record.json")
    looked = references.named

    def named(session, places):
        found = looked(session, places)
        monkeypatch.setattr(references, "named", looked)
        with database.write() as other:
            other.get_one(UserBackbone, row.id).state = "checking"
        return found

    monkeypatch.setattr(references, "named", named)
    _, told = collect(database, store)
    assert told == []
    assert store.stat(f"backbones/default/{row.id}/record.json") is not None


def test_features_stay_where_the_images_of_a_dataset_cannot_be_read(database, store, put):
    """Without the index of one dataset nobody knows whose they are."""
    with database.write() as session:
        factories.dataset(session)
    chunk = f"features/default/{SPACE}/{uuid4().hex}"
    put(store, f"{chunk}.keys", f"{chunk}.npy")
    _, told = collect(database, store)
    assert told == []


def test_one_collection_at_a_time(database):
    with database.write() as session:
        first = collections.begin(session, removes=True)
    with pytest.raises(Conflict, match="under way"), database.write() as session:
        collections.begin(session, removes=False)
    with database.write() as session:
        assert collections.begin_if_due(session, 0.0) is None
        session.get_one(Collection, first).seen_at = now() - timedelta(hours=1)
    with database.write() as session:
        # Its process was killed; but it is not yet time for the next.
        assert collections.begin_if_due(session, 3600.0) is None
        assert collections.begin_if_due(session, 0.0) is not None


def test_command_shows_and_removes(light, home, put, capsys, monkeypatch):
    monkeypatch.setenv("GRAFT_HOME", str(home))
    store = open_storage(light.resolved_storage_url, home / "cache")
    key = f"datasets/default/{new_id('ds')}/index.parquet"
    put(store, key)
    assert cli.main(["collect"]) == 0
    assert capsys.readouterr().out == ""
    assert cli.main(["collect", "--older-than", "0"]) == 0
    shown = capsys.readouterr()
    assert shown.out.split() == ["orphan", "5", key]
    assert "nothing was removed: run it with --remove" in shown.err
    assert store.stat(key) is not None
    assert cli.main(["collect", "--older-than", "0", "--remove", "--quiet"]) == 0
    shown = capsys.readouterr()
    assert shown.out == ""
    assert store.stat(key) is None
    with pytest.raises(NotFound):
        store.fetch(key)


def test_deleted_model_leaves_no_bytes(database, store, put):
    with database.write() as session:
        factories.model(session)
        version = session.scalars(select(ModelVersion)).one()
        prefix = version.prefix
    put(store, f"{prefix}/spec.json")
    with database.write() as session:
        waste = models.delete(session, "default", "colours")
    assert prefix in waste
    _, told = collect(database, store)
    assert told == [("orphan", f"{prefix}/spec.json")]


def test_digests_are_told_apart_by_their_first_64_bits():
    from app.services.feature_chunks import _short

    digests = np.array(["0123456789abcdef" + "0" * 48, "f" * 64, "0" * 64], "S64")
    assert _short(digests).tolist() == [0x0123456789ABCDEF, 2**64 - 1, 0]
