"""Collections: what was found in storage and removed; jobs remember the request that made them.

Revision: 20261129_collections
Revises: 20261129_traces
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "20261129_collections"
down_revision = "20261129_traces"
branch_labels = None
depends_on = None

DOCUMENT = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    op.create_table(
        "collection",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("removes", sa.Boolean(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("report", DOCUMENT, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_collection")),
    )
    op.create_index(op.f("ix_collection_started_at"), "collection", ["started_at"])
    # Nullable: the release before this one goes on writing jobs without it.
    op.add_column("job", sa.Column("request_id", sa.String(length=200), nullable=True))


def downgrade() -> None:
    op.drop_column("job", "request_id")
    op.drop_table("collection")
