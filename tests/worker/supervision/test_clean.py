"""What a worker removes between jobs, on both databases."""

import os
import time
from dataclasses import replace
from datetime import timedelta

import numpy as np
from sqlalchemy import select

from app.db.base import now
from app.db.models import ModelVersion, UserBackbone
from app.db.waste import Waste
from app.errors import Unavailable
from app.services import attempts, logs
from app.serving.moments import Moments
from app.serving.parts import Parts
from app.serving.slots import DAY, TEN_MINUTES, Key, Span
from app.storage import FolderStorage
from tests import factories
from tests.conftest import wait_until
from worker.supervision import clean


def test_folders_of_killed_attempts_are_removed(context, home):
    with context.database.write() as session:
        living = factories.job(session).id
        attempts.claim(session, ["cpu"], "alive", 60)
        waiting = factories.job(session).id
        done = factories.job(session, state="succeeded").id
    kept = [f"{living}-1-ab_c", "upload-1", "other"]
    names = [*kept, f"{living}-0-abc", f"{waiting}-1-x", f"{done}-1-x", "job_gone-3-x"]
    for name in names:
        (home / "scratch" / name).mkdir(parents=True)
        (home / "scratch" / name / "file").write_text("x")
    clean.clean(context)
    assert sorted(path.name for path in (home / "scratch").iterdir()) == sorted(kept)


def test_uploads_that_nobody_writes_any_more_are_removed(context, home):
    scratch = home / "scratch"
    scratch.mkdir(parents=True)
    for name, hours in {"upload-old": 2, "upload-new": 0.5, "other": 2}.items():
        (scratch / name).write_text("x")
        at = time.time() - hours * 3600
        os.utime(scratch / name, (at, at))
    clean.clean(context)
    assert sorted(path.name for path in scratch.iterdir()) == ["other", "upload-new"]


def test_weights_of_users_go_from_a_worker_when_they_have_deleted_them(context, home):
    own = {"project_id": "default", "state": "ready", "document": {}}
    with context.database.write() as session:
        session.add(UserBackbone(id="bb_kept", name="user/kept", **own))
    for name in ("bb_kept", "bb_gone", "lite0"):
        (home / "backbones" / name).mkdir(parents=True)
        (home / "backbones" / name / "weights").write_bytes(b"x")
    clean.expire(context)
    assert sorted(path.name for path in (home / "backbones").iterdir()) == ["bb_kept", "lite0"]


def test_prediction_logs_that_are_over_are_removed(context, tmp_path):
    with context.database.write() as session:
        model = factories.model(session, "tiny", 0)
        logs.keep(session, model.project_id, "tiny", 1.0, keep_days=7, images=False)
    (tmp_path / "part").write_bytes(b"rows")
    top = f"predictions/{model.project_id}/{model.id}"
    days = {age: f"{top}/{(now() - timedelta(days=age)).date()}" for age in (0, 7, 8)}
    for folder in days.values():
        context.storage.put(f"{folder}/a.parquet", tmp_path / "part")
    context.stopping.set()
    clean.start(context).join(30)
    assert list(context.storage.list("predictions")) == [f"{days[age]}/a.parquet" for age in (7, 0)]


def test_sums_that_are_over_are_removed_and_those_of_past_days_joined(context, tmp_path):
    with context.database.write() as session:
        factories.model(session)
        version_id = session.scalars(select(ModelVersion.id)).one()
    parts, images = (
        Parts(context.storage, tmp_path),
        Moments.of(np.ones((3, 2), np.float32), np.ones((3, 1), np.float32)),
    )
    today = int(time.time()) // DAY * DAY
    for age in (0, 1, 2, 30, 31):
        for series in ("a", "b"):
            span = Span(today - age * DAY, TEN_MINUTES, series * 32, 3)
            for key in (version_id, "ver_gone"):
                parts.put(Key("default", key, None), span, images)
    for _ in range(2):
        clean.expire(context)
        found = parts.read(Key("default", version_id, None), 0, {})
        assert [(today - span.start) // DAY for span in found] == [30, 2, 1, 1, 0, 0]
        assert [moments.num_images for moments in found.values()] == [6, 6, 3, 3, 3, 3]
    assert not any("ver_gone" in name for name in context.storage.list("observed"))


def test_checkpoints_that_a_late_attempt_has_left_are_removed(context, tmp_path):
    with context.database.write() as session:
        states = ("succeeded", "failed", "cancelled", "running")
        ids = {state: factories.job(session, state=state).id for state in states}
    gone = factories.new_id("job")
    (tmp_path / "file").write_text("x")
    for job_id in (*ids.values(), gone):
        context.storage.put(f"checkpoints/default/{job_id}/run/1", tmp_path / "file")
    clean.expire(context)
    with context.database.read() as session:
        noted = {row.prefix.rpartition("/")[2] for row in session.scalars(select(Waste))}
    assert noted == {ids["succeeded"], ids["cancelled"], gone}


FOREIGN = [
    "predictions/readme.txt", "predictions/of-somebody/x.bin", "predictions/default/a/b/c/d.parquet",
    "checkpoints/readme.txt", "checkpoints/default/of-somebody/x.bin", "observed/readme.txt", "observed/2026-01-01/a",
    "uploads/readme.txt", "uploads/of-somebody/x.bin", "incoming/up_readme.txt", "incoming/default/up_to_you.txt",
]  # fmt: skip


def test_what_is_not_of_graft_is_left_alone_and_stops_nothing(context, tmp_path, caplog):
    (tmp_path / "x").write_text("x")
    # Inside a model's log, where only folders of days are looked at.
    inside = [f"predictions/default/{factories.new_id('mdl')}/{name}" for name in ("readme.txt", "notes/readme.txt")]
    for key in (*FOREIGN, *inside):
        context.storage.put(key, tmp_path / "x")
    ours = {
        "checkpoint": f"checkpoints/default/{factories.new_id('job')}/run/1",
        "log": f"predictions/default/{factories.new_id('mdl')}/2026-01-01/a.parquet",
        "upload": f"uploads/default/{factories.new_id('up')}/0",
        "whole upload": f"incoming/default/{factories.new_id('up')}",
    }
    for key in ours.values():
        context.storage.put(key, tmp_path / "x")
    clean.expire(context)
    with context.database.read() as session:
        noted = session.scalars(select(Waste.prefix)).all()
    assert noted == [ours["checkpoint"].removesuffix("/run/1")]
    rooms = ("predictions", "checkpoints", "observed", "uploads", "incoming")
    assert {key for room in rooms for key in context.storage.list(room)} == {*FOREIGN, *inside, ours["checkpoint"]}
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []


class Partly(FolderStorage):
    """A storage that does not give some of its objects."""

    def list(self, prefix):
        if prefix in ("predictions", "observed"):
            raise Unavailable("expected the object store to answer; found nothing; try again")
        return super().list(prefix)


def test_what_cannot_be_removed_keeps_nothing_else_from_it(context, home, tmp_path, caplog):
    (tmp_path / "x").write_text("x")
    context.storage.put(f"checkpoints/default/{factories.new_id('job')}/run/1", tmp_path / "x")
    context.storage.put(f"uploads/default/{factories.new_id('up')}/0", tmp_path / "x")
    clean.expire(replace(context, storage=Partly(home / "storage")))
    with context.database.read() as session:
        assert len(session.scalars(select(Waste)).all()) == 1
    assert list(context.storage.list("uploads")) == []
    said = [record.message.split()[0] for record in caplog.records if record.levelname == "ERROR"]
    assert said == ["expire_logs", "expire_sums"]


class Away(FolderStorage):
    """A storage that cannot be reached the first time."""

    reached = False

    def list(self, prefix):
        if not self.reached:
            self.reached = True
            raise Unavailable("expected the object store to answer; found nothing; try again")
        return super().list(prefix)


def test_cleaning_goes_on_when_storage_comes_back(context, home, tmp_path):
    (tmp_path / "x").write_text("x")
    context.storage.put("checkpoints/default/job_1/run/1", tmp_path / "x")
    away = Away(home / "storage")
    quick = context.settings.model_copy(update={"lease_seconds": 0.1})
    thread = clean.start(replace(context, storage=away, settings=quick))
    wait_until(lambda: away.reached, "a look at storage")
    with context.database.write() as session:
        session.add(Waste(prefix="checkpoints/default/job_1", project_id="default", due_at=now()))
    wait_until(lambda: not list(context.storage.list("checkpoints")), "what was given up to be deleted")
    context.stopping.set()
    thread.join(30)
    assert not thread.is_alive()
