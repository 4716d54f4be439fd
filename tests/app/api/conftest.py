"""What tests of several routes begin with."""

import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from app.main import create_app
from app.settings import Settings
from tests import factories


@pytest.fixture(scope="module")
def shared_client(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """The application on a database of its own."""
    home = tmp_path_factory.mktemp("shared")
    (home / "graft.db").write_bytes(sqlite_template.read_bytes())
    with TestClient(create_app(Settings(home=home)), base_url="http://127.0.0.1") as found:
        yield found


@pytest.fixture
def fill_disk(monkeypatch):
    """Once called, the system's two ways of copying a file behave as they do on a full disk."""

    def fails(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    def fill():
        monkeypatch.setattr("os.link", fails)
        monkeypatch.setattr(shutil, "copyfile", fails)

    return fill


@pytest.fixture
def dataset_id(database):
    """A dataset that is ready."""
    with database.write() as session:
        return factories.dataset(session).id
