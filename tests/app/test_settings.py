"""Settings from the environment."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from app.settings import Settings


def test_defaults_stay_in_the_home(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    found = Settings()
    assert found.home_path == tmp_path / ".graft"
    assert found.resolved_database_url == f"sqlite:///{tmp_path}/.graft/graft.db"
    assert found.resolved_storage_url == f"file://{tmp_path}/.graft/storage"
    assert found.broker_folder == tmp_path / ".graft" / "broker"
    assert (found.host, found.port) == ("127.0.0.1", 8000)
    assert list(tmp_path.iterdir()) == []


def test_environment_is_read(monkeypatch):
    values = {
        "HOME": "~/graft", "PORT": "9000", "ALLOWED_HOSTS": '["a.example"]', "DATABASE_URL": "postgresql+psycopg:///x",
        "WORKER_QUEUES": '["gpu"]', "LEASE_SECONDS": "1.5", "OFFLINE": "true", "COMPUTE_THREADS": "3",
    }  # fmt: skip
    for name, value in values.items():
        monkeypatch.setenv(f"GRAFT_{name}", value)
    found = Settings()
    assert found.home_path == Path("~/graft").expanduser().resolve()
    assert (found.port, found.allowed_hosts, found.worker_queues) == (9000, ("a.example",), ("gpu",))
    assert found.resolved_database_url == "postgresql+psycopg:///x"
    assert (found.lease_seconds, found.offline, found.num_compute_threads) == (1.5, True, 3)


def test_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        Settings().port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "70000"), ("PORT", "x"), ("DEVICE", "tpu"), ("LEASE_SECONDS", "0"), ("WORKER_SLOTS", "0"),
        ("MAX_ATTEMPTS", "0"), ("LOG_LEVEL", "LOUD"), ("DATABASE_URL", "foo"), ("DATABASE_URL", "mysql://a/b"),
        ("BROKER_URL", "nonsense://x"), ("STORAGE_URL", "ftp://x"), ("STORAGE_URL", "s3://"),
    ],
)  # fmt: skip
def test_values_out_of_bounds_are_refused(monkeypatch, name, value):
    monkeypatch.setenv(f"GRAFT_{name}", value)
    with pytest.raises(ValidationError, match=name.lower()):
        Settings()


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_postgresql_has_one_driver_whatever_it_is_called(monkeypatch, scheme):
    monkeypatch.setenv("GRAFT_DATABASE_URL", f"{scheme}://me:secret@db/graft")
    assert Settings().resolved_database_url == "postgresql+psycopg://me:secret@db/graft"


def test_levels_may_be_written_small(monkeypatch):
    monkeypatch.setenv("GRAFT_LOG_LEVEL", "warning")
    assert Settings().log_level == "WARNING"


def test_threads_by_default_are_the_cores():
    assert Settings().num_compute_threads == Settings().cores >= 1


def test_a_network_that_is_none_is_refused(monkeypatch):
    monkeypatch.setenv("GRAFT_WEBHOOK_ALLOWED", '["10.0.0.0/8", "bot.internal:8080"]')
    assert Settings().webhook_allowed == ("10.0.0.0/8", "bot.internal:8080")
    monkeypatch.setenv("GRAFT_WEBHOOK_ALLOWED", '["10.0.0.1/8"]')
    with pytest.raises(ValidationError, match="has host bits set"):
        Settings()


@pytest.mark.parametrize("name", ["GRAFT_IMAGE_HOSTS", "GRAFT_WEBHOOK_ALLOWED"])
def test_an_address_of_ipv6_without_brackets_is_refused(monkeypatch, name):
    monkeypatch.setenv(name, '["[::1]:9000", "fd00::/8"]')
    Settings()
    monkeypatch.setenv(name, '["::1:9000"]')
    with pytest.raises(ValidationError, match="write the brackets"):
        Settings()
