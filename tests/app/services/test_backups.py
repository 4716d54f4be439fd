"""A back-up that cannot be put back whole leaves a database into which it can be."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from app.services import backups
from app.storage import FolderStorage


def test_a_restoration_that_is_cut_off_can_be_made_again(sqlite_template, tmp_path, monkeypatch):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "graft.db").write_bytes(sqlite_template.read_bytes())
    kept, storage = tmp_path / "kept", FolderStorage(tmp_path / "storage")
    backups.backup(f"sqlite:///{tmp_path}/home/graft.db", storage, kept)
    target = tmp_path / "restored.db"

    def half(source, place):
        data = Path(source).read_bytes()
        Path(place).write_bytes(data[: len(data) // 2])
        raise OSError("cut off")

    with monkeypatch.context() as cut:
        cut.setattr(shutil, "copyfile", half)
        with pytest.raises(OSError, match="cut off"):
            backups.restore(kept, f"sqlite:///{target}", storage)
    backups.restore(kept, f"sqlite:///{target}", storage)
    with closing(sqlite3.connect(target)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert database.execute("SELECT count(*) FROM alembic_version").fetchone() == (1,)
