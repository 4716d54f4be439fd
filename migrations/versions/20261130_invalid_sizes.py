"""Datasets that came to nothing have no bytes: what had been sent for them counted against their project for ever.

Revision: 20261130_invalid_sizes
Revises: 20261130_stored_bytes
"""

from alembic import op

revision = "20261130_invalid_sizes"
down_revision = "20261130_stored_bytes"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("UPDATE dataset SET size_bytes = 0 WHERE state = 'invalid'")


def downgrade() -> None:
    """The sizes are wanted by nobody."""
