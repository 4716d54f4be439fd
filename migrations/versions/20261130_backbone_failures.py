"""The code beside the message of own weights that were refused.

Revision: 20261130_backbone_failures
Revises: 20261129_collections
"""

import sqlalchemy as sa
from alembic import op

revision = "20261130_backbone_failures"
down_revision = "20261129_collections"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Nullable: the release before this one goes on writing messages without it.
    op.add_column("backbone", sa.Column("failure_code", sa.String(length=40), nullable=True))


def downgrade() -> None:
    op.drop_column("backbone", "failure_code")
