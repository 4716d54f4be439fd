"""What becomes of an upload: used up once by what is made of it, or removed with every byte."""

import hashlib
import shutil
import threading
from datetime import timedelta

import httpx
import pytest

from app.db.base import now
from app.db.models import Job
from app.errors import Gone, Locked
from app.services import upload_sweep, uploads
from app.services.receiving import Receiver
from app.services.upload_leases import Lease
from app.settings import Settings
from tests import factories, listening
from tests.app import bundle_factories
from tests.app.uploads.conftest import DATA, TUS, Service, desk
from tests.checks import problem
from tests.conftest import SMALL_DISK_BYTES
from tests.factories import files_below

ARCHIVE = factories.pack(factories.pictures(2))


def make(service, **fields):
    return service.http.post("/api/v1/datasets", json={"name": "pets", **fields})


def sweep(service):
    return upload_sweep.run(service.state.database, service.state.storage, service.state.inbox)


def forget(service, upload_id):
    """Its time is over, and the sweep has come by."""
    service.change(upload_id, lambda row: setattr(row, "expires_at", now() - timedelta(seconds=1)))
    sweep(service)
    problem(service.request("GET", f"/{upload_id}"), 404, "not_found")


def test_a_dataset_uses_an_upload_up(service):
    upload_id = service.whole(ARCHIVE, "bilder.zip")
    made = make(service, upload_id=upload_id, seed=3)
    assert (made.status_code, made.json()["state"], made.json()["seed"]) == (202, "ingesting", 3)
    with service.state.database.read() as session:
        inputs = session.get_one(Job, made.json()["job_id"]).inputs
    assert (inputs["archive"], inputs["filename"]) == (f"incoming/default/{upload_id}", "bilder.zip")
    assert service.state.storage.fetch(inputs["archive"]).read_bytes() == ARCHIVE
    found = service.request("GET", f"/{upload_id}").json()
    assert (found["state"], found["used_by"]) == ("used", made.json()["id"])
    problem(make(service, upload_id=upload_id), 409, "upload_used")
    problem(service.request("DELETE", f"/{upload_id}"), 409, "upload_used")
    assert service.complete(upload_id, found["sha256"]).json() == found
    # Its job owns the bytes, however long it waits,
    service.change(upload_id, lambda row: setattr(row, "expires_at", now() - timedelta(seconds=1)))
    sweep(service)
    problem(service.request("GET", f"/{upload_id}"), 404, "not_found")
    assert f"incoming/default/{upload_id}" in service.stored()
    # and takes them along when it ends.
    assert service.http.post(f"/api/v1/jobs/{made.json()['job_id']}/cancel").status_code == 200
    assert f"incoming/default/{upload_id}" not in service.stored()


def test_a_form_may_name_an_upload_too(service):
    upload_id = service.whole(ARCHIVE)
    form = {"name": (None, "pets"), "upload_id": (None, upload_id)}
    both = {**form, "file": ("a.zip", ARCHIVE)}
    problem(service.http.post("/api/v1/datasets", files=both), 400, "file_missing")
    assert service.http.post("/api/v1/datasets", files=form).status_code == 202


def test_of_many_datasets_one_gets_it(service):
    upload_id, found = service.whole(ARCHIVE), []
    threads = [
        threading.Thread(target=lambda: found.append(make(service, upload_id=upload_id).status_code)) for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [202, 409, 409, 409, 409]


def test_the_same_request_again_gets_the_same_dataset(service):
    upload_id = service.whole(ARCHIVE)
    body, key = {"name": "pets", "upload_id": upload_id}, {"Idempotency-Key": upload_id}
    first = service.http.post("/api/v1/datasets", json=body, headers=key)
    again = service.http.post("/api/v1/datasets", json=body, headers=key)
    assert (again.status_code, again.json()) == (202, first.json())
    # The answer is kept for longer than the row of an upload that was used.
    forget(service, upload_id)
    again = service.http.post("/api/v1/datasets", json=body, headers=key)
    assert (again.status_code, again.json()) == (202, first.json())
    other = service.http.post("/api/v1/datasets", json={**body, "name": "cats"}, headers=key)
    problem(other, 422, "idempotency_mismatch")
    problem(make(service, upload_id=upload_id), 404, "not_found")


def test_a_refusal_leaves_the_upload_to_be_used(service):
    upload_id = service.whole(ARCHIVE)
    problem(make(service, upload_id=upload_id, task="poetry"), 400, "unsupported_task")
    problem(make(service, upload_id=upload_id, base="ds_none"), 404, "not_found")
    assert make(service, upload_id=upload_id).status_code == 202
    text = service.whole(b"no archive at all")
    assert "zip" in problem(make(service, upload_id=text), 400, "not_an_archive")["detail"]
    assert service.request("GET", f"/{text}").json()["state"] == "complete"
    half = service.begin(10)
    for made_of in (half, service.whole(b"")):
        expected = (409, "upload_incomplete") if made_of == half else (400, "not_an_archive")
        problem(make(service, upload_id=made_of), *expected)
    problem(make(service, upload_id="up_none"), 404, "not_found")
    with service.state.database.write() as session:
        other = uploads.create(
            session, service.state.inbox, factories.project(session, "other"), uploads.NewUpload(), 10, timedelta(1)
        ).id
    problem(make(service, upload_id=other), 404, "not_found")
    problem(service.patch(other, 0, b"x"), 404, "not_found")


def test_weights_that_are_much_too_large_are_refused_unopened(service):
    """A check takes memory by its file: no worker is sent into one that cannot be of that architecture."""
    upload_id = service.whole(b"weights")
    service.change(upload_id, lambda row: setattr(row, "received_bytes", 10**9))
    wish = {"name": f"own-{upload_id}", "architecture": "torchvision/resnet18", "upload_id": upload_id}
    detail = problem(service.http.post("/api/v1/backbones", json=wish), 400, "weights_too_large")["detail"]
    assert "found 1000000000 bytes for torchvision/resnet18" in detail
    assert f"user/{wish['name']}" not in {job["backbone"] for job in service.http.get("/api/v1/jobs").json()["data"]}
    # The upload is there still: its architecture may have been a slip.
    larger = service.http.post("/api/v1/backbones", json={**wish, "architecture": "timm/vit_giant_patch14_dinov2"})
    assert larger.status_code == 202


def test_a_backbone_and_a_version_from_uploads(service, tmp_path):
    upload_id = service.whole(b"weights", "mine.safetensors")
    wish = {"name": f"own-{upload_id}", "architecture": "timm/tf_efficientnet_lite0", "upload_id": upload_id}
    problem(service.http.post("/api/v1/backbones", json={**wish, "architecture": "none"}), 404, "unknown_backbone")
    made = service.http.post("/api/v1/backbones", json=wish)
    assert (made.status_code, made.json()["state"]) == (202, "checking")
    problem(service.http.post("/api/v1/backbones", json={**wish, "name": "other"}), 409, "upload_used")
    with service.state.database.write() as session:
        of = factories.model(session, "tiny", 0)
        bundle_factories.publish(session, service.state.storage, tmp_path / "made", of, 1)
    bundle = service.http.get("/api/v1/models/tiny/versions/1/bundle").content
    broken, whole = service.whole(b"none"), service.whole(bundle)
    url = "/api/v1/models/copy/versions"
    problem(service.http.post(url, json={"upload_id": broken}), 400, "not_an_archive")
    for turn in range(3):
        made = service.http.post(url, json={"upload_id": whole}, headers={"Idempotency-Key": whole})
        assert (made.status_code, made.json()["version"]) == (201, 1), made.text
        if turn == 1:
            problem(service.http.post(url, json={"upload_id": whole}), 409, "upload_used")
            forget(service, whole)
    assert made.json()["origin"]["bundle_sha256"] == hashlib.sha256(bundle).hexdigest()
    assert f"incoming/default/{whole}" not in service.stored()
    problem(service.http.post(url, json={"upload_id": whole}), 404, "not_found")


def test_what_nobody_goes_on_with_is_removed(service):
    sweep(service)
    before = service.stored()
    live, half, whole = service.begin(10), service.begin(), service.whole(ARCHIVE)
    service.patch(half, 0, DATA[:-1])
    service.patch(live, 0, b"abc")
    gone = "up_00000000000000000000"
    for key in (f"uploads/default/{gone}", f"incoming/default/{gone}"):
        source = service.state.settings.scratch / "stray"
        source.parent.mkdir(exist_ok=True)
        source.write_bytes(b"left by a process that was killed")
        service.state.storage.put(key, source)
        source.unlink()
    for upload_id in (half, whole):
        service.change(upload_id, lambda row: setattr(row, "expires_at", now() - timedelta(seconds=1)))
        problem(service.request("GET", f"/{upload_id}"), 410, "upload_gone")
        problem(service.patch(upload_id, 0, b"x"), 410, "upload_gone")
    problem(make(service, upload_id=whole), 410, "upload_gone")
    assert sweep(service) == 4
    for upload_id in (half, whole):
        problem(service.request("GET", f"/{upload_id}"), 404, "not_found")
    assert sweep(service) == 0
    assert service.offset(live) == 3
    assert [key for key in service.stored() if key not in before and live not in key] == []
    service.request("DELETE", f"/{live}")


def test_bytes_that_were_not_noted_are_sent_again(service):
    """A process that is killed has written more than the row says."""
    upload_id = service.begin()
    killed = Receiver(desk(service), "default", upload_id, 0).open()
    killed.write(b"x" * 9_000_000)
    service.change(upload_id, lambda row: setattr(row, "writer", None))
    assert service.offset(upload_id) == 0
    killed._sink.close()
    assert service.patch(upload_id, 0, DATA).status_code == 204
    assert service.complete(upload_id).status_code == 200


def test_assembly_that_was_not_noted_is_no_loss(service):
    """Killed between the object store's answer and the row."""
    upload_id = service.begin(len(DATA))
    assert service.patch(upload_id, 0, DATA[:-1]).status_code == 204
    receiver = Receiver(desk(service), "default", upload_id, len(DATA) - 1).open()
    receiver.write(DATA[-1:])
    receiver.keep()
    receiver.close()
    writer = Lease(desk(service), "default", upload_id)
    held = uploads.held(writer.take(lambda _session, _row: None))
    with service.state.database.read() as session:
        parts = uploads.parts(session, upload_id)
    service.state.inbox.assemble(held, parts, writer)
    writer.release()
    assert service.request("GET", f"/{upload_id}").json()["state"] == "receiving"
    assert service.complete(upload_id).json()["state"] == "complete"


def test_bytes_that_are_lost_are_said_to_be(service):
    upload_id = service.begin(100)
    service.patch(upload_id, 0, b"abc")
    service.state.storage.delete(f"uploads/default/{upload_id}")
    problem(service.patch(upload_id, 3, b"def"), 410, "upload_gone")


def test_a_frozen_writer_cannot_write_beside_its_successor(service):
    upload_id = service.begin()
    frozen = Receiver(desk(service), "default", upload_id, 0).open()
    frozen.write(DATA[:1000])
    service.change(upload_id, lambda row: setattr(row, "writer_expires_at", now() - timedelta(seconds=1)))
    answer = service.patch(upload_id, 0, DATA)
    if answer.status_code == 423:
        # In a folder the file itself is locked; it is free once the frozen one sees what has happened.
        frozen.close()
        answer = service.patch(upload_id, 0, DATA)
    else:
        with pytest.raises((Locked, Gone)):
            frozen.write(b"y" * 9_000_000)
        frozen.close()
    assert answer.status_code == 204
    assert service.complete(upload_id).status_code == 200


def test_full_disk(small_disk, tmp_path, sqlite_template):
    home = tmp_path / "home"
    home.mkdir()
    shutil.copyfile(sqlite_template, home / "graft.db")
    settings = Settings(home=home, storage_url=f"file://{small_disk}")
    with listening.application(settings) as (url, state), httpx.Client(base_url=url, trust_env=False) as http:
        service = Service(url, state, http)
        upload_id = service.begin(None)
        too_much = DATA[: SMALL_DISK_BYTES + 2**20]
        problem(service.patch(upload_id, 0, too_much), 507, "insufficient_storage")
        here = service.offset(upload_id)
        assert sum((small_disk / key).stat().st_size for key in files_below(small_disk)) <= here
        rest = DATA[here : here + 2**20]
        service.request("DELETE", f"/{upload_id}")
        assert files_below(small_disk) == []
        again = service.begin(len(rest))
        assert service.patch(again, 0, rest).status_code == 204
        assert service.complete(again, hashlib.sha256(rest).hexdigest()).status_code == 200


def test_an_upload_that_cannot_fit_is_not_begun(tmp_path, sqlite_template):
    home = tmp_path / "home"
    home.mkdir()
    shutil.copyfile(sqlite_template, home / "graft.db")
    room = shutil.disk_usage(home).free
    with listening.application(Settings(home=home, max_upload_bytes=2**60)) as (url, _):
        headers = {**TUS, "Upload-Length": str(room * 2)}
        refused = httpx.post(f"{url}/api/v1/uploads", headers=headers, trust_env=False)
        problem(refused, 507, "insufficient_storage")
        assert httpx.get(f"{url}/api/v1/uploads", trust_env=False).json()["data"] == []
