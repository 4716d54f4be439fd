"""Uploads whose parts the client puts into the object store itself: begun there, and compared with what came."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from app.db.uploads import Upload
from app.errors import BadRequest, Conflict
from app.inbox import Held, Inbox, Part
from app.services import uploads

log = logging.getLogger(__name__)


@contextmanager
def started(inbox: Inbox, project: str, new: uploads.NewUpload) -> Iterator[uploads.NewUpload]:
    """An upload that is open in the object store, where its parts go there, for a block that writes its row.

    Before the transaction: others would wait for the object store. What raises in the block gives the upload up; where
    that fails, or nobody lives to do it, it is open without a row, and swept.

    Raises:
        Unsupported: parts were asked for where the storage has none.
    """
    if new.via != uploads.S3:
        yield new
        return
    key = uploads.incoming(project, new.id)
    remote_id = inbox.start_parts(key)
    try:
        yield replace(new, remote_id=remote_id)
    except BaseException:
        try:
            inbox.discard(Held(key, uploads.working(project, new.id), 0, remote_id))
        except Exception:
            log.exception("%s stays open in the object store; the sweep will try again", key)
        raise


def sizes(row: Upload) -> list[int]:
    """Bytes of each part that the client puts into the object store itself; a part of nothing for an empty file.

    Raises:
        Conflict: code upload_via, its bytes come through the service.
    """
    if row.via != uploads.S3 or row.part_bytes is None or row.size_bytes is None:
        raise Conflict(
            f"expected an upload that was begun with `via: s3`; found {row.id} via {row.via}; send it with PATCH",
            code="upload_via",
        )
    full, rest = divmod(row.size_bytes, row.part_bytes)
    return [row.part_bytes] * full + ([rest] if rest or not full else [])


def check_awaits_parts(row: Upload) -> None:
    """Refuses an upload whose parts are one object already: there is nowhere to put another one.

    Raises:
        Conflict: code upload_via, as `sizes`; upload_used; or invalid_state, all of it is here.
    """
    sizes(row)
    if row.state == uploads.State.USED:
        uploads.check_complete(row)
    if row.state != uploads.State.RECEIVING:
        raise Conflict(
            f"expected an upload that waits for parts; found {row.id} {row.state}, with all of its {row.size_bytes} "
            f"bytes; go on with POST /api/v1/uploads/{row.id}/complete, or begin a new one"
        )


def check_parts(row: Upload, given: list[Part], found: list[Part]) -> list[Part]:
    """What the client says it has put there, against what is there.

    Raises:
        BadRequest: code parts_invalid, with the first part that is wrong.
    """
    there = {part.number: part for part in found}
    etags = {part.number: part.etag for part in given}
    for number, size in enumerate(sizes(row), 1):
        part = there.get(number)
        if part is None or number not in etags:
            what = "no such part in the object store" if part is None else "none named"
        elif part.etag.strip('"') != etags[number].strip('"'):
            what = f"etag {etags[number]!r} named and {part.etag!r} in the object store"
        elif part.size_bytes != size:
            what = f"{part.size_bytes} bytes"
        else:
            continue
        raise BadRequest(
            f"expected part {number} with {size} bytes and its etag; found {what}; put the part again and name what "
            "the object store answers",
            code="parts_invalid",
        )
    if len(etags) != len(sizes(row)):
        raise BadRequest(
            f"expected {len(sizes(row))} parts; found {len(etags)} named; name each once", code="parts_invalid"
        )
    return found
