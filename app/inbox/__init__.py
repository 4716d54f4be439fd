"""Where the bytes of resumable uploads gather until they are whole: beside the objects of the same storage.

The row of an upload says how many bytes are durably there (`app.db.uploads`). What lies beyond that number, because a
process was killed before it could write the number down, is overwritten by the next request.
"""

from app.errors import NotFound
from app.inbox.base import READ_BYTES, ROOT, Held, Inbox, Part, Sink, Synced, Writer
from app.storage import FolderStorage, Storage

__all__ = ["READ_BYTES", "ROOT", "Held", "Inbox", "Part", "Sink", "Synced", "Writer", "first", "open_inbox"]


def open_inbox(storage: Storage, public_address: str | None = None) -> Inbox:
    """The inbox of a storage; clients reach an object store under a public address where that is another one."""
    if isinstance(storage, FolderStorage):
        from app.inbox.folder import FolderInbox

        return FolderInbox(storage)
    from app.inbox.s3 import S3Inbox
    from app.storage.s3 import S3Storage

    assert isinstance(storage, S3Storage)
    return S3Inbox(storage, public_address)


def first(inbox: Inbox, key: str, most_bytes: int) -> bytes:
    """The beginning of an object; empty where there is none."""
    try:
        return b"".join(inbox.read(key, most_bytes))
    except NotFound:
        return b""
