"""Bodies in gzip or deflate: requests under a limit that holds while they are inflated, answers when asked for."""

import gzip
import zlib
from collections.abc import Callable, Iterable, Iterator

from app.errors import BadRequest, TooLarge, Unsupported

# 32 more than the window's bits: the header says whether it is gzip or zlib, which is what `deflate` means.
EITHER = zlib.MAX_WBITS | 32
# A score for each of some classes; below, packing costs more than it saves.
WORTHWHILE_BYTES = 1024
LEVEL = 1
PIECE_BYTES = 2**20


def inflate(body: bytes, encoding: str, limit: int, take: Callable[[int], None]) -> bytes:
    """The body as it was before the client packed it.

    Args:
        body: whole.
        encoding: header Content-Encoding.
        limit: bytes of the result.
        take: told, piece by piece, of what the result has more than the body; may refuse it.

    Raises:
        Unsupported: another encoding than gzip or deflate.
        BadRequest: it is broken, cut off, or goes on behind its end.
        TooLarge: it would become larger than the limit; no more than a piece beyond it was inflated.
        Overloaded: as `take`.
    """
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "deflate"):
        raise Unsupported(f"expected Content-Encoding gzip or deflate; found {encoding[:40]!r}; send it as it is")
    stream, found, counted = zlib.decompressobj(EITHER), bytearray(), len(body)
    chunks = (body[start : start + PIECE_BYTES] for start in range(0, len(body), PIECE_BYTES))
    try:
        for piece in _pieces(stream, chunks):
            found += piece
            if len(found) > limit:
                raise TooLarge(
                    f"expected a body of at most {limit} bytes once it is inflated; found more; send less at once"
                )
            if len(found) > counted:
                take(len(found) - counted)
                counted = len(found)
    except zlib.error as error:
        raise BadRequest(f"expected a body in {encoding}, as its Content-Encoding says; found {error}") from error
    if not stream.eof or stream.unused_data or any(chunks):
        wrong = "more behind its end" if stream.eof else "it cut off"
        raise BadRequest(f"expected a whole body in {encoding}; found {wrong}; send it again")
    return bytes(found)


def _pieces(stream: "zlib._Decompress", chunks: Iterable[bytes]) -> Iterator[bytes]:
    """What chunks of a body inflate to, up to its end; few bytes may become a thousand times as many.

    In chunks, since each piece that is taken copies what is left of its chunk.
    """
    for chunk in chunks:
        packed, is_full = chunk, False
        while (packed or is_full) and not stream.eof:
            piece = stream.decompress(packed, PIECE_BYTES)
            yield piece
            packed, is_full = stream.unconsumed_tail, len(piece) == PIECE_BYTES
        if stream.eof:
            return


def deflate(body: bytes, accepted: str) -> tuple[bytes, str | None]:
    """The body in an encoding that the client accepts, and its name; as it is where that saves nothing.

    Args:
        body: of the answer.
        accepted: header Accept-Encoding.
    """
    if len(body) < WORTHWHILE_BYTES:
        return body, None
    names = {name for name, quality in map(_accepted, accepted.split(",")) if quality > 0}
    if "gzip" in names:
        return gzip.compress(body, LEVEL, mtime=0), "gzip"
    if "deflate" in names:
        return zlib.compress(body, LEVEL), "deflate"
    return body, None


def _accepted(item: str) -> tuple[str, float]:
    name, _, parameters = item.partition(";")
    try:
        quality = float(parameters.strip().removeprefix("q=") or 1)
    except ValueError:
        quality = 0.0
    return name.strip().lower(), quality
