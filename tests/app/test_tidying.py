"""What nobody needs goes while a process answers, also what another one had when it was killed."""

import os

from app import tidying
from app.settings import Settings
from tests.conftest import wait_until


def test_it_goes_while_the_process_lives_whatever_cannot_be_removed(home, monkeypatch, caplog):
    old = [home / "cache" / "ab" / "cdef", home / "scratch" / "upload-1"]
    for path in old:
        path.parent.mkdir(parents=True)
    looks = []

    def first_look_fails(cache):
        looks.append(cache)
        if len(looks) == 1:
            raise PermissionError("of somebody else")
        return copies(cache)

    copies = tidying.remove_old_copies
    monkeypatch.setattr(tidying, "remove_old_copies", first_look_fails)
    found = tidying.Tidying(Settings(home=home), period_seconds=0.01)
    found.start()
    wait_until(lambda: len(looks) > 1, "a second look")
    for path in old:
        path.write_bytes(b"x")
        os.utime(path, (0, 0))
    wait_until(lambda: not any(path.exists() for path in old), "both to go")
    found.close()
    assert "of somebody else" in caplog.text
