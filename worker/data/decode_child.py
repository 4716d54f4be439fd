"""Decodes untrusted images in a process of its own.

`python -m worker.data.decode_child SPOOL_FD SECONDS MEMORY_BYTES MAX_PIXELS`: requests on stdin are pairs of little-
endian uint64, offset and length of an image in the spool, a file that was inherited for reading. Each is answered, in
order, by one JSON line on stdout: `{width, height, grey}` of the upright image, or `{code, message}`; `grey` is what
its perceptual hash is made of, in base64. The first line, `{}`, says that the imports are done. numpy is none of them:
it would take longer than all others, and the parent, which makes the hashes, has it. A crash or a hang costs the image
at hand only: the parent starts another child. No image travels through the pipe, so the parent never blocks on a busy
child, and holds none while it waits.
"""

import base64
import json
import os
import resource
import signal
import struct
import sys
from typing import Any

from PIL import Image

from app.artifact.decoding import decode, open_image
from app.errors import BadImage

REQUEST = struct.Struct("<QQ")
# Pixels a side of the grey levels; twice that lets Pillow decode large JPEGs at an eighth of their size.
SIDE = 32
AT_LEAST = 2 * SIDE
_JPEG = b"\xff\xd8"
_ORIENTATION = 0x0112


# EXIF orientations that swap width and height.
_SIDEWAYS = frozenset({5, 6, 7, 8})


def check(data: bytes, max_pixels: int) -> dict[str, Any]:
    """Decodes one image as training will, and measures what the index keeps."""
    try:
        image = decode(data, at_least=AT_LEAST, max_pixels=max_pixels)
        # Only a JPEG is decoded at a reduced size, so only there the header has to be asked.
        width, height = _upright_size(data, max_pixels) if data.startswith(_JPEG) else image.size
    except BadImage as error:
        return {"code": error.code, "message": error.detail}
    except MemoryError:
        return {"code": "decode_out_of_memory", "message": ""}
    return {"width": width, "height": height, "grey": base64.b64encode(grey(image)).decode()}


def grey(image: Image.Image) -> bytes:
    """SIDE rows of SIDE grey levels, a byte each, of an upright RGB image."""
    return image.convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=2.0).tobytes()


def _upright_size(data: bytes, max_pixels: int) -> tuple[int, int]:
    header = open_image(data, max_pixels)
    width, height = header.size
    return (height, width) if header.getexif().get(_ORIENTATION, 1) in _SIDEWAYS else (width, height)


def _confine(memory_bytes: int) -> None:
    """No files, no core dumps, bounded memory."""
    for what, limit in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (limit, limit))


def main() -> None:
    """Answers requests until stdin closes."""
    spool, seconds, memory_bytes, max_pixels = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    _confine(memory_bytes)
    requests, replies = sys.stdin.buffer, sys.stdout.buffer
    replies.write(b"{}\n")
    replies.flush()
    while request := requests.read(REQUEST.size):
        offset, length = REQUEST.unpack(request)
        # The parent's clock ends a hang first; the alarm, which kills, is for a hang after the parent is gone.
        signal.setitimer(signal.ITIMER_REAL, 2 * seconds)
        reply = check(os.pread(spool, length, offset), max_pixels)
        signal.setitimer(signal.ITIMER_REAL, 0)
        replies.write(json.dumps(reply).encode() + b"\n")
        replies.flush()


if __name__ == "__main__":
    main()
