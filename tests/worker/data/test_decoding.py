"""Decoding children: good images, bad images, and programs that crash, hang or lie."""

import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

import pytest
from PIL import Image

from worker.data.decoding import WINDOW, Checked, Decoders
from worker.data.limits import Limits
from worker.data.spool import Spool

from .conftest import draw

GOOD, CRASH, HANG, GARBAGE, ENDLESS, UNKNOWN = b"good", b"crash", b"hang", b"garbage", b"endless", b"unknown"

ONE_CHILD = Limits(num_processes=1)

# Follows the protocol of the real child, but does what the image says.
ACTOR = """
import os, signal, struct, sys
out = sys.stdout.buffer
def say(line):
    out.write(line); out.flush()
say(b"{}\\n")
while request := sys.stdin.buffer.read(16):
    offset, length = struct.unpack("<QQ", request)
    act = os.pread(int(sys.argv[1]), length, offset)
    if act == b"crash": os.kill(os.getpid(), signal.SIGSEGV)
    if act == b"hang": signal.pause()
    if act == b"garbage": say(b"[1, 2\\n")
    if act == b"endless": say(b"x" * 200_000)
    if act == b"unknown": say(b'{"code": "all_well", "message": ""}\\n')
    if act == b"short": say(b'{"width": 2, "height": 3, "grey": "AAAA"}\\n')
    if act == b"no_base64": say(b'{"width": 2, "height": 3, "grey": "??"}\\n')
    if act == b"good": say(b'{"width": 2, "height": 3, "grey": "' + 341 * b"AAAA" + b'AA=="}\\n')
"""


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    with Spool(tmp_path / "spool") as made:
        yield made


@pytest.fixture
def check(spool: Spool, tmp_path: Path) -> Callable[..., dict[int, Checked]]:
    """Runs images through children; every image has to be answered exactly once."""
    actor = tmp_path / "actor.py"
    actor.write_text(ACTOR)

    def run(images: list[bytes], limits: Limits = ONE_CHILD, acting: bool = False) -> dict[int, Checked]:
        found: list[Checked] = []
        command = {"command": (sys.executable, str(actor))} if acting else {}
        with Decoders(spool.fd, limits, **command) as decoders:
            for index, data in enumerate(images):
                stored = spool.append((data,))
                found.extend(decoders.submit(index, stored.offset, stored.length))
            found.extend(decoders.drain())
        assert sorted(one.index for one in found) == list(range(len(images)))
        return {one.index: one for one in found}

    return run


def test_more_images_than_fit_the_window(check: Callable[..., dict[int, Checked]]) -> None:
    images = [draw(number, size=(20 + number % 7, 30)) for number in range(3 * WINDOW)]
    found = check(images, Limits(num_processes=2))
    assert all(found[number].width == 20 + number % 7 for number in found)
    assert all((one.height, one.code) == (30, "") for one in found.values())
    assert len({one.grey for one in found.values()}) == len(images)


def test_bad_images_are_named(check: Callable[..., dict[int, Checked]]) -> None:
    images = [draw(1), b"", b"hello", draw(2, "JPEG", (300, 300))[:3000], draw(3, size=(500, 400)), draw(4)]
    found = check(images, Limits(num_processes=1, max_pixels=100_000))
    assert [found[index].code for index in range(6)] == [
        "",
        "image_unreadable",
        "image_unreadable",
        "image_truncated",
        "image_too_large",
        "",
    ]
    assert "500 x 400" in found[4].message


def test_memory_is_bounded(check: Callable[..., dict[int, Checked]]) -> None:
    """A plain image of 300 MB once decoded, in a child of 300 MB."""
    out = io.BytesIO()
    Image.new("L", (10_000, 10_000)).save(out, "PNG", compress_level=1)
    limits = Limits(num_processes=1, decode_memory_bytes=300 * 2**20)
    found = check([draw(1), out.getvalue(), draw(2)], limits)
    assert [found[index].code for index in range(3)] == ["", "decode_out_of_memory", ""]


@pytest.mark.parametrize("act", [CRASH, GARBAGE, ENDLESS, UNKNOWN, b"short", b"no_base64"])
@pytest.mark.parametrize("num_processes", [1, 2])
def test_a_child_that_fails_costs_one_image(
    check: Callable[..., dict[int, Checked]], act: bytes, num_processes: int
) -> None:
    images = [act if number in {0, 5, 6, 19} else GOOD for number in range(20)]
    found = check(images, Limits(num_processes=num_processes), acting=True)
    assert {index for index, one in found.items() if one.code} == {0, 5, 6, 19}
    assert {one.code for one in found.values()} == {"", "decoder_crashed"}
    assert (found[1].width, found[1].height, found[1].grey) == (2, 3, bytes(1024))


def test_a_child_that_hangs_costs_one_image(check: Callable[..., dict[int, Checked]]) -> None:
    found = check([GOOD, HANG, GOOD, CRASH, GOOD], Limits(num_processes=1, decode_seconds=0.5), acting=True)
    assert [found[index].code for index in range(5)] == ["", "decode_timed_out", "", "decoder_crashed", ""]


def test_a_child_that_cannot_start_is_our_failure_not_the_image_s(spool: Spool) -> None:
    stored = spool.append((draw(1),))
    with (
        Decoders(spool.fd, Limits(num_processes=1), command=(sys.executable, "-c", "raise SystemExit(3)")) as decoders,
        pytest.raises(RuntimeError, match="expected the decoding process to start; found exit status 3"),
    ):
        list(chain(decoders.submit(0, stored.offset, stored.length), decoders.drain()))


def test_children_are_gone_afterwards(spool: Spool) -> None:
    with Decoders(spool.fd, Limits(num_processes=2)) as decoders:
        pids = [child.process.pid for child in decoders._children]
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_child_is_killed_from_outside_and_replaced(spool: Spool) -> None:
    with Decoders(spool.fd, Limits(num_processes=1)) as decoders:
        first = spool.append((draw(1),))
        found = list(decoders.submit(0, first.offset, first.length)) + list(decoders.drain())
        os.kill(decoders._children[0].process.pid, signal.SIGKILL)
        decoders._children[0].process.wait()
        for index in (1, 2):
            found += list(decoders.submit(index, first.offset, first.length))
        found += list(decoders.drain())
    assert [one.code for one in found] == ["", "decoder_crashed", ""]


def test_the_child_finds_nothing_of_ours(tmp_path: Path, spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither secrets in the environment nor files that it could write."""
    monkeypatch.setenv("GRAFT_SECRET", "hidden")
    with Decoders(spool.fd, Limits(num_processes=1)) as decoders:
        stored = spool.append((draw(1),))
        list(decoders.submit(0, stored.offset, stored.length))
        list(decoders.drain())
        pid = decoders._children[0].process.pid
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        limits = Path(f"/proc/{pid}/limits").read_text()
        opened = {str(one.readlink()) for one in Path(f"/proc/{pid}/fd").iterdir()}
    assert b"GRAFT" not in environment
    assert any(line.startswith("Max file size") and line.split()[3] == "0" for line in limits.splitlines())
    assert {name for name in opened if not name.startswith("pipe:")} == {"/dev/null", str(tmp_path / "spool")}


def test_importing_the_child_is_light() -> None:
    heavy = ("torch", "pyarrow", "scipy", "pandas", "numpy")
    code = f"import sys, worker.data.decode_child; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"[]\n"
