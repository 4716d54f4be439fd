"""What a project may have at once."""

from datetime import date, timedelta

import pytest
from sqlalchemy import select

from app.artifact import bundle
from app.backbones import InputChanges
from app.db.base import new_id, now
from app.db.logs import PredictionLog
from app.db.models import ModelVersion
from app.db.waste import Waste
from app.errors import NotFound, TooMany
from app.inbox import open_inbox
from app.services import (
    collections,
    datasets,
    jobs,
    limits,
    logs,
    outcomes,
    own_backbones,
    publications,
    stored_bytes,
    uploads,
    waste,
)
from app.services.collector import Collector, carry_out
from app.services.limits import Limits
from app.services.own_backbones import Checkpoint
from app.services.receiving import Receiver
from app.services.upload_leases import Desk
from app.services.uploads import NewUpload
from app.states import JobState
from tests import factories

NEW = jobs.NewJob(kind="transfer", model_name="m")


def upload(session, size_bytes, name="ds_new", project="default"):
    new = datasets.NewDataset(name="a", archive="incoming/x", filename="a.zip", size_bytes=size_bytes)
    return datasets.create(session, project, name, new)


def test_jobs_that_wait_or_run_count_and_others_do_not(database):
    with database.write() as session:
        other = factories.project(session, "other")
        limits.put(session, "default", Limits(max_jobs=2))
        for state in ("succeeded", "failed", "cancelled"):
            ended = factories.job(session, state=state).id
        factories.job(session, state="running")
        waiting = jobs.create(session, "default", NEW)
        for ask in (lambda: jobs.create(session, "default", NEW), lambda: outcomes.retry(session, "default", ended)):
            with pytest.raises(TooMany) as caught:
                ask()
            assert (caught.value.code, caught.value.extra["retry_after_seconds"]) == ("too_many_jobs", 30)
        jobs.create(session, other, NEW)
        jobs.move(session, waiting, JobState.CANCELLED)
        jobs.create(session, "default", NEW)


def test_a_child_counts_with_its_base_from_the_request_on(database):
    with database.write() as session:
        limits.put(session, "default", Limits(max_bytes=1000))
        base = factories.dataset(session, size_bytes=400)
        child = datasets.NewDataset(name="a", archive=None, filename=None, base_id=base.id, remove=("x",))
        assert datasets.create(session, "default", "ds_child", child).size_bytes == 400
        with pytest.raises(TooMany, match="found 800, and 400 more to come"):
            datasets.create(session, "default", "ds_other", child)


def test_bytes_count_from_the_upload_on(database):
    with database.write() as session:
        limits.put(session, "default", Limits(max_bytes=1000))
        factories.dataset(session, size_bytes=500)
        factories.dataset(session, size_bytes=5000, project_id=factories.project(session, "other"))
        assert upload(session, 400).size_bytes == 400
        with pytest.raises(TooMany) as caught:
            upload(session, 101, "ds_more")
        assert caught.value.code == "too_many_bytes"
        upload(session, 100, "ds_fits")


def test_uploads_count_as_large_as_they_are_to_be_and_once(database, storage):
    inbox, keep = open_inbox(storage), timedelta(days=1)
    with database.write() as session:
        limits.put(session, "default", Limits(max_bytes=1000))
        factories.upload(session, received_bytes=300)
        half = factories.upload(session, size_bytes=500, received_bytes=100)
        with pytest.raises(TooMany) as caught:
            uploads.create(session, inbox, "default", NewUpload(size_bytes=201), 2**30, keep)
        assert caught.value.code == "too_many_bytes"
        uploads.create(session, inbox, "default", NewUpload(size_bytes=200), 2**30, keep)
        half.state = uploads.State.COMPLETE
        session.flush()
        # It is no longer an upload, and the dataset has its bytes.
        uploads.take(session, "default", half.id, "ds_new")
        assert upload(session, 500).size_bytes == 500
        with pytest.raises(TooMany):
            upload(session, 1, "ds_more")


def test_an_upload_that_predictions_are_made_of_counts_until_their_job_ends(database):
    with database.write() as session:
        limits.put(session, "default", Limits(max_bytes=1000))
        inputs = {"archive": "incoming/default/up_1", "archive_bytes": 5_000_000_000_000}
        factories.job(session, kind="predict", inputs={"request": {}})
        factories.job(session, kind="predict", inputs=inputs, project_id=factories.project(session, "other"))
        waiting = factories.job(session, kind="predict", inputs={**inputs, "archive_bytes": 600})
        assert stored_bytes.of_rows(session)["other"]["uploads"] == 5_000_000_000_000
        upload(session, 400)
        with pytest.raises(TooMany):
            upload(session, 1, "ds_more")
        jobs.move(session, waiting, JobState.CANCELLED)
        session.flush()
        upload(session, 600, "ds_more")


def test_an_upload_of_unknown_size_ends_at_the_limit(database, storage):
    desk = Desk(database, open_inbox(storage), timedelta(days=1), 2**30)
    with database.write() as session:
        limits.put(session, "default", Limits(max_bytes=1000))
        upload_id = factories.upload(session).id
    for data, fits in ((b"x" * 900, True), (b"x" * 101, False), (b"x" * 100, True)):
        with database.read() as session:
            here = uploads.get(session, "default", upload_id).received_bytes
        receiver = Receiver(desk, "default", upload_id, here).open()
        if fits:
            receiver.write(data)
            assert receiver.end().received_bytes == here + len(data)
        else:
            with pytest.raises(TooMany):
                receiver.write(data)
        receiver.close()
    with pytest.raises(TooMany):
        Receiver(desk, "default", upload_id, 1000, size_bytes=1001).open()


def test_limits_are_set_as_a_whole_and_taken_away(database):
    with database.write() as session:
        limits.put(session, "default", Limits(10, 1, 0.5))
        assert limits.every(session) == [("default", Limits(10, 1, 0.5))]
        limits.put(session, "default", Limits(max_jobs=3))
        assert limits.every(session) == [("default", Limits(None, 3, None))]
        with pytest.raises(NotFound):
            limits.put(session, "none", Limits())


SHA256 = "a" * 64


def own(key, size_bytes):
    return {"sha256": SHA256, "size_bytes": size_bytes, "key": key}


def checkpoint(size_bytes):
    return Checkpoint(f"incoming/default/{size_bytes}", size_bytes, InputChanges())


def test_versions_and_backbones_count_and_what_they_share_does_not(database):
    with database.write() as session:
        limits.put(session, "default", Limits(max_bytes=1000))
        files = {"head.onnx": own(None, 600), "backbone.onnx": own(factories.SHARED_GRAPH, 5000)}
        spec = {**factories.SPEC, "metrics": {}, "files": files}
        made = publications.NewVersion(new_id("ver"), "bundles/default/ver_a/imported", spec)
        row = publications.admit(session, "default", "colours", made, False, {"how": "imported"})
        assert row.size_bytes == 600
        architecture = "timm/tf_efficientnet_lite0"
        checked = own_backbones.add(session, "default", "mine", architecture, checkpoint(300))
        for ask in (
            lambda: upload(session, 101),
            lambda: own_backbones.add(session, "default", "more", architecture, checkpoint(101)),
            lambda: publications.admit(session, "default", "colours", made, False, {"how": "imported"}),
        ):
            with pytest.raises(TooMany) as caught:
                ask()
            assert (caught.value.code, caught.value.status) == ("too_many_bytes", 429)
        outcomes.clear(session, jobs.get(session, "default", checked.job_id), "internal", "a reason")
        assert stored_bytes.total(session, "default") == 600


def test_a_graph_that_imports_have_brought_counts_once_in_each_project(database):
    files = {"head.onnx": own(None, 100), "backbone.onnx": own(bundle.shared_key(SHA256), 500)}
    spec = {**factories.SPEC, "metrics": {}, "files": files}

    def admit(session, project):
        made = publications.NewVersion(new_id("ver"), f"bundles/{project}/{new_id('ver')}/imported", spec)
        return publications.admit(session, project, "colours", made, False, {"how": "imported"})

    with database.write() as session:
        limits.put(session, "default", Limits(max_bytes=800))
        other = factories.project(session, "other")
        first, second = admit(session, "default"), admit(session, "default")
        admit(session, other)
        assert stored_bytes.of_rows(session)["default"] == {"versions": 200, "graphs": 500}
        assert stored_bytes.of_rows(session)[other] == {"versions": 100, "graphs": 500}
        admit(session, "default")
        with pytest.raises(TooMany, match="found 800, and 100 more"):
            admit(session, "default")
        session.delete(first)
        assert stored_bytes.total(session, "default") == 700
        for version in session.scalars(select(ModelVersion).where(ModelVersion.project_id == "default")):
            session.delete(version)
        limits.put(session, "default", Limits(max_bytes=599))
        with pytest.raises(TooMany, match="found 0, and 600 more"):
            admit(session, "default")
        assert second.graph_key == bundle.shared_key(SHA256)


def test_what_is_reserved_counts_until_it_is_kept_or_given_back(database, storage):
    with database.write() as session:
        limits.put(session, "default", Limits(max_bytes=1000))
    waste.reserve(database, "incoming/default/a", 600)
    with pytest.raises(TooMany, match="found 600, and 401 more"):
        waste.reserve(database, "incoming/default/b", 401)
    # The same one anew: what it has is not asked for again.
    waste.reserve(database, "incoming/default/a", 1000)
    with pytest.raises(TooMany, match="found 1000, and 1 more"):
        waste.reserve(database, "incoming/default/a", 1001)
    with database.write() as session:
        waste.keep(session, "incoming/default/a")
        assert upload(session, 1000).size_bytes == 1000
        session.rollback()
    waste.give_back(database, storage, "incoming/default/a")
    waste.reserve(database, "incoming/default/b", 1000)


@pytest.mark.parametrize("digest", ["b" * 64, SHA256])
def test_whatever_weights_a_bundle_claims_its_graph_counts(digest):
    files = {"backbone.onnx": own(bundle.shared_key(SHA256), 500)}
    assert stored_bytes.brought({"files": files, "backbone": {"name": "timm/tiny", "digest": digest}}) is not None


def test_of_graphs_that_jobs_have_stored_those_of_own_backbones_count():
    files, digest = {"backbone.onnx": own(bundle.shared_key("b" * 64), 500)}, "b" * 64
    for name, counts in (("timm/tiny", False), ("user/mine", True)):
        spec = {**factories.SPEC, "files": files, "backbone": {"name": name, "digest": digest}}
        assert (stored_bytes.brought(spec) is not None) == counts


def test_a_log_counts_file_by_file_and_is_refused_in_a_full_project(database, storage, tmp_path):
    (tmp_path / "some").write_bytes(b"x" * 100)
    ledger = logs.Ledger(database, storage)
    with database.write() as session:
        model_id = factories.model(session).id
        limits.put(session, "default", Limits(max_bytes=250))
        session.add(PredictionLog(model_id=model_id, project_id="default", share=1.0, keep_days=1, images=False))

    def counted():
        with database.read() as session:
            return {name: size for name, size in stored_bytes.of_rows(session)["default"].items() if size}

    keys = [f"predictions/default/{model_id}/2026-01-0{day}/a.parquet" for day in (1, 2, 3)]
    for key in keys[:2]:
        assert ledger.reserve(key, 100)
        storage.put(key, tmp_path / "some")
    assert not ledger.reserve(keys[2], 100)
    assert counted() == {"uploads": 200}
    for key in keys[:2]:
        ledger.keep(key, model_id, 100)
    assert counted() == {"logs": 200}
    assert logs.expire(database, storage, date(2026, 1, 3)) == 1
    assert counted() == {"logs": 100}
    assert ledger.reserve(keys[2], 150)
    ledger.give_back(keys[2])
    assert counted() == {"logs": 100}
    # Of a process that was killed a sweep takes the rest.
    assert ledger.reserve(keys[2], 100)
    storage.put(keys[2], tmp_path / "some")
    with database.write() as session:
        session.query(Waste).update({Waste.due_at: now()})
    waste.sweep(database, storage)
    assert counted() == {"logs": 100}
    assert list(storage.list("predictions")) == [keys[1]]


def test_logs_and_features_count_from_the_collection_that_saw_them(database, storage, tmp_path):
    (tmp_path / "some").write_bytes(b"x" * 100)
    with database.write() as session:
        model = factories.model(session)
        version = session.scalars(select(ModelVersion)).one()
        version.size_bytes = 60
        session.add(PredictionLog(model_id=model.id, project_id="default", share=1.0, keep_days=1, images=False))
        dataset = factories.dataset(session, size_bytes=100)
        limits.put(session, "default", Limits(max_bytes=259))
        jobs.create(session, "default", NEW)
    for key in (
        f"predictions/default/{model.id}/2026-01-01/a.parquet",
        # More than its row tells: spec.json is no file of its own spec.
        f"{version.prefix}/head.onnx",
        f"datasets/default/{dataset.id}/shard",
        "graphs/" + "a" * 64,
    ):
        storage.put(key, tmp_path / "some")
    with database.write() as session:
        collection_id = collections.begin(session, removes=False)
    collector = Collector(database, storage, open_inbox(storage), tmp_path, now() - timedelta(hours=1), removes=False)
    carry_out(database, collector, collection_id)
    with database.write() as session:
        expected = {"datasets": 100, "versions": 60, "results": 40, "logs": 100}
        assert stored_bytes.every(session) == {"default": expected}
        with pytest.raises(TooMany) as caught:
            jobs.create(session, "default", NEW)
        assert caught.value.code == "too_many_bytes"
        limits.put(session, "default", Limits(max_bytes=300))
        jobs.create(session, "default", NEW)
        with pytest.raises(TooMany):
            upload(session, 1)
