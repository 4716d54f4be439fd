"""The whole life of a project's data, on one machine and on several: every byte comes back, and a back-up serves.

The team has two APIs, two servers of predictions and two workers, each with a home of its own, as on hosts of their
own: what they have in common is a database, a broker and an object store. Each call goes to another one of its kind
than the one before.
"""

import hashlib
import json
import subprocess
import sys
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

import boto3
import pytest
from sqlalchemy import text
from starlette.testclient import TestClient

from app.client import ApiError, Client
from app.db.base import Base
from app.db.session import Database
from app.main import create_app
from app.settings import Settings
from app.storage import FolderStorage, Storage, open_storage
from tests import factories, processes
from tests.conftest import NUMBERS, wait_until
from tests.e2e.conftest import serve
from tests.factories import files_below
from tests.processes import ROOT

pytestmark = pytest.mark.server

HELD_OUT = list(factories.pictures(4, first=100).values())
RECIPE = {"method": "linear_probe"}
# Rows that are history: how jobs went, what uploads were used for. They name no bytes.
HISTORY = {"job", "job_event", "job_dataset", "report", "forecast", "upload", "idempotency_key", "worker", "collection"}


@dataclass
class Stack:
    """A running service of either kind.

    Args:
        apis: answer everything but predictions; on one machine also those.
        servers: answer predictions.
        variables: environment of `graft`, on a host of its own.
        homes: of all processes.
        logs: of all processes, by what they are.
    """

    apis: list[Client]
    servers: list[Client]
    variables: dict[str, str]
    database_url: str
    storage: Storage
    homes: list[Path]
    logs: dict[str, Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._turn, self._serving = cycle(self.apis), cycle(self.servers)

    @property
    def api(self) -> Client:
        """The next one."""
        return next(self._turn)

    @property
    def serving(self) -> Client:
        """The next one that answers predictions."""
        return next(self._serving)

    def graft(self, *arguments: str, **changed: str) -> str:
        """What a command says; it must work."""
        done = subprocess.run(
            [sys.executable, "-m", "app.cli", *arguments],
            cwd=ROOT, env={**self.variables, **changed}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def objects(self) -> dict[str, int]:
        """Sizes by key."""
        return {stored.key: stored.size_bytes for stored in self.storage.walk()}

    def rows(self) -> dict[str, int]:
        """Numbers of rows that may name bytes."""
        database = Database(self.database_url)
        names = Base.metadata.tables.keys() - HISTORY
        with database.read() as session:
            found = {name: session.scalar(text(f"SELECT count(*) FROM {name}")) for name in sorted(names)}
        database.dispose()
        return found


@pytest.fixture(params=["laptop", "team"])
def stack(request, tmp_path):
    prepared = factories.prepared(tmp_path / "prepared")
    # What is collected by itself, and when, is not what is asked here.
    common = {"prepared": prepared, "log_format": "json", "collect_seconds": 0, "collect_grace_seconds": 0}
    with ExitStack() as opened:
        yield (_laptop if request.param == "laptop" else _team)(request, tmp_path, opened, common)


def _laptop(request, folder, opened, common):
    service = opened.enter_context(serve(folder / "home", ["up"], **common))
    return Stack(
        [service.client], [service.client], processes.environment(service.home, **common),
        f"sqlite:///{service.home / 'graft.db'}", FolderStorage(service.home / "storage"), [service.home],
        {"all": service.log},
    )  # fmt: skip


def _team(request, folder, opened, common):
    request.getfixturevalue("s3_environment")
    cluster, url = request.getfixturevalue("postgres"), request.getfixturevalue("s3_url")
    name = f"team_{next(NUMBERS)}"
    cluster.run(f"CREATE DATABASE {name}")
    opened.callback(cluster.run, f"DROP DATABASE {name} WITH (FORCE)")
    shared = {
        **common, "database_url": cluster.url(name), "storage_url": url,
        "broker_url": request.getfixturevalue("redis_url"),
    }  # fmt: skip
    variables = processes.environment(folder / "operator", **shared)
    migrating = subprocess.run([sys.executable, "-m", "app.cli", "migrate"], cwd=ROOT, env=variables, check=False)
    assert migrating.returncode == 0
    apis = [
        opened.enter_context(serve(folder / f"api{number}", ["api"], missing=("worker",), **shared))
        for number in (1, 2)
    ]
    workers = [folder / "worker1", folder / "worker2"]
    logs = {"api1": apis[0].log, "api2": apis[1].log}
    for home in workers:
        home.mkdir()
        logs[home.name] = folder / f"{home.name}.log"
        working = processes.environment(home, worker_slots=1, **shared)
        opened.enter_context(processes.running(["worker"], working, logs[home.name]))
    servers = [opened.enter_context(serve(folder / f"serve{number}", ["serve"], **shared)) for number in (1, 2)]
    assert {one.request("GET", "/api/v1/jobs").status_code for one in servers} == {404}
    logs |= {one.home.name: one.log for one in servers}
    return Stack(
        [one.client for one in apis], [one.client for one in servers], variables, shared["database_url"],
        open_storage(url, folder / "looking"), [*(one.home for one in (*apis, *servers)), *workers], logs,
    )  # fmt: skip


def upload(stack, data, name, **fields):
    """In two parts and three steps, each at another API."""
    made = stack.api.call("POST", "/uploads", json={"size_bytes": len(data), "filename": "a.zip"})
    middle = len(data) // 2
    for first, part in ((0, data[:middle]), (middle, data[middle:])):
        stack.api.call("PATCH", f"/uploads/{made['id']}", content=part, headers={
            "Tus-Resumable": "1.0.0", "Upload-Offset": str(first), "Content-Type": "application/offset+octet-stream",
        })  # fmt: skip
    stack.api.call("POST", f"/uploads/{made['id']}/complete", json={"sha256": hashlib.sha256(data).hexdigest()})
    dataset = stack.api.call("POST", "/datasets", json={"upload_id": made["id"], "name": name, **fields})
    found = stack.api.wait_dataset(dataset["id"])
    assert found["state"] == "ready", found["failure"]
    return found["id"]


def succeeded(stack, job):
    found = stack.api.wait_job(job["id"])
    assert found["state"] == "succeeded", found["failure"]
    return found


def scores(answer):
    return [
        {one["label"]: pytest.approx(one["score"], abs=1e-6) for one in found["scores"]}
        for found in answer["predictions"]
    ]


def same(answer):
    return [{one["label"]: one["score"] for one in found["scores"]} for found in answer["predictions"]]


def test_whole_life(stack, request, tmp_path):
    wait_until(lambda: stack.api.missing() == [], "workers")
    objects, rows = stack.objects(), stack.rows()
    assert objects == {}
    made = live(stack, tmp_path)
    check_backup(stack, request, tmp_path, made["answers"])
    assert stack.rows() != rows
    assert sum(stack.objects().values()) > sum(objects.values())
    delete_all(stack, made)
    # What deletions leave are features and graphs, which may be many people's. Jobs tidy up behind their end.
    wait_until(lambda: {key.split("/")[0] for key in stack.objects()} == {"features", "graphs"}, "deletions")
    left = stack.objects().keys()
    assert stack.rows() == rows
    orphan = f"checkpoints/default/{made['job']['id']}/000000001.safetensors"
    (tmp_path / "orphan").write_bytes(b"x")
    stack.storage.put(orphan, tmp_path / "orphan")
    shown = {line.split()[-1] for line in stack.graft("collect").splitlines()}
    assert shown == left | {orphan}
    assert stack.objects().keys() == left | {orphan}
    stack.graft("collect", "--remove")
    assert stack.objects() == objects
    assert files_below(*(home / "scratch" for home in stack.homes)) == []
    check_lines(stack, made)


def live(stack, folder):
    """Everything that stores something; what is to be deleted afterwards."""
    plain = factories.pack(factories.pictures(12))
    base = upload(stack, plain, "colours")
    child = upload(stack, factories.pack(factories.pictures(2, first=50)), "more", base=base)
    job = succeeded(stack, stack.api.start_transfer(base, "colours", backbone=factories.BACKBONE, recipe=RECIPE))
    succeeded(stack, stack.api.start_transfer(child, "colours", backbone=factories.BACKBONE, recipe=RECIPE))
    # Of two versions the alias says which is meant, to whoever answers.
    for version in (1, 2, 1):
        stack.api.point_alias("colours", "production", version)
        for server in stack.servers:
            wait_until(
                lambda server=server, version=version: server.predict("colours", HELD_OUT)["version"] == version,
                "the alias",
            )
    asked = stack.api.evaluate(child, model="colours", version=1, against={"model": "colours", "version": 2})
    evaluation = stack.api.wait_evaluation(asked["id"])
    assert evaluation["state"] == "ready", evaluation["failure"]
    advice = stack.api.wait_advice(stack.api.advise(child, backbone=factories.BACKBONE)["id"])
    assert advice["state"] == "ready", advice["failure"]
    ranking = stack.api.wait_ranking(stack.api.rank_backbones(base, [factories.BACKBONE])["id"])
    assert ranking["state"] == "ready", ranking["failure"]
    alignment = stack.api.wait_alignment(
        stack.api.fit_alignment("z_score", base, factories.BACKBONE, target=child)["id"]
    )
    assert alignment["state"] == "ready", alignment["failure"]
    stack.api.bind_domain("colours", "here", alignment["id"])
    for server in stack.servers:
        wait_until(lambda server=server: _domain(server) == alignment["id"], "the domain")
    predicted = succeeded(stack, stack.api.predict_dataset(child, "colours"))
    stack.api.download_predictions(predicted["id"], folder / "predictions.parquet")
    stack.api.download_bundle("colours", 2, folder / "bundle.zip")
    stack.api.import_bundle("copy", folder / "bundle.zip")
    wanted = same(stack.serving.predict("colours", HELD_OUT, version=2))
    assert scores(stack.serving.predict("copy", HELD_OUT)) == wanted
    yellow = [factories.png((230, 220, 40), seed=number) for number in range(3)]
    assert stack.serving.add_class("copy", "yellow", yellow)["version"] == 2
    answers = {version: stack.serving.predict("colours", HELD_OUT, version=version) for version in (1, 2)}
    assert answers == {version: stack.serving.predict("colours", HELD_OUT, version=version) for version in (2, 1)}
    # The last of all, once: nothing is written later. By one server, which knows at once what it is to write.
    server = stack.serving
    server.set_log("colours", 1.0, images=True, keep_days=3)
    wait_until(lambda: server.log("colours")["share"] == 1.0, "the log")
    server.predict("colours", HELD_OUT)
    wait_until(lambda: stack.serving.log("colours")["days"], "a day of predictions")
    return {
        "datasets": [child, base], "models": ["colours", "copy"], "alignment": alignment["id"], "job": job,
        "studies": [f"evaluations/{evaluation['id']}", f"advice/{advice['id']}", f"rankings/{ranking['id']}"],
        "predicted": predicted["id"], "answers": answers,
    }  # fmt: skip


def _domain(server):
    try:
        return server.predict("colours", HELD_OUT, domain="here")["alignment"]
    except ApiError as error:
        if error.code != "unknown_domain":
            raise
        return None


def delete_all(stack, made):
    for name in made["models"]:
        stack.api.call("DELETE", f"/models/{name}")
    for place in (f"alignments/{made['alignment']}", *made["studies"], f"jobs/{made['predicted']}/predictions"):
        stack.api.call("DELETE", f"/{place}")
    for dataset in made["datasets"]:
        stack.api.call("DELETE", f"/datasets/{dataset}")


def lasting(objects):
    """Without what was observed, which comes and is thrown together by the clock."""
    return {key: size for key, size in objects.items() if not key.startswith("observed/")}


def check_backup(stack, request, folder, answers):
    """Into a fresh home, or a new database and bucket: predictions are the same."""
    bin_of_the_server(request, stack)
    assert int(stack.graft("backup", str(folder / "backup")).split()[0]) >= len(lasting(stack.objects()))
    # What came since, alone: nothing, but for what was observed of predictions, which is written a while after them.
    wait_until(lambda: stack.graft("backup", str(folder / "backup")).split()[0] == "0", "a backup of nothing new")
    home = folder / "restored"
    settings = Settings(home=home)
    if not isinstance(stack.storage, FolderStorage):
        cluster, name = request.getfixturevalue("postgres"), f"restored_{next(NUMBERS)}"
        cluster.run(f"CREATE DATABASE {name}")
        request.addfinalizer(lambda: cluster.run(f"DROP DATABASE {name} WITH (FORCE)"))
        bucket = f"restored-{next(NUMBERS)}"
        with closing(boto3.client("s3")) as client:
            client.create_bucket(Bucket=bucket)
        settings = Settings(home=home, database_url=cluster.url(name), storage_url=f"s3://{bucket}")
    changed = {
        "GRAFT_HOME": str(home), "GRAFT_DATABASE_URL": settings.database_url, "GRAFT_STORAGE_URL": settings.storage_url
    }  # fmt: skip
    stack.graft("restore", str(folder / "backup"), **changed)
    restored = open_storage(settings.resolved_storage_url, folder / "looking-too")
    assert lasting({stored.key: stored.size_bytes for stored in restored.walk()}) == lasting(stack.objects())
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as client:
        assert client.get("/api/v1/models/colours").json()["aliases"] == {"production": 1}
        for version, wanted in answers.items():
            files = [("file", (f"{place}.png", data)) for place, data in enumerate(HELD_OUT)]
            answer = client.post(f"/api/v1/models/colours/predict?version={version}", files=files)
            assert scores(answer.json()) == same(wanted)


def bin_of_the_server(request, stack):
    """pg_dump must be of the server's version."""
    if not isinstance(stack.storage, FolderStorage):
        folder = request.getfixturevalue("postgres").programs
        stack.variables["PATH"] = f"{folder}:{stack.variables['PATH']}"


def check_lines(stack, made):
    """Every line is an object; those of a job name it, its project and the request that asked for it."""
    lines = []
    for name, path in stack.logs.items():
        for line in path.read_text().splitlines():
            # What the manager and the command say on standard output before there is a log.
            if line.startswith(("graft:", "Graft listens")):
                continue
            lines.append({"of": name, **json.loads(line)})
    assert all(line.keys() >= {"at", "level", "logger", "message", "request_id", "project", "job_id"} for line in lines)
    of_job = [line for line in lines if line["job_id"] == made["job"]["id"]]
    assert {line["project"] for line in of_job} == {"default"}
    asked = {line["request_id"] for line in of_job if line["logger"] == "app.services.jobs"}
    working = {line["request_id"] for line in of_job if line["logger"] == "worker.supervision.supervisor"}
    assert len(asked) == 1
    assert asked == working
