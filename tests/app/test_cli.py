"""The command line."""

import socket
import sys

import pytest
from sqlalchemy import inspect, text

from app import cli
from app.db.session import Database
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
