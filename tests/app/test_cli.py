"""The command line."""

import socket
import sys

import pytest
from sqlalchemy import inspect, text

from app import cli, listen, starting
from app.db.keys import ApiKey
from app.db.session import Database
from app.services import keys
from app.settings import Settings
from tests.conftest import free_port


@pytest.fixture
def in_home(home, monkeypatch):
    monkeypatch.setenv("GRAFT_HOME", str(home))
    return home


def test_migrate_makes_home_and_tables(in_home):
    assert cli.main(["migrate"]) == 0
    database = Database(f"sqlite:///{in_home}/graft.db")
    assert "job" in inspect(database.engine).get_table_names()
    with database.read() as session:
        assert session.scalar(text("SELECT id FROM project")) == "default"
    database.dispose()
    assert cli.main(["migrate"]) == 0


@pytest.mark.parametrize("command", ["up", "api", "serve", "both"])
@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "graft.example", ""])
def test_it_listens_on_loopback_only(in_home, monkeypatch, capsys, command, host):
    monkeypatch.setenv("GRAFT_HOST", host)
    assert cli.main([command]) == 2
    found = capsys.readouterr().err
    assert f"GRAFT_HOST={host}" in found
    assert "loopback" in found
    assert not in_home.exists()


@pytest.mark.parametrize("command", ["up", "migrate"])
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"PORT": "abc"}, "GRAFT_PORT=abc: "),
        ({"PORT": "0x1", "POOL_BYTES": "much"}, "GRAFT_POOL_BYTES=much: "),
        ({"HOME": "/dev/null/graft"}, "as GRAFT_HOME; found /dev/null/graft: "),
        (
            {"DATABASE_URL": "postgresql+psycopg://me:secret@127.0.0.1:1/graft"},
            "answers at postgresql+psycopg://me:***@",
        ),
    ],
)
def test_what_keeps_it_from_starting_is_said_in_one_line(in_home, monkeypatch, capsys, command, settings, said):
    for name, value in settings.items():
        monkeypatch.setenv(f"GRAFT_{name}", value)
    assert cli.main([command]) == 2
    found = capsys.readouterr().err
    assert found.startswith("graft: expected ")
    assert said in found
    assert "secret" not in found


def test_a_home_has_one_manager(in_home, capsys):
    settings = Settings()
    starting.make_home(settings)
    with starting.only_manager(settings):
        assert cli.main(["up"]) == 2
    assert "found another one that runs there" in capsys.readouterr().err
    with starting.only_manager(settings):
        pass


@pytest.mark.parametrize("arguments", [[], ["dance"], ["up", "--fast"]])
def test_unknown_commands_are_refused(capsys, arguments):
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    assert "usage: graft" in capsys.readouterr().err


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert all(name in shown and summary in " ".join(shown.split()) for name, (_, summary) in cli.COMMANDS.items())


@pytest.mark.parametrize("command", ["up", "api", "serve", "both"])
def test_taken_port_is_said_at_once(in_home, monkeypatch, capsys, command):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setenv("GRAFT_PORT", str(port))
        assert cli.main([command]) == 2
    found = capsys.readouterr()
    assert found.err == f"graft: expected a free port; found {port} in use; set GRAFT_PORT to another one\n"
    assert found.out == ""
    assert not in_home.exists()


@pytest.mark.parametrize("command", ["up", "serve", "both"])
def test_taken_port_of_grpc_is_said_at_once(in_home, monkeypatch, capsys, command):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setenv("GRAFT_PORT", str(free_port()))
        monkeypatch.setenv("GRAFT_GRPC_PORT", str(port))
        assert cli.main([command]) == 2
    assert capsys.readouterr().err == (
        f"graft: expected a free port; found {port} in use; set GRAFT_GRPC_PORT to another one\n"
    )
    assert not in_home.exists()


def test_without_grpcio_its_port_cannot_be_asked_for(in_home, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "grpc", None)
    monkeypatch.setenv("GRAFT_PORT", str(free_port()))
    monkeypatch.setenv("GRAFT_GRPC_PORT", str(free_port()))
    assert cli.main(["serve"]) == 2
    assert "expected the package grpcio" in capsys.readouterr().err
    assert not in_home.exists()


def test_with_keys_it_listens_anywhere(capsys):
    assert listen.may_listen(Settings(host="0.0.0.0", port=free_port(), require_keys=True), ("api", "serve"))
    assert capsys.readouterr().err == ""


@pytest.fixture
def rows(light, monkeypatch):
    """All keys of the home, newest first."""
    monkeypatch.setenv("GRAFT_HOME", str(light.home))
    database = Database(light.resolved_database_url)

    def read():
        with database.read() as session:
            return session.query(ApiKey).order_by(ApiKey.id.desc()).all()

    yield read
    database.dispose()


def test_a_key_is_made_listed_and_revoked(rows, capsys):
    given = ["--project", "team", "--name", "ci", "--scopes", "predict,read", "--expires-days", "3"]
    assert cli.main(["keys", "create", *given]) == 0
    shown = capsys.readouterr()
    secret, (row,) = shown.out.strip(), rows()
    assert keys.digest(secret) == row.digest
    assert (row.project_id, row.name, row.scopes) == ("team", "ci", ["read", "predict"])
    assert 2.9 < (row.expires_at - row.created_at).total_seconds() / 86_400 < 3.1
    assert secret not in shown.err
    assert cli.main(["keys", "list", "--project", "team"]) == 0
    listed = capsys.readouterr().out
    assert all(part in listed for part in (row.id, row.prefix, "read,predict", "never", "expires"))
    assert secret not in listed
    assert cli.main(["keys", "list"]) == 0
    assert row.id not in capsys.readouterr().out
    assert cli.main(["keys", "revoke", row.id]) == 2
    assert "expected a key of this project" in capsys.readouterr().err
    assert cli.main(["keys", "revoke", row.id, "--project", "team"]) == 0
    assert rows()[0].revoked_at is not None
    assert cli.main(["keys", "list", "--project", "team"]) == 0
    assert "revoked" in capsys.readouterr().out


def test_the_first_key_is_made_once(rows, capsys):
    for _ in range(2):
        assert cli.main(["keys", "create", "--first"]) == 0
    assert len(capsys.readouterr().out.split()) == len(rows()) == 1
    assert rows()[0].scopes == list(keys.SCOPES)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--scopes", "root"], "expected --scopes of read"),
        (["--scopes", ","], "expected --scopes of read"),
        (["--expires-days", "0"], "expected --expires-days from 1 to"),
        (["--project", "Team A"], "expected a project's name"),
    ],
)
def test_a_key_that_makes_no_sense_is_refused(rows, capsys, given, words):
    assert cli.main(["keys", "create", *given]) == 2
    shown = capsys.readouterr()
    assert (words in shown.err, shown.out, rows()) == (True, "", [])


def test_keys_need_a_database(in_home, capsys):
    for found in ("unable to open database file", "no such table: project"):
        assert cli.main(["keys", "create"]) == 2
        assert f"expected a migrated database; found: {found}; run `graft migrate`" in capsys.readouterr().err
        in_home.mkdir(exist_ok=True)


def test_projects_need_tables(empty_database_url, in_home, monkeypatch, capsys):
    in_home.mkdir()
    monkeypatch.setenv("GRAFT_DATABASE_URL", empty_database_url)
    assert cli.main(["projects", "list"]) == 2
    said = capsys.readouterr().err
    assert "expected a migrated database; found: " in said
    assert "run `graft migrate`" in said


@pytest.mark.parametrize("command", [["keys", "create"], ["keys", "list"], ["projects", "list"]])
def test_a_database_that_is_away_is_not_one_to_migrate(in_home, monkeypatch, capsys, command):
    monkeypatch.setenv("GRAFT_DATABASE_URL", f"postgresql+psycopg://graft:secret@127.0.0.1:{free_port()}/graft")
    assert cli.main(command) == 2
    said = capsys.readouterr().err
    assert "onnection refused" in said
    assert "GRAFT_DATABASE_URL" in said
    assert "migrate" not in said
    assert "secret" not in said


def test_projects_are_limited(rows, capsys):
    assert cli.main(["projects", "limit", "default", "--max-jobs", "5", "--max-requests", "0.5"]) == 0
    assert cli.main(["projects", "list"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["default", "-", "5", "0.5", "-", "0"]
    assert cli.main(["projects", "limit", "default", "--max-gpu-seconds", "3600"]) == 0
    assert cli.main(["projects", "list"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["default", "-", "-", "-", "3600", "0"]
    assert cli.main(["projects", "limit", "none"]) == 2
    assert "found none named 'none'" in capsys.readouterr().err
    for wrong in (["--max-jobs", "0"], ["--max-bytes", "-1"], ["--max-bytes", "10MB"], ["--max-bytes", "9" * 19],
                  ["--max-requests", "0"], ["--max-requests", "nan"], ["--max-requests", "ten"]):  # fmt: skip
        with pytest.raises(SystemExit):
            cli.main(["projects", "limit", "default", *wrong])
        assert f"; found {wrong[1]!r}; leave it out for no limit" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", ["abc", "", "-1", "nan", "inf", "1e9"])
def test_collect_says_what_an_age_is(wrong, capsys):
    with pytest.raises(SystemExit):
        cli.main(["collect", f"--older-than={wrong}"])
    said = f"expected seconds, a number from 0 and below a billion; found {wrong!r}; leave it out for GRAFT_"
    assert said in capsys.readouterr().err
