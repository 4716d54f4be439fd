"""The migrations make what the models say, on both databases."""

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text

from app.db import migration
from app.db.base import Base, now
from app.db.models import Dataset, JobEvent, Model, ModelVersion, Project
from app.db.session import Database
from app.services import stored_bytes
from app.states import DatasetState
from tests import factories

ROOT = Path(__file__).parents[3]
HEAD = ScriptDirectory(str(migration.ROOT)).get_current_head()
REBUILD = f"""
import sqlalchemy as sa
from alembic import op

revision, down_revision, branch_labels, depends_on = "20991231_rebuild", "{HEAD}", None, None


def upgrade() -> None:
    with op.batch_alter_table("job", recreate="always" if op.get_bind().dialect.name == "sqlite" else "auto") as batch:
        batch.add_column(sa.Column("extra", sa.Integer(), nullable=False, server_default="7"))
"""


@pytest.fixture
def empty(empty_database_url):
    found = Database(empty_database_url)
    yield found
    found.dispose()


def tables(database):
    return set(inspect(database.engine).get_table_names()) - {"alembic_version"}


def test_upgrade_makes_every_table_and_the_default_project(empty, empty_database_url):
    migration.upgrade(empty_database_url)
    assert tables(empty) == set(Base.metadata.tables)
    with empty.read() as session:
        assert [row.id for row in session.query(Project)] == ["default"]


def test_models_and_migrations_do_not_differ(empty, empty_database_url):
    migration.upgrade(empty_database_url)
    command.check(migration.config(empty))


def test_every_table_but_those_of_the_service_has_a_project(database):
    without = {
        name
        for name in Base.metadata.tables
        if "project_id" not in {column["name"] for column in inspect(database.engine).get_columns(name)}
    }
    assert without == {"project", "worker", "collection"}


def test_second_upgrade_changes_nothing(empty, empty_database_url):
    migration.upgrade(empty_database_url)
    with empty.write() as session:
        session.add(Project(id="mine"))
    migration.upgrade(empty_database_url)
    with empty.read() as session:
        assert {row.id for row in session.query(Project)} == {"default", "mine"}


def test_down_to_nothing_and_up_again(empty, empty_database_url):
    migration.upgrade(empty_database_url)
    command.downgrade(migration.config(empty), "base")
    assert tables(empty) == set()
    migration.upgrade(empty_database_url)
    command.check(migration.config(empty))


def test_step_by_step_down_and_up(empty, empty_database_url):
    migration.upgrade(empty_database_url)
    settings = migration.config(empty)
    with empty.read() as session:
        newest = session.scalar(text("SELECT version_num FROM alembic_version"))
    command.downgrade(settings, "-1")
    command.upgrade(settings, "+1")
    with empty.read() as session:
        assert session.scalar(text("SELECT version_num FROM alembic_version")) == newest
    command.check(settings)


def test_datasets_that_came_to_nothing_count_no_more(empty, empty_database_url):
    migration.upgrade(empty_database_url)
    command.downgrade(migration.config(empty), "20261130_stored_bytes")
    with empty.write() as session:
        for state in DatasetState:
            factories.dataset(session, name=state, state=state, size_bytes=7)
    migration.upgrade(empty_database_url)
    with empty.read() as session:
        found = {row.name: row.size_bytes for row in session.query(Dataset)}
    assert found == {"ingesting": 7, "ready": 7, "invalid": 0}


def test_graphs_that_imports_have_brought_count_from_the_upgrade_on(empty, empty_database_url):
    migration.upgrade(empty_database_url)
    command.downgrade(migration.config(empty), "20261130_invalid_sizes")
    theirs, weights = "graphs/aa/backbone.onnx", "graphs/bb/backbone.onnx"
    graphs = {"brought": (theirs, "timm/x"), "shared": (weights, "timm/x"), "mine": (weights, "user/x"),
              "alone": (None, "timm/x"), "none": (..., "timm/x")}  # fmt: skip
    with empty.write() as session:
        session.add(Model(id="m", project_id="default", name="m", last_version=4))
        session.flush()
        for number, (name, (key, backbone)) in enumerate(graphs.items(), start=1):
            files = {} if key is ... else {"backbone.onnx": {"key": key, "size_bytes": 70, "sha256": "aa"}}
            spec = json.dumps({**factories.SPEC, "files": files, "backbone": {"name": backbone, "digest": "bb"}})
            session.execute(
                text(
                    "INSERT INTO model_version (id, project_id, model_id, version, prefix, spec, metrics, created_at)"
                    " VALUES (:id, 'default', 'm', :number, '', :spec, '{}', :at)"
                ),
                {"id": name, "number": number, "spec": spec, "at": now()},
            )
    migration.upgrade(empty_database_url)
    with empty.read() as session:
        found = {row.id: (row.graph_key, row.graph_bytes) for row in session.query(ModelVersion)}
        assert found == {**dict.fromkeys(graphs, (None, 0)), "brought": (theirs, 70), "mine": (weights, 70)}
        assert stored_bytes.of_rows(session)["default"]["graphs"] == 140


@pytest.mark.server
def test_processes_that_migrate_at_once(empty, empty_database_url):
    code = "import sys; from app.db import migration; sys.stdin.readline(); migration.upgrade(sys.argv[1])"
    starters = [
        subprocess.Popen(
            [sys.executable, "-c", code, empty_database_url], cwd=ROOT, stdin=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(3)
    ]
    for starter in starters:
        starter.stdin.write(b"go\n")
        starter.stdin.flush()
    ends = [(starter.communicate(timeout=60)[1].decode(), starter.returncode) for starter in starters]
    assert [code for _, code in ends] == [0, 0, 0], ends
    assert tables(empty) == set(Base.metadata.tables)
    with empty.read() as session:
        assert [row.id for row in session.query(Project)] == ["default"]


def test_rebuilding_a_table_keeps_the_rows_that_refer_to_it(light, tmp_path):
    """What a later migration of SQLite will do: ON DELETE CASCADE must not fire when a table is rebuilt."""
    database = Database(light.resolved_database_url)
    with database.write() as session:
        job_id = factories.job(session).id
    script = tmp_path / "migrations"
    shutil.copytree(migration.ROOT, script)
    (script / "versions" / "20991231_rebuild.py").write_text(REBUILD)
    settings = migration.config(database)
    settings.set_main_option("script_location", str(script))
    command.upgrade(settings, "head")
    with database.write() as session:
        assert session.scalar(text("SELECT extra FROM job")) == 7
        assert [event.job_id for event in session.query(JobEvent)] == [job_id]
        session.execute(text("DELETE FROM job"))
        # The application's own connections still enforce what the tables say.
        assert session.query(JobEvent).all() == []
    database.dispose()


def test_migration_that_fails_changes_nothing(empty, empty_database_url, tmp_path):
    migration.upgrade(empty_database_url)
    script = tmp_path / "migrations"
    shutil.copytree(migration.ROOT, script)
    (script / "versions" / "20991231_rebuild.py").write_text(REBUILD + "    raise RuntimeError('in mid-way')\n")
    settings = migration.config(empty)
    settings.set_main_option("script_location", str(script))
    with pytest.raises(RuntimeError, match="in mid-way"):
        command.upgrade(settings, "head")
    command.check(migration.config(empty))


def test_refused_row_leaves_nothing(database):
    def fails():
        with database.write() as session:
            session.add(Project(id="mine"))
            session.flush()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()
    with database.read() as session:
        assert [row.id for row in session.query(Project)] == ["default"]


# Newer migrations follow docs/decisions/0033: the release before them goes on working.
FIRST_RELEASE = "20261128_uploads"
# What takes something away, or refuses what the release before writes.
CONTRACTING = {"drop_table", "drop_column", "rename_table", "alter_column", "create_unique_constraint",
               "create_check_constraint", "create_foreign_key"}  # fmt: skip


def expansions():
    script = ScriptDirectory(str(migration.ROOT))
    return [script.get_revision(HEAD), *script.iterate_revisions(HEAD, FIRST_RELEASE)]


@pytest.mark.parametrize("revision", expansions(), ids=lambda one: one.revision)
def test_the_release_before_a_migration_goes_on_working(revision):
    assert problems_for_the_release_before(Path(revision.path).read_text()) == []


def test_what_would_break_the_release_before_is_found():
    body = "    op.drop_column('job', 'seed')\n    op.add_column('job', sa.Column('a', sa.Integer(), nullable=False))\n"
    source = f'"""Changes.\n"""\n\ndef upgrade():\n{body}\ndef downgrade():\n    op.drop_table("a")\n'
    assert problems_for_the_release_before(source) == ["drop_column", "add_column without a default"]
    assert problems_for_the_release_before(source.replace("Changes.", "Contract: nothing reads it since 2.")) == []


def problems_for_the_release_before(source):
    """Calls in `upgrade` that are no expansion. A file that takes away what two releases no longer use says so."""
    tree = ast.parse(source)
    if "Contract:" in (ast.get_docstring(tree) or ""):
        return []
    (upgrade,) = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "upgrade"]
    calls = [node for node in ast.walk(upgrade) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
    found = [call.func.attr for call in calls if call.func.attr in CONTRACTING]
    for call in calls:
        text = ast.unparse(call)
        if call.func.attr == "add_column" and "nullable=False" in text and "server_default" not in text:
            found.append("add_column without a default")
    return found
