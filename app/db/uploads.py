"""Tables of resumable uploads: what has come of each, and who writes to it at the moment."""

from datetime import datetime

from sqlalchemy import BigInteger, ColumnElement, ForeignKey, Index, String, and_
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base, now

_ID = String(40)
# The state of an upload whose bytes belong to what was made of it.
USED = "used"


class Upload(Base):
    """A file that comes in pieces. `received_bytes` counts what is durably stored; nothing beyond it is kept.

    `writer` holds the upload until `writer_expires_at`, renewed while bytes come. The rest is for object stores:
    `remote_id` is the multipart upload's name there, `last_part` the last part number that was given out, and the
    `tail_bytes` that are too few for a part lie in an object of their own, `tail`.
    """

    __tablename__ = "upload"
    __table_args__ = (Index(None, "project_id", "id"), Index(None, "expires_at"))
    id: Mapped[str] = mapped_column(_ID, primary_key=True)
    project_id: Mapped[str] = mapped_column(_ID, ForeignKey("project.id"))
    via: Mapped[str] = mapped_column(String(10))
    state: Mapped[str] = mapped_column(String(20))
    filename: Mapped[str | None]
    tus_metadata: Mapped[str | None]
    size_bytes: Mapped[int | None] = mapped_column(BigInteger)
    received_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    sha256: Mapped[str | None] = mapped_column(String(64))
    used_by: Mapped[str | None] = mapped_column(String(200))
    part_bytes: Mapped[int | None] = mapped_column(BigInteger)
    remote_id: Mapped[str | None]
    last_part: Mapped[int] = mapped_column(default=0)
    tail: Mapped[str | None] = mapped_column(_ID)
    tail_bytes: Mapped[int] = mapped_column(default=0)
    writer: Mapped[str | None] = mapped_column(_ID)
    writer_expires_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(default=now)
    expires_at: Mapped[datetime]

    @hybrid_property
    def has_expired(self) -> bool:
        """Whether nobody has written to it for too long; never of one whose bytes belong to something else."""
        return self.state != USED and self.expires_at < now()

    @has_expired.inplace.expression
    @classmethod
    def _has_expired(cls) -> ColumnElement[bool]:
        return and_(cls.state != USED, cls.expires_at < now())

    @hybrid_property
    def has_writer(self) -> bool:
        """Whether a request writes or verifies it now: it is kept once that is done, however long it takes."""
        return self.writer is not None and self.writer_expires_at is not None and self.writer_expires_at > now()

    @has_writer.inplace.expression
    @classmethod
    def _has_writer(cls) -> ColumnElement[bool]:
        return and_(cls.writer.is_not(None), cls.writer_expires_at.is_not(None), cls.writer_expires_at > now())


class UploadPart(Base):
    """One part of an upload that lies in an object store; their numbers rise with the bytes, and may have gaps."""

    __tablename__ = "upload_part"
    upload_id: Mapped[str] = mapped_column(_ID, ForeignKey("upload.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(_ID, ForeignKey("project.id"))
    etag: Mapped[str] = mapped_column(String(200))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
