"""Rollouts: an alias tries other versions beside its own.

Revision: 20261126_rollouts
Revises: 20261126_forecasts
"""

import sqlalchemy as sa
from alembic import op

revision = "20261126_rollouts"
down_revision = "20261126_forecasts"
branch_labels = None
depends_on = None

TABLES = ("alias", "alias_change")


def upgrade() -> None:
    for table in TABLES:
        with op.batch_alter_table(table) as batch:
            batch.add_column(sa.Column("canary", sa.Integer(), nullable=True))
            batch.add_column(sa.Column("share", sa.Double(), nullable=True))
            batch.add_column(sa.Column("shadow", sa.Integer(), nullable=True))


def downgrade() -> None:
    for table in TABLES:
        with op.batch_alter_table(table) as batch:
            for column in ("shadow", "share", "canary"):
                batch.drop_column(column)
