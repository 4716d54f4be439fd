"""Files that killed processes were writing are found, and those of living ones left alone."""

from app import abandoned
from app.settings import Settings
from app.storage import DRAFTS

PLACES = (
    "scratch/upload-1",
    "scratch/bundle-1/file",
    f"cache/{DRAFTS}/tmp1",
    f"storage/{DRAFTS}/tmp1",
    "broker/messages/.1.part",
)
OTHERS = ("scratch/job_1-1-x/file", "storage/datasets/default/ds_1/index", "broker/messages/1_x.cpu.msg")


def test_only_what_has_a_temporary_name_and_is_old_goes(home):
    for place in (*PLACES, *OTHERS):
        (home / place).parent.mkdir(parents=True, exist_ok=True)
        (home / place).write_bytes(b"x")
    settings = Settings(home=home)
    assert abandoned.remove(settings) == 0
    assert abandoned.remove(settings, seconds=0.0) == len(PLACES)
    left = sorted(path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file())
    assert left == sorted(OTHERS)
