"""The process that opens uploads: bounded, with nothing of ours, and believed in nothing that it cannot show."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.artifact import decoding
from tests.hostile import archives
from worker.data.limits import Limits
from worker.data.opening import Found, Opener
from worker.data.problems import Problems, Rejected
from worker.data.spool import Spool

from .conftest import draw, pack

GOOD = pack({"cat/0.png": draw(0), "cat/1.png": draw(1)})
READY = "print('[\"ready\"]', flush=True)\n"


class Opened:
    """One upload, and what was found in it."""

    def __init__(self, spool: Spool, folder: Path) -> None:
        self.spool, self._folder, self.problems = spool, folder, Problems()

    def opener(
        self, upload: bytes, limits: Limits | None = None, code: str | None = None, ready: str = READY
    ) -> Opener:
        path = self._folder / "upload"
        path.write_bytes(upload)
        command = {} if code is None else {"command": (sys.executable, "-c", ready + code)}
        return Opener(
            path, "upload.zip", "auto", None, self.spool, limits or Limits(), self.problems, self._folder, **command
        )

    def read(
        self, upload: bytes, limits: Limits | None = None, code: str | None = None, ready: str = READY
    ) -> list[object]:
        with self.opener(upload, limits, code, ready) as opener:
            return list(opener.messages())


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    with Spool(tmp_path / "spool") as spool:
        yield Opened(spool, tmp_path)


def test_members_are_told_in_order_and_lie_in_the_spool(opened: Opened) -> None:
    kind, *found = opened.read(GOOD)
    assert kind == "zip"
    assert all(isinstance(one, Found) for one in found)
    told = [(one.what, one.path, opened.spool.read(one.stored.offset, one.stored.length)) for one in found]  # type: ignore[attr-defined]
    assert told == [("image", f"cat/{number}.png", draw(number)) for number in range(2)]


def test_the_child_finds_nothing_of_ours(opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAFT_DATABASE_URL", "postgresql://graft:secret@db/graft")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    code = 'import time; print(\'["kind", "zip"]\', flush=True); time.sleep(60)'
    with opened.opener(GOOD, Limits(open_memory_bytes=2**29), code=code) as opener:
        # Its imports are done: no file of Python's own is open any more.
        assert next(opener.messages()) == "zip"
        place = Path(f"/proc/{opener.process.pid}")
        environment = (place / "environ").read_bytes()
        files = {str(one.readlink()) for one in (place / "fd").iterdir() if int(one.name) != 2}
    assert b"secret" not in environment
    assert {name for name in files if not name.startswith("pipe:")} <= {"/dev/null", str(tmp_path / "spool")}


def test_memory_is_bounded(opened: Opened) -> None:
    upload = archives.packed(archives.parquet_repeats(32, 2**26))
    with pytest.raises(Rejected):
        opened.read(upload, Limits(open_memory_bytes=2**30, max_ratio=10**9))
    assert [problem.code for problem in opened.problems] == ["bomb"]
    assert "MB of memory to open it" in opened.problems.failure[1]  # type: ignore[index]


def test_time_is_bounded(opened: Opened) -> None:
    with pytest.raises(Rejected):
        opened.read(archives.crowded(400_000), Limits(open_seconds=1, open_memory_bytes=2**32))
    assert [problem.code for problem in opened.problems] == ["opening_failed"]


@pytest.mark.parametrize(
    "code",
    [
        "import os; os.abort()",
        "raise SystemExit(3)",
        "print('hello')",
        "print('{}')",
        "print('[' * 100_000)",
        "print('x' * 10_000_000)",
        "print('[\"rejected\"]')",
        'print(\'["problem", "nothing_like_it", "", {}]\')',
        'print(\'["problem", "bomb", "", {"other": 1}]\')',
        f'print(\'["image", 0.5, "cat/0.png", 0, 10, "{"0" * 64}"]\')',
        f'print(\'["image", 0.5, "cat/0.png", -1, 0, "{"0" * 64}"]\')',
        'print(\'["image", 0.5, "cat/0.png", 0, 0, "00"]\')',
        f'print(\'["row", 0.5, "cat/0.png", 0, 0, "{"0" * 64}"]\')',
        f'print(\'["row", 0.5, "cat/0.png", 0, 0, "{"0" * 64}", {"[" * 900}{"]" * 900}, 0]\')',
    ],
)
def test_a_child_that_was_taken_over_is_not_believed(opened: Opened, code: str) -> None:
    with pytest.raises(Rejected):
        opened.read(GOOD, code=code)
    assert [problem.code for problem in opened.problems] == ["opening_failed"]


def test_a_child_that_cannot_start_is_our_failure(opened: Opened) -> None:
    with pytest.raises(RuntimeError, match="expected the opening process to start; found exit status 3"):
        opened.read(GOOD, code="raise SystemExit(3)", ready="")


def test_a_full_disk_is_told(opened: Opened) -> None:
    with pytest.raises(OSError, match="No space"):
        opened.read(GOOD, code='import os\nprint(\'["errno", 28, "No space left on device"]\')')
    assert list(opened.problems) == []


def test_the_limit_on_pixels_is_the_one_of_all_images() -> None:
    assert Limits().max_pixels == decoding.MAX_PIXELS


def test_opening_a_zip_imports_little() -> None:
    import subprocess

    heavy = ("numpy", "pyarrow", "PIL", "torch")
    code = f"import sys, worker.data.opening_child; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"[]\n"
