"""`graft migrate` of this release while the one before it answers: nobody is refused, nobody waits for long."""

import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text

from app.db import migration
from app.db.base import new_id
from app.db.session import Database
from tests import processes
from tests.conftest import wait_until
from tests.e2e.conftest import serve
from tests.processes import ROOT

pytestmark = pytest.mark.server

PARTS = ("app", "migrations")
# Only a broken migration needs so long.
SECONDS = 300
DATASET = "ds_" + "0" * 20
FILL = f"""
import sys
from app.db.models import Dataset
from app.db.session import Database
with Database(sys.argv[1]).write() as session:
    session.add(Dataset(
        id="{DATASET}", project_id="default", name="colours", task="classification", modality="image", state="ready",
        seed=0, digest="{"0" * 64}", num_samples=20, classes=[{{"name": "red", "num_samples": 20}}],
        splits={{"train": 14, "val": 2, "test": 4}},
    ))
"""
NEXT = """
import sqlalchemy as sa
from alembic import op

revision, down_revision, branch_labels, depends_on = "20991231_next", "{head}", None, None


def upgrade() -> None:
    op.create_table("later", sa.Column("id", sa.Integer(), primary_key=True))
    op.add_column("job", sa.Column("later", sa.Integer(), nullable=False, server_default="7"))
    op.create_index("ix_job_later", "job", ["later"])
"""


@pytest.fixture(scope="module")
def releases(tmp_path_factory):
    """The code before the newest migration came, and this code with one migration more; two folders.

    Not every migration alters a table, which is what waits for others: the one that is made up does. In a copy of the
    code without its history this code is the old one, too.
    """
    top = tmp_path_factory.mktemp("releases")
    found = ScriptDirectory(str(migration.ROOT)).get_revision("head")
    added = git("log", "-1", "--format=%H", "--diff-filter=A", "--", str(Path(found.path).relative_to(ROOT)))
    before = f"{added.decode().strip()}^" if added else "HEAD"
    copy_here(top / "new")
    later = top / "new" / "migrations" / "versions" / "20991231_next.py"
    later.write_text(NEXT.format(head=found.revision))
    if archive := git("archive", before, *PARTS):
        (top / "old").mkdir()
        subprocess.run(["tar", "-x", "-C", str(top / "old")], input=archive, check=True)
    else:
        copy_here(top / "old")
    return top / "old", top / "new"


def copy_here(folder):
    for part in PARTS:
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))


def git(*arguments):
    """What git says; nothing where there is no git, no repository, or not enough of its history."""
    if shutil.which("git") is None:
        return b""
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=False)
    return done.stdout if done.returncode == 0 else b""


class Load:
    """Clients that read and write all the time, and what they were answered."""

    def __init__(self, urls):
        self.urls = urls
        self.answers = []
        self._done = threading.Event()
        self._threads = ThreadPoolExecutor(len(ROUNDS))

    def __enter__(self):
        self._running = [self._threads.submit(self._go, function) for function in ROUNDS]
        return self

    def __exit__(self, *_):
        self._done.set()
        for future in self._running:
            future.result()
        self._threads.shutdown()

    def num_jobs(self):
        """How many were made so far."""
        return sum(what == "POST /jobs" and answer.status_code == 202 for what, answer in list(self.answers))

    def _go(self, function):
        number = 0
        with httpx.Client(trust_env=False, timeout=SECONDS) as http:
            while not self._done.is_set():
                url = self.urls[number % len(self.urls)]
                number += 1
                function(lambda *given, url=url, **body: self._ask(http, url, *given, **body))

    def _ask(self, http, url, method, path, **body):
        answer = http.request(method, f"{url}/api/v1{path}", **body)
        self.answers.append((f"{method} {path}", answer))
        return answer.json() if answer.status_code < 300 and answer.content else None


def read(ask):
    for path in ("/jobs", "/datasets", "/models", "/uploads"):
        ask("GET", path)
    ask("GET", f"/datasets/{DATASET}")


def post_jobs(ask):
    wish = {"dataset": DATASET, "recipe": {"method": "linear_probe"}, "model": "m"}
    made = ask("POST", "/jobs", json=wish, headers={"Idempotency-Key": new_id("key")})
    if made:
        ask("GET", f"/jobs/{made['id']}/events")
        ask("POST", f"/jobs/{made['id']}/cancel")


def send_uploads(ask):
    made = ask("POST", "/uploads", json={"size_bytes": 3, "filename": "a.zip"})
    if made:
        headers = {"Upload-Offset": "0", "Content-Type": "application/offset+octet-stream", "Tus-Resumable": "1.0.0"}
        ask("PATCH", f"/uploads/{made['id']}", content=b"abc", headers=headers)
        ask("DELETE", f"/uploads/{made['id']}")


ROUNDS = (read, post_jobs, send_uploads)


@contextmanager
def held(url):
    """Somebody looks at all tables and does not come to an end: what alters one waits, and whoever comes behind it."""
    database = Database(url)
    with database.engine.connect() as connection:
        for table in inspect(connection).get_table_names():
            connection.execute(text(f"SELECT count(*) FROM {table}"))
        yield
    database.dispose()


def test_upgrade_under_load(releases, empty_database_url, tmp_path):
    old, new = releases
    variables = processes.environment(tmp_path / "migrate", database_url=empty_database_url)
    log = tmp_path / "migrate.log"
    with processes.running(["migrate"], variables, log, old) as migrating:
        assert migrating.wait(SECONDS) == 0, log.read_text()
    subprocess.run([sys.executable, "-c", FILL, empty_database_url], cwd=old, check=True)
    shared = {"database_url": empty_database_url, "storage_url": f"file://{tmp_path}/storage"}
    with serve(tmp_path / "old", ["api"], missing=("worker",), root=old, **shared) as before:
        with Load([before.url]) as load:
            wait_until(lambda: load.num_jobs() > 2, "requests that are answered")
            with held(empty_database_url), processes.running(["migrate"], variables, log, new) as migrating:
                if empty_database_url.startswith("postgresql"):
                    # For as long as it is held nothing is altered, and requests do not stand behind who waits for it.
                    wait_until(lambda: "the database is in use, trying again" in log.read_text(), "a second try")
                    began = load.num_jobs()
                    wait_until(lambda: load.num_jobs() > began + 2, "jobs that are made meanwhile")
                else:
                    assert migrating.wait(SECONDS) == 0, log.read_text()
            with processes.running(["migrate"], variables, log, new) as migrating:
                assert migrating.wait(SECONDS) == 0, log.read_text()
            began = load.num_jobs()
            wait_until(lambda: load.num_jobs() > began + 2, "answers of the old code after the migration")
        check(load)
        # While the old processes are replaced, both answer, each what the other has made.
        with serve(tmp_path / "new", ["api"], missing=("worker",), root=new, **shared) as after:
            with Load([before.url, after.url]) as load:
                wait_until(lambda: load.num_jobs() > 4, "answers of both")
            check(load)
            made = after.client.start_transfer(DATASET, "m", recipe={"method": "linear_probe"})
            assert before.client.job(made["id"])["state"] == "queued"
            assert before.request("POST", f"/api/v1/jobs/{made['id']}/cancel").status_code == 200
            assert after.client.job(made["id"])["state"] == "cancelled"
    assert "Traceback" not in (tmp_path / "old.log").read_text()


def check(load):
    """Everybody was answered as ever, or told to come again."""
    bad = [
        (what, answer.status_code, answer.text[:300])
        for what, answer in load.answers
        if answer.status_code >= 400 and not (answer.status_code == 503 and "Retry-After" in answer.headers)
    ]
    assert bad == []
    assert sum(answer.status_code == 503 for _, answer in load.answers) < len(load.answers) / 2
