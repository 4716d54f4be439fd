"""Files that killed processes were writing are found, and those of living ones left alone."""

import subprocess
import sys

from app import abandoned, in_use
from app.settings import Settings
from app.storage import DRAFTS

PLACES = (
    "scratch/upload-1",
    "scratch/bundle-1/file",
    "backbones/.own-1/bb_1/weights",
    f"cache/{DRAFTS}/tmp1",
    f"storage/{DRAFTS}/tmp1",
    "broker/messages/.1.part",
)
OTHERS = (
    "scratch/job_1-1-x/file",
    "backbones/bb_1/weights",
    "storage/datasets/default/ds_1/index",
    "broker/messages/1_x.cpu.msg",
)


def test_only_what_has_a_temporary_name_and_is_old_goes(home):
    for place in (*PLACES, *OTHERS):
        (home / place).parent.mkdir(parents=True, exist_ok=True)
        (home / place).write_bytes(b"x")
    settings = Settings(home=home)
    assert abandoned.remove(settings, temporary=home) == 0
    assert abandoned.remove(settings, seconds=0.0, temporary=home) == len(PLACES)
    left = sorted(path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file())
    assert left == sorted(OTHERS)


def test_folders_of_processes_go_when_these_have_gone(home):
    """However long nobody has touched them."""
    theirs, ours = (home / f"scratch/board-{one}" for one in ("theirs", "ours"))
    socket, strangers = (home / f"tmp/pymp-{one}" for one in ("x", "y"))
    for folder in (theirs, ours, socket, strangers):
        folder.mkdir(parents=True)
        (folder / "file").write_bytes(b"x")
    marking = (
        "import sys; from pathlib import Path; from app import in_use; [in_use.mark(Path(one)) for one in sys.argv[1:]]"
    )
    program = [sys.executable, "-c", f"{marking}; print(flush=True); input()", theirs, socket]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        in_use.mark(ours)
        assert abandoned.remove(Settings(home=home), 0.0, home / "tmp") == 0
        process.kill()
    assert abandoned.remove(Settings(home=home), temporary=home / "tmp") == 0
    assert abandoned.remove(Settings(home=home), 0.0, home / "tmp") == 2
    assert [one.exists() for one in (theirs, ours, socket, strangers)] == [False, True, False, True]
