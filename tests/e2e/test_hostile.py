"""Bad input cannot hurt: every kind of tests/hostile through one running service, with its worker.

Each is refused with a stable code, in a problem document or as the failure of a dataset; nothing in it is run, nothing
is written outside the home, nothing of it stays, memory and disk stay bounded, and the service answers as before.
"""

import html
import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import func, select

from app import abandoned
from app.db.models import Dataset, Model, ModelVersion, Problem
from app.db.session import Database
from app.storage import FolderStorage
from tests import factories
from tests.app import bundle_factories
from tests.checks import problem
from tests.conftest import wait_until
from tests.e2e.conftest import Service, serve
from tests.factories import files_below
from tests.hostile import archives, bundles, checkpoints, images

pytestmark = pytest.mark.server
# Of one process; what is refused here would take tens of gigabytes. Torch alone takes most of it.
MOST_BYTES = 2 * 2**30
# On disk at any moment, beside what was there before: 70 MB were seen, and bombs would take gigabytes.
MOST_DISK_BYTES = 256 * 2**20
# What only a look inside a bundle tells; tests/app/serving/test_admission.py has all of those.
INSIDE = ("a custom operator", "weights elsewhere", "weights that are no numbers", "a pickle", "a huge header")
BUNDLES = {**bundles.OUTSIDE, **{name: bundles.INSIDE[name] for name in INSIDE}}
VERSIONS, PREDICT = "/api/v1/models/taken/versions", "/api/v1/models/tiny/predict"
# The row of an upload says what it became.
TABLES = (Dataset, Problem, Model, ModelVersion)


class Peak:
    """The largest memory that any process of a service had, and the most that lay below a folder."""

    def __init__(self, top: int, place: Path) -> None:
        self._top, self._done, self.num_bytes, self.whose = psutil.Process(top), threading.Event(), 0, ""
        self._place, self.before_bytes, self.disk_bytes = place, on_disk(place), 0
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def stop(self) -> None:
        self._done.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._done.wait(0.2):
            self.disk_bytes = max(self.disk_bytes, on_disk(self._place))
            for process in self._top.children(recursive=True):
                try:
                    found = process.memory_info().rss
                    if found > self.num_bytes:
                        self.num_bytes, self.whose = found, " ".join(process.cmdline())
                except psutil.Error:
                    # It has just ended.
                    continue


def on_disk(place: Path) -> int:
    """Bytes that files below a folder take, of which some come and go meanwhile."""
    total = 0
    for folder, _, names in os.walk(place):
        for name in names:
            with suppress(FileNotFoundError):
                total += 512 * (Path(folder) / name).lstat().st_blocks
    return total


@dataclass
class Stack:
    """A service with one model, and what is there before anything bad comes."""

    service: Service
    place: Path
    database: Database
    canary: Path

    def kept(self) -> tuple[list[str], list[int]]:
        """Files and rows, but for what is kept for later jobs of any dataset: features and graphs."""
        shared = [f"{self.service.home}/storage/{name}/" for name in ("features", "graphs")]
        with self.database.read() as session:
            rows = [session.scalar(select(func.count()).select_from(table)) or 0 for table in TABLES]
        return [path for path in self.service.files() if not path.startswith(tuple(shared))], rows

    def outside(self) -> list[str]:
        """Files that are not in the home, but for what the service's own processes share."""
        found = files_below(self.place / "tmp", *(self.place / one for one in ("made", "prepared")))
        top = [str(path) for path in self.place.iterdir()]
        return sorted([*top, *(path for path in found if f"/{abandoned.SOCKET}" not in path)])

    def dataset(self, upload: bytes, **fields: Any) -> Any:
        form = {"name": "bad", **fields}
        return self.service.request("POST", "/api/v1/datasets", files={"file": ("data.zip", upload)}, data=form)

    def delete(self, dataset_id: str) -> None:
        assert self.service.request("DELETE", f"/api/v1/datasets/{dataset_id}").status_code == 204


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    place = tmp_path_factory.mktemp("hostile")
    home, temporary = place / "home", place / "tmp"
    temporary.mkdir()
    prepared = factories.prepared(place / "prepared")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(temporary))
        patch.setenv("AWS_SECRET_ACCESS_KEY", "nobody may see this")
        with serve(home, ["up"], standby="true", prepared=prepared) as service:
            database = Database(f"sqlite:///{home / 'graft.db'}")
            with database.write() as session:
                of = factories.model(session, "tiny", 0)
                bundle_factories.publish(session, FolderStorage(home / "storage"), place / "made", of, 1)
                of.last_version = 1
            found = Stack(service, place, database, temporary / "canary")
            before, outside, peak = found.kept(), found.outside(), Peak(service.process.pid, place)
            yield found
            peak.stop()
            wait_until(lambda: found.kept() == before, f"what was there before, {before}; found {found.kept()}")
            assert found.outside() == outside
            assert not found.canary.exists()
            assert peak.num_bytes < MOST_BYTES, peak.whose
            assert 0 < peak.disk_bytes - peak.before_bytes < MOST_DISK_BYTES
            assert "Traceback" not in service.log.read_text()
            database.dispose()


@pytest.fixture(autouse=True)
def unharmed(stack: Stack) -> Iterator[None]:
    yield
    assert stack.service.request("GET", "/livez").status_code == 200
    assert not stack.canary.exists()


@pytest.mark.parametrize("name", archives.SERVED)
def test_archive(stack: Stack, name: str) -> None:
    code, make = archives.REFUSED[name]
    before = stack.kept()
    answer = stack.dataset(archives.packed(make()))
    if answer.status_code == 202:
        client = stack.service.client
        dataset = client.wait_dataset(answer.json()["id"])
        assert (dataset["state"], dataset["failure"]["code"]) == ("invalid", code), dataset["failure"]
        assert code in {one["code"] for one in client.problems(dataset["id"]) if one["severity"] == "error"}
        stack.delete(dataset["id"])
    else:
        problem(answer, 400, code)
    wait_until(lambda: stack.kept() == before, f"nothing of it; found {stack.kept()} instead of {before}")


def test_archive_that_was_uploaded_before(stack: Stack, tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.zip"
    bomb.write_bytes(archives.packed(archives.REFUSED["a flat bomb"][1]()))
    upload = stack.service.client.upload(bomb)["id"]
    refused = stack.service.request("POST", VERSIONS, json={"upload_id": upload})
    problem(refused, 400, "bundle_unsafe")
    made = stack.service.client.dataset_of_upload(upload, "bad")
    dataset = stack.service.client.wait_dataset(made["id"])
    assert dataset["failure"]["code"] == "bomb"
    stack.delete(dataset["id"])


def test_images_of_a_dataset(stack: Stack) -> None:
    files = factories.pictures(3, {"cat": (220, 30, 30), "dog": (30, 40, 220)})
    paths = {name: f"cat/{place}.png" for place, name in enumerate(images.REFUSED, start=100)}
    files |= {path: images.REFUSED[name][1]() for name, path in paths.items()}
    files |= {f"dog/{place}.png": make() for place, make in enumerate(images.READ.values(), start=100)}
    dataset = stack.service.client.wait_dataset(stack.dataset(archives.deflated(files)).json()["id"])
    assert (dataset["state"], dataset["num_samples"]) == ("ready", 6 + len(images.READ)), dataset
    found = {one["path"]: one["code"] for one in stack.service.client.problems(dataset["id"]) if one["path"] in files}
    assert {name: found[path] for name, path in paths.items()} == {
        name: code for name, (code, _) in images.REFUSED.items()
    }
    stack.delete(dataset["id"])


@pytest.mark.parametrize("name", [*images.REFUSED, *images.READ])
def test_image_of_a_prediction(stack: Stack, name: str) -> None:
    code, make = images.REFUSED.get(name) or (None, images.READ[name])
    answer = stack.service.request("POST", PREDICT, content=make(), headers={"Content-Type": "image/png"})
    if code is None:
        assert answer.status_code == 200, answer.text
    else:
        assert problem(answer, 400, code)["index"] == 0


@pytest.fixture(scope="module")
def files(stack: Stack) -> dict[str, bytes]:
    """Of the bundle of the one model."""
    answer = stack.service.request("GET", "/api/v1/models/tiny/versions/1/bundle")
    return bundle_factories.read(answer.content)


@pytest.mark.parametrize("name", BUNDLES)
def test_bundle(stack: Stack, files: dict[str, bytes], name: str) -> None:
    make, code, words = BUNDLES[name]
    before = stack.kept()
    answer = stack.service.request("POST", VERSIONS, files={"file": ("b.zip", make(files))})
    assert words in problem(answer, 400, code)["detail"]
    assert stack.kept() == before


def test_checkpoint(stack: Stack) -> None:
    """The others meet their reader alone, in tests/worker/prepare/test_checkpoints.py: each child imports torch."""
    make, words = checkpoints.REFUSED["a pickle that runs"]
    form = {"name": "evil", "architecture": "timm/test_resnet"}
    sent = stack.service.request("POST", "/api/v1/backbones", files={"file": make(stack.canary)}, data=form)
    assert sent.status_code == 202, sent.text
    job = stack.service.client.wait_job(sent.json()["job_id"])
    assert (job["state"], job["failure"]["code"]) == ("failed", "weights_unavailable")
    assert words in job["failure"]["message"]
    own = stack.service.request("GET", "/api/v1/backbones/own/evil").json()
    assert (own["state"], own["failure"]) == ("invalid", job["failure"])


def named(num: int) -> bytes:
    """Classes whose names are markup, bytes of another encoding, and one that differs from another in case."""
    names = [bundles.MARKUP, "<title>&lt;'\"{{ 7 * 7 }}", "caf?", "Cat", "cat"]
    colours = [(220, 30, 30), (30, 200, 40), (30, 40, 220), (200, 200, 30), (30, 200, 200)]
    members = list(factories.pictures(num, dict(zip(names, colours, strict=True))).items())
    # As an old tool writes it: a byte of code page 437, and no word of UTF-8.
    return bundles.zipped([*members, members[0]]).replace(b"caf?/", b"caf\x82/")


def test_names_are_text_everywhere(stack: Stack) -> None:
    client = stack.service.client
    dataset = client.wait_dataset(stack.dataset(named(8)).json()["id"])
    assert dataset["state"] == "ready", dataset["failure"]
    assert {one["name"] for one in dataset["classes"]} >= {bundles.MARKUP, "caf\u00e9", "Cat", "cat"}
    found = {one["code"] for one in client.problems(dataset["id"])}
    assert found >= {"case_collision", "duplicate_name", "name_encoding"}
    started = client.start_transfer(
        dataset["id"], "named", backbone=factories.BACKBONE, recipe={"method": "linear_probe"}
    )
    job = client.wait_job(started["id"])
    assert job["state"] == "succeeded", job["failure"]
    page = stack.service.request("GET", f"/api/v1/jobs/{job['id']}/report", headers={"Accept": "text/html"})
    assert "sandbox" in page.headers["Content-Security-Policy"]
    assert bundles.MARKUP not in page.text
    assert html.escape(bundles.MARKUP) in page.text
    assert stack.service.request("DELETE", "/api/v1/models/named").status_code == 204
    stack.delete(dataset["id"])
