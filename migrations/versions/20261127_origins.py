"""Origins: a version that was imported says so.

Revision: 20261127_origins
Revises: 20261126_rollouts
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "20261127_origins"
down_revision = "20261126_rollouts"
branch_labels = None
depends_on = None


def upgrade() -> None:
    document = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
    with op.batch_alter_table("model_version") as batch:
        batch.add_column(sa.Column("origin", document, nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("model_version") as batch:
        batch.drop_column("origin")
