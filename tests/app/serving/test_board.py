"""Pages are written again as soon as they can be; what fails leaves nothing."""

from app.serving.board import Board
from tests.conftest import SMALL_DISK_BYTES, wait_until
from tests.factories import files_below

PERIOD_SECONDS = 0.02
TOO_LARGE = bytes(SMALL_DISK_BYTES + 1)


def pages(board):
    return [page.data for page in board.others()]


def test_a_full_disk_passes(small_disk, caplog):
    ours, theirs = (Board(small_disk / "board", PERIOD_SECONDS) for _ in range(2))
    told = [b"1"]
    ours.keep(lambda: told[-1])
    assert pages(theirs) == [b"1"]
    for number in (b"2", b"3"):
        told.append(TOO_LARGE)
        wait_until(lambda: not theirs.others()[0].is_fresh, "a page that is old")
        assert pages(theirs)[0] != TOO_LARGE
        told.append(number)
        wait_until(lambda number=number: pages(theirs) == [number], "the next page")
    # Once for each time that the disk was full.
    assert len([record for record in caplog.records if record.name == "app.serving.board"]) == 2
    told.append(b"4")
    ours.close()
    assert pages(theirs) == [b"4"]
    assert len(files_below(small_disk)) == 1


def test_a_folder_that_is_missing_for_a_moment(tmp_path):
    folder, elsewhere = tmp_path / "board", tmp_path / "elsewhere"
    ours, theirs = (Board(folder, PERIOD_SECONDS) for _ in range(2))
    folder.rename(elsewhere)
    ours.keep(lambda: b"1")
    elsewhere.rename(folder)
    wait_until(lambda: pages(theirs) == [b"1"], "the page")
    folder.rename(elsewhere)
    ours.close()
