"""Sizes of versions and own backbones, which count against a project's limit.

Rows from before, and those that the previous release goes on writing, have 0: a collection counts what they store.

Revision: 20261130_stored_bytes
Revises: 20261130_backbone_failures
"""

import sqlalchemy as sa
from alembic import op

revision = "20261130_stored_bytes"
down_revision = "20261130_backbone_failures"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("model_version", "backbone"):
        op.add_column(table, sa.Column("size_bytes", sa.BigInteger(), server_default="0", nullable=False))
    # Covers the sum, which would else read the documents beside it.
    op.create_index(
        op.f("ix_model_version_project_id_size_bytes"), "model_version", ["project_id", "size_bytes"], unique=False
    )


def downgrade() -> None:
    op.drop_index(op.f("ix_model_version_project_id_size_bytes"), table_name="model_version")
    for table in ("model_version", "backbone"):
        op.drop_column(table, "size_bytes")
